-- SRPO on the embedded emoji pipeline: pull plain prompts towards "3D render" and away from "Flat".
-- The same recipe with `model` and `reward` changed is how a FLUX pipeline is aligned.
local syz = require "syz"
local opt = syz.options {
  model = { "examples/emoji/pipeline", "pipeline folder in the diffusers layout" },
  embeddings = { "", "folder that `syz embed` wrote, in place of the pipeline's text encoder" },
  reward = { "examples/emoji/reward", "a CLIP-like reward model" },
  held_out = { "examples/emoji/held_out", "another reward, never optimised" },
  judge = { "examples/emoji/judge", "independent judge, never optimised" },
  positive = { { "3D render" }, "control words to move towards" },
  negative = { { "Flat", "Sticker" }, "control words to move away from" },
  style = { "fluent-3d", "the judge's name of the wanted style" },
  form = { "inversion", "inversion, difference or cfg", { "inversion", "difference", "cfg" } },
  steps = { 40, "optimizer steps" }, batch = { 16, "prompts per step" }, lr = { 2e-5, "AdamW learning rate" },
  rollout = { 12, "sampler steps of the rollout" }, seed = { 42, "random seed" },
  window = { { 0.9, 0.3 }, "noise levels that are trained, from high to low" },
  jump = { 166, "how far one step goes, in thousandths of the window" },
  kappa_denoise = { { 0.3, 1.0 }, "weight of the positive text, at the clean and the noisy end of the window" },
  kappa_inversion = { { 0.0, 0.5 }, "the same in the inversion branch" },
  cfg = { 2, "k of form cfg, whose text is k positive + (1 - k) negative" },
  lambda = { { 1, 1 }, "weight of the loss, at the clean and the noisy end of the window" },
  precision = { "f32", "of matrix products and convolutions", { "f32", "bf16" } },
  rollout_type = { "same", "fp8: the transformer's layers in 8 bits during rollouts", { "same", "fp8" } },
}

local pipe = syz.pipeline(opt.model, {
  embeddings = opt.embeddings ~= "" and opt.embeddings or nil,
  rollout = opt.rollout_type == "fp8" and "fp8" or nil,
})
local reward = syz.reward.clip(opt.reward)

return syz.train {
  method = syz.methods.srpo {
    pipeline = pipe, reward = reward, form = opt.form,
    control = { positive = opt.positive, negative = opt.negative },
    schedule = syz.schedule.flow { steps = opt.rollout, shift = 3 },
    window = { sigma = opt.window }, jump = opt.jump, train_guidance = 1,
    kappa = { denoise = opt.form == "cfg" and opt.cfg or opt.kappa_denoise, inversion = opt.kappa_inversion },
    lambda = opt.lambda,
  },
  prompts = syz.prompts "examples/emoji/prompts.txt",
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 1e-4, clip = 0.1 },
  steps = opt.steps, batch = opt.batch, seed = opt.seed, precision = opt.precision, checkpoint_every = 10,
  eval = {
    every = 10, grid = 24, prompts = syz.prompts "examples/emoji/prompts-eval.txt", steps = 12, guidance = 2,
    judge = syz.judge(opt.judge), style = opt.style, rewards = { held_out = syz.reward.clip(opt.held_out) },
  },
  stop = { guard = { judge_subject_accuracy = -0.15, diversity = "-15%" } },
}
