-- SRPO on FLUX.1-dev with HPSv2.1, by the settings of the released code: 19 updates of 32 prompts at 720².
-- Change two paths: `model` and `reward`. `syz run recipes/flux/srpo_hps.lua --dry-run` needs neither.
local syz = require "syz"
local opt = syz.options {
  model = { "models/FLUX.1-dev", "the published diffusers folder" },
  reward = { "models/HPSv2/HPS_v2.1_compressed.pt", "HPSv2.1's published file" },
  embeddings = { "", "folder that `syz embed` wrote; none: text encoders stay in memory" },
  prompts = { "recipes/flux/prompts.txt", "training prompts, one per line" },
  size = { 720, "side of the images in pixels" },
  compat = { true, "the released code's form; false: the paper's" },
  lora = { 0, "rank of the adapters that are trained; 0: the whole transformer" },
  weights = { "f32", "dtype of the weights that are trained", { "f32", "bf16" } },
  moments = { "f32", "how AdamW keeps its moments: docs/optimizer-states.md", { "f32", "8bit", "host" } },
  steps = { 19, "updates" }, batch = { 32, "prompts per update" },
  lr = { 5e-6, "AdamW learning rate; with adapters about 20 times as much" },
  rollout = { 25, "sampler steps of the rollout" }, window = { { 5, 25 }, "trained part of the 50-step grid" },
  kappa_denoise = { { 0.1, 0.25 }, "weight of the positive text, from the clean to the noisy end of the window" },
  kappa_inversion = { { 0.3, 0.01 }, "the same in the inversion branch" },
  every = { 5, "updates between evaluations" }, seed = { 42, "random seed" },
}

local pipe = syz.pipeline(opt.model, {
  size = { opt.size, opt.size }, dtype = opt.weights == "bf16" and "bf16" or nil,
  embeddings = opt.embeddings ~= "" and opt.embeddings or nil,
})
pipe.vae:checkpointing(true)
pipe.transformer:checkpointing(true)
if opt.lora > 0 then pipe:lora { rank = opt.lora } end

return syz.train {
  method = syz.methods.srpo {
    pipeline = pipe, reward = syz.reward.hps(opt.reward),
    compat = opt.compat and "srpo-81e5898" or nil, noise = "shared",
    schedule = syz.schedule.flow { steps = opt.rollout, shift = 3 }, window = opt.window,
    rollout_guidance = 1, train_guidance = 3.5, -- as the code has them: the rollout shows what guidance hides
    kappa = { denoise = opt.kappa_denoise, inversion = opt.kappa_inversion },
  },
  prompts = syz.prompts(opt.prompts),
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 1e-4, clip = 0.1, moments = opt.moments },
  steps = opt.steps, batch = opt.batch, accumulate = opt.batch, seed = opt.seed, precision = "bf16",
  checkpoint_every = 5,
  eval = { every = opt.every, grid = 4, prompts = syz.prompts "recipes/flux/prompts-eval.txt", steps = 50,
           guidance = 3.5 },
}
