-- SRPO on the embedded emoji pipeline: pull plain prompts towards "3D render" and away from "Flat".
-- The same recipe with `model` and `reward` changed is how a FLUX pipeline is aligned.
local syz = require "syz"
local opt = syz.options {
  model = { "examples/emoji/pipeline", "pipeline folder in the diffusers layout" },
  reward = { "examples/emoji/reward", "a CLIP-like reward model" },
  judge = { "examples/emoji/judge", "independent judge, never optimised" },
  positive = { "3D render", "control words to move towards, comma-separated" },
  negative = { "Flat,Sticker", "control words to move away from, comma-separated" },
  style = { "fluent-3d", "the judge's name of the wanted style" },
  form = { "inversion", "inversion, difference or cfg", { "inversion", "difference", "cfg" } },
  steps = { 40, "optimizer steps" }, batch = { 16, "prompts per step" }, lr = { 1e-5, "AdamW learning rate" },
  rollout = { 12, "sampler steps of the rollout" }, seed = { 42, "random seed" },
}

local function words(text)
  local list = {}
  for word in text:gmatch("[^,]+") do list[#list + 1] = word:match("^%s*(.-)%s*$") end
  return list
end

local pipe = syz.pipeline(opt.model)
local reward = syz.reward.clip(opt.reward)

return syz.train {
  method = syz.methods.srpo {
    pipeline = pipe, reward = reward, form = opt.form,
    control = { positive = words(opt.positive), negative = words(opt.negative) },
    schedule = syz.schedule.flow { steps = opt.rollout, shift = 3 },
    window = { sigma = { 0.9, 0.3 } }, jump = 166, train_guidance = 1,
    kappa = { denoise = { 0.3, 1.0 }, inversion = { 0.0, -0.5 } },
  },
  prompts = syz.prompts "examples/emoji/prompts.txt",
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 1e-4, clip = 0.1 },
  steps = opt.steps, batch = opt.batch, seed = opt.seed, checkpoint_every = 10,
  eval = {
    every = 20, grid = 24, prompts = syz.prompts "examples/emoji/prompts-eval.txt", steps = 12, guidance = 2,
    judge = syz.judge(opt.judge), style = opt.style,
  },
}
