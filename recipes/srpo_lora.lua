-- SRPO with LoRA: the same alignment as recipes/srpo.lua, but what is trained is small adapters beside the frozen
-- weights. The run leaves model/lora/pytorch_lora_weights.safetensors, which diffusers and ComfyUI load as it is
-- (docs/lora.md). The same recipe with `model` and `reward` changed is how a FLUX pipeline is aligned.
local syz = require "syz"
local opt = syz.options {
  model = { "examples/emoji/pipeline", "pipeline folder in the diffusers layout" },
  reward = { "examples/emoji/reward", "a CLIP-like reward model" },
  held_out = { "examples/emoji/held_out", "another reward, never optimised" },
  judge = { "examples/emoji/judge", "independent judge, never optimised" },
  positive = { { "3D render" }, "control words to move towards" },
  negative = { { "Flat", "Sticker" }, "control words to move away from" },
  style = { "fluent-3d", "the judge's name of the wanted style" },
  rank = { 8, "of the adapters" }, alpha = { 8, "their scale is alpha / rank" },
  targets = { "blocks", "layers that are adapted", { "attention", "blocks", "all-linear" } },
  from = { "", "adapters to start from, a folder or a file; rank, alpha and targets are then theirs" },
  steps = { 40, "optimizer steps" }, batch = { 16, "prompts per step" }, lr = { 4e-4, "AdamW learning rate" },
  ema = { 0, "decay of a moving average of the adapters; 0 for none" },
  rollout = { 12, "sampler steps of the rollout" }, seed = { 42, "random seed, of the adapters too" },
  precision = { "f32", "of matrix products and convolutions", { "f32", "bf16" } },
}

local pipe = syz.pipeline(opt.model)
pipe:lora(opt.from ~= "" and { load = opt.from }
  or { rank = opt.rank, alpha = opt.alpha, targets = opt.targets, seed = opt.seed })

return syz.train {
  method = syz.methods.srpo {
    pipeline = pipe, reward = syz.reward.clip(opt.reward),
    control = { positive = opt.positive, negative = opt.negative },
    schedule = syz.schedule.flow { steps = opt.rollout, shift = 3 },
    window = { sigma = { 0.9, 0.3 } }, jump = 166, train_guidance = 1,
    kappa = { denoise = { 0.3, 1.0 }, inversion = { 0.0, 0.5 } },
  },
  prompts = syz.prompts "examples/emoji/prompts.txt",
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 1e-4, clip = 0.1 },
  steps = opt.steps, batch = opt.batch, seed = opt.seed, precision = opt.precision, checkpoint_every = 10,
  ema = opt.ema > 0 and opt.ema or nil,
  eval = {
    every = 10, grid = 24, prompts = syz.prompts "examples/emoji/prompts-eval.txt", steps = 12, guidance = 2,
    judge = syz.judge(opt.judge), style = opt.style, rewards = { held_out = syz.reward.clip(opt.held_out) },
  },
  stop = { guard = { judge_subject_accuracy = -0.15, diversity = "-15%" } },
}
