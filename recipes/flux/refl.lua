-- ReFL on FLUX.1-dev with HPSv2.1, by the settings of the FLUX port that FlowBP's authors published: 512², 25 steps
-- of which one of the last 11 is differentiated, relu(.55 - R), 300 updates, an average of the weights.
local syz = require "syz"
local opt = syz.options {
  model = { "models/FLUX.1-dev", "the published diffusers folder" },
  reward = { "models/HPSv2/HPS_v2.1_compressed.pt", "HPSv2.1's published file" },
  embeddings = { "", "folder that `syz embed` wrote; none: text encoders stay in memory" },
  prompts = { "recipes/flux/prompts.txt", "training prompts, one per line" },
  size = { 512, "side of the images in pixels" },
  lora = { 0, "rank of the adapters that are trained; 0: the whole transformer" },
  steps = { 300, "updates" }, batch = { 32, "prompts per update" }, lr = { 1e-5, "AdamW learning rate" },
  ema = { 0.995, "decay of the average of the weights that is evaluated and saved" },
  every = { 50, "updates between evaluations" }, seed = { 42, "random seed" },
}

local pipe = syz.pipeline(opt.model, {
  size = { opt.size, opt.size }, embeddings = opt.embeddings ~= "" and opt.embeddings or nil,
})
pipe.vae:checkpointing(true)
pipe.transformer:checkpointing(true)
if opt.lora > 0 then pipe:lora { rank = opt.lora } end

return syz.train {
  method = syz.methods.refl { pipeline = pipe, reward = syz.reward.hps(opt.reward), preset = "flux" },
  prompts = syz.prompts(opt.prompts),
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 1e-4, clip = 1 }, ema = opt.ema,
  steps = opt.steps, batch = opt.batch, accumulate = opt.batch, seed = opt.seed, precision = "bf16",
  checkpoint_every = 25,
  eval = { every = opt.every, grid = 4, prompts = syz.prompts "recipes/flux/prompts-eval.txt", guidance = 4 },
}
