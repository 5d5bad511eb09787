-- DanceGRPO on FLUX.1-dev with HPSv2.1, by its authors' FLUX script: 720², 16 noisy steps, groups of 12 images that
-- start from one noise, three updates per rollout, 300 updates.
local syz = require "syz"
local opt = syz.options {
  model = { "models/FLUX.1-dev", "the published diffusers folder" },
  reward = { "models/HPSv2/HPS_v2.1_compressed.pt", "HPSv2.1's published file" },
  embeddings = { "", "folder that `syz embed` wrote; none: text encoders stay in memory" },
  prompts = { "recipes/flux/prompts.txt", "training prompts, one per line" },
  size = { 720, "side of the images in pixels" },
  lora = { 0, "rank of the adapters that are trained; 0: the whole transformer" },
  steps = { 100, "rollouts, of three updates each" }, batch = { 32, "prompts per rollout" },
  group = { 12, "images per prompt" }, micro_batch = { 1, "images that pass through the models at once" },
  rollout = { 16, "sampler steps" }, lr = { 1e-5, "AdamW learning rate" },
  every = { 20, "rollouts between evaluations" }, seed = { 42, "random seed" },
}

local pipe = syz.pipeline(opt.model, {
  size = { opt.size, opt.size }, embeddings = opt.embeddings ~= "" and opt.embeddings or nil,
})
pipe.transformer:checkpointing(true)
if opt.lora > 0 then pipe:lora { rank = opt.lora } end

return syz.train {
  method = syz.methods.grpo {
    pipeline = pipe, reward = syz.reward.hps(opt.reward), preset = "dance-flux", group = opt.group,
    rollout_steps = opt.rollout, micro_batch = opt.micro_batch,
  },
  prompts = syz.prompts(opt.prompts),
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 1e-4, clip = 1 },
  steps = opt.steps, batch = opt.batch, seed = opt.seed, precision = "bf16", checkpoint_every = 10,
  eval = { every = opt.every, grid = 4, prompts = syz.prompts "recipes/flux/prompts-eval.txt", steps = 50,
           guidance = 3.5 },
}
