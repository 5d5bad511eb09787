-- A reward that can be hacked, on the random pipeline of tiny.lua: it likes bright images, the brighter the better. A
-- middle tone is what it stands for and is held out; that rises at first, and falls when the images grow too bright.
-- The stop rule has to notice, and to keep a model from before the turn.
local syz = require "syz"
local opt = syz.options {
  model = { "tests/models/data/pipeline", "pipeline folder" }, steps = { 40, "optimizer steps" },
  lr = { 2e-3, "learning rate" }, patience = { 2, "evaluations that a held-out metric may lie below its best" },
  guard = { 0, "by how much saturation may fall (negative); 0: no guard" },
  keep = { true, "keep the best model" }, rule = { true, "whether to stop at all" },
  rank = { 0, "of LoRA adapters; 0 for none" }, ema = { 0, "decay of a moving average; 0 for none" },
  every = { 2, "steps between evaluations" },
  dtype = { "f32", "of the transformer's weights", { "f32", "bf16" } }, save = { "", "dtype of the finished model" },
}

local brightness, tone = {}, {}
function brightness.score(_, images) return images:mean({ 1, 2, 3 }) end
function tone.score(_, images)
  local distance = images:mean({ 1, 2, 3 }) - 0.4
  return -(distance * distance)
end

local pipe = syz.pipeline(opt.model, { size = { 16, 16 }, dtype = opt.dtype })
if opt.rank > 0 then pipe:lora { rank = opt.rank, targets = "all-linear", rank_pattern = { proj_out = 4 } } end

return syz.train {
  ema = opt.ema > 0 and opt.ema or nil, save = opt.save ~= "" and opt.save or nil,
  method = syz.methods.direct_align {
    pipeline = pipe, reward = brightness,
    schedule = syz.schedule.flow { steps = 3, shift = 3 }, rollout_steps = 3, train_guidance = 1,
  },
  prompts = { "a red cat", "two dogs", "a green hat" }, batch = 3,
  optimizer = syz.adamw { lr = opt.lr, clip = 1 }, steps = opt.steps, checkpoint_every = 5,
  eval = {
    every = opt.every, grid = 6, steps = 3, per_prompt = 2, rewards = { tone = tone },
    judge = syz.judge.new({ "bright", "dark" }, { "a red cat", "two dogs", "a green hat" }, 3), style = "bright",
  },
  stop = opt.rule and {
    keep_best = opt.keep, watch = { "tone" }, patience = opt.patience,
    guard = opt.guard < 0 and { saturation = opt.guard } or nil,
  } or nil,
}
