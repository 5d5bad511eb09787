-- recipes/srpo.lua for its loss curve, with hardly an evaluation: what check.sh runs on the CPU and on a device.
local syz = require "syz"
local opt = syz.options {
  steps = { 8, "optimizer steps" }, batch = { 8, "prompts per step" }, lr = { 2e-5, "AdamW learning rate" },
  rollout = { 12, "sampler steps of the rollout" }, seed = { 42, "random seed" },
  precision = { "f32", "of matrix products and convolutions", { "f32", "bf16" } },
}

return syz.train {
  method = syz.methods.srpo {
    pipeline = syz.pipeline "examples/emoji/pipeline", reward = syz.reward.clip "examples/emoji/reward",
    control = { positive = { "3D render" }, negative = { "Flat", "Sticker" } },
    schedule = syz.schedule.flow { steps = opt.rollout, shift = 3 },
    window = { sigma = { 0.9, 0.3 } }, jump = 166, train_guidance = 1,
    kappa = { denoise = { 0.3, 1.0 }, inversion = { 0.0, 0.5 } },
  },
  prompts = syz.prompts "examples/emoji/prompts.txt",
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 1e-4, clip = 0.1 },
  steps = opt.steps, batch = opt.batch, seed = opt.seed, precision = opt.precision, checkpoint_every = opt.steps,
  eval = { every = opt.steps, prompts = { "cat", "dog" }, grid = 2, steps = 1 },
}
