-- GRPO on the embedded emoji pipeline: groups of images per prompt, and the better ones of each become more likely. The
-- reward needs no gradient. By default it is how well the picture fits its prompt; with kappa from 0 on it is SRPO's
-- relative reward, which pulls towards "3D render" and away from "Flat".
local syz = require "syz"
local opt = syz.options {
  model = { "examples/emoji/pipeline", "pipeline folder in the diffusers layout" },
  reward = { "examples/emoji/reward", "a CLIP-like reward model" },
  held_out = { "examples/emoji/held_out", "another reward, never optimised" },
  judge = { "examples/emoji/judge", "independent judge, never optimised" },
  form = { "dance", "dance (DanceGRPO) or flow (Flow-GRPO)", { "dance", "flow" } },
  sampler = { "", "noise of the rollout; the form's own unless given", { "", "dance", "flow", "cps" } },
  eta = { 0, "amount of that noise; 0 for the form's own" },
  kappa = { -1, "relative reward (1 + kappa) s_pos - s_neg; below 0: the plain reward" },
  positive = { { "3D render" }, "control words of the relative reward" },
  negative = { { "Flat", "Sticker" }, "what it moves away from" },
  kl = { -1, "pull towards the model as it was, which keeps a frozen copy; below 0 for the form's own" },
  window = { 0, "noisy steps per update, drawn anew each time; 0 for all but the last" },
  style = { "fluent-3d", "the judge's name of the wanted style" },
  steps = { 40, "rollouts" }, updates = { 1, "optimizer updates per rollout" },
  batch = { 4, "prompts per rollout" }, group = { 8, "images per prompt" }, lr = { 5e-5, "AdamW learning rate" },
  rollout = { 12, "sampler steps" }, seed = { 42, "random seed" },
}

return syz.train {
  method = syz.methods.grpo {
    pipeline = syz.pipeline(opt.model), reward = syz.reward.clip(opt.reward),
    form = opt.form, group = opt.group, updates = opt.updates,
    sampler = opt.sampler ~= "" and opt.sampler or nil, eta = opt.eta > 0 and opt.eta or nil,
    kl = opt.kl >= 0 and opt.kl or nil,
    rollout_steps = opt.rollout, shift = 3, guidance = 1,
    window = opt.window > 0 and { size = opt.window } or nil,
    relative = opt.kappa >= 0 and {
      control = { positive = opt.positive, negative = opt.negative }, kappa = opt.kappa,
    } or nil,
  },
  prompts = syz.prompts "examples/emoji/prompts.txt",
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 1e-4, clip = 1 },
  steps = opt.steps, batch = opt.batch, seed = opt.seed, checkpoint_every = 10,
  eval = {
    every = 20, grid = 24, prompts = syz.prompts "examples/emoji/prompts-eval.txt", steps = 12, guidance = 2,
    judge = syz.judge(opt.judge), style = opt.style, rewards = { held_out = syz.reward.clip(opt.held_out) },
  },
}
