-- Train the emoji VAE: 64x64 images to 8x8x16 latents, the structure of FLUX's autoencoder at toy width.
local syz = require "syz"
local opt = syz.options {
  data = { "examples/emoji/data/emoji64-train.tar", "WebDataset with the training images" },
  test = { "examples/emoji/data/emoji64-test.tar", "WebDataset with held-out subjects" },
  config = { "examples/emoji/configs/vae.json", "model configuration" },
  save = { "examples/emoji/pipeline/vae", "folder that receives the trained model" },
  steps = { 5000, "optimizer steps" }, batch = { 16, "images per step" }, lr = { 2e-3, "AdamW learning rate" },
  kl = { 1e-4, "weight of the KL term" }, edge = { 1.0, "weight of the edge term" }, seed = { 1, "random seed" },
  precision = { "bf16", "of matrix products and convolutions", { "bf16", "f32" } },
}

local train, test = syz.data.webdataset(opt.data), syz.data.webdataset(opt.test)
local vae = syz.model.create(syz.json.decode(syz.file.read(opt.config)))
vae:init(opt.seed)

local function posterior(images)
  local moments = vae:encode(images * 2 - 1)
  local c = moments:size(3) / 2
  return moments:slice(3, 0, c), moments:slice(3, c, 2 * c):clamp(-30, 20)
end

-- L1 between horizontal and vertical differences: keeps outlines sharp.
local function edges(a, b)
  local total
  for dim = 1, 2 do
    local n = a:size(dim)
    local function gradient(x) return x:slice(dim, 1, n) - x:slice(dim, 0, n - 1) end
    local term = gradient(a):l1_loss(gradient(b))
    total = total and total + term or term
  end
  return total
end

local batches = syz.data.epochs(train:count(), opt.batch, opt.seed)

local function loss(step, generator)
  local images = train:batch(batches(step))
  local mean, logvar = posterior(images)
  local z = mean + (logvar * 0.5):exp() * generator:randn(mean:shape())
  local output = vae:decode(z) * 0.5 + 0.5
  local kl = (mean * mean + logvar:exp() - 1 - logvar):mean() * 0.5
  local l1, l2 = output:l1_loss(images), output:mse_loss(images)
  return l1 + l2 + opt.edge * edges(output, images) + opt.kl * kl, { l1 = l1:item(), kl = kl:item() }
end

-- PSNR on held-out subjects, and reconstructions above their originals.
local function evaluate(step, run)
  return syz.no_grad(syz.scope, function()
    local squared, n = 0, test:count()
    for start = 1, n, 61 do
      local indices = {}
      for i = start, math.min(start + 60, n) do indices[#indices + 1] = i end
      local images = test:batch(indices)
      local output = (vae:decode((posterior(images))) * 0.5 + 0.5):clamp(0, 1)
      squared = squared + output:mse_loss(images):item() * #indices
      if start == 1 then
        run:sample(step, syz.ops.concat({ images:slice(0, 0, 16), output:slice(0, 0, 16) }, 0))
      end
    end
    return { psnr = -10 * math.log10(squared / n) }
  end)
end

-- The transformer wants latents of unit variance: measure the shift and scale, and keep them in the configuration.
local function finish(run)
  local mean, variance = syz.data.statistics(train, function(images) return (posterior(images)) end)
  local config = vae:config()
  config.shift_factor, config.scaling_factor = mean, 1 / math.sqrt(variance)
  local final = syz.model.create(config)
  final:init(opt.seed)
  for _, name in ipairs(vae:names()) do final:param(name):assign(vae:param(name)) end
  final:save(opt.save, "bf16")
  run:summary { psnr = evaluate(opt.steps, run).psnr, shift_factor = config.shift_factor,
    scaling_factor = config.scaling_factor }
end

return syz.fit {
  label = "vae", modules = { vae = vae }, loss = loss, steps = opt.steps, seed = opt.seed,
  precision = opt.precision,
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 1e-2, clip = 1, schedule = syz.optim.cosine { warmup = 50 } },
  evaluate = evaluate, evaluate_every = 300, checkpoint_every = 300, finish = finish,
}
