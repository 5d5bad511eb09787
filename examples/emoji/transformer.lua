-- Train the emoji generator: the flow transformer together with its CLIP text encoder, on latents of the trained VAE.
-- Writes the whole pipeline folder in the diffusers layout.
local syz = require "syz"
local world = require "world"
local opt = syz.options {
  data = { "examples/emoji/data/emoji64-train.tar", "WebDataset with the training images" },
  vae = { "examples/emoji/pipeline/vae", "trained VAE" },
  tokenizer = { "examples/emoji/tokenizer", "tokenizer folder" },
  transformer = { "examples/emoji/configs/transformer.json", "transformer configuration" },
  text_encoder = { "examples/emoji/configs/text_encoder.json", "text encoder configuration" },
  save = { "examples/emoji/pipeline", "folder that receives the pipeline" },
  subjects = { 320, "how many of the listed subjects to learn" },
  steps = { 8000, "optimizer steps" }, batch = { 64, "images per step" }, lr = { 1e-3, "AdamW learning rate" },
  drop = { 0.08, "share of captions dropped, for classifier-free guidance" }, seed = { 3, "random seed" },
  precision = { "bf16", "of matrix products and convolutions", { "bf16", "f32" } },
}

world.read = syz.file.read
local wanted = {}
for _, name in ipairs(world.subjects(opt.subjects)) do wanted[name] = true end
local data = syz.data.webdataset(opt.data, function(meta) return wanted[meta.subject] end)

local tokenizer = syz.tokenizer(opt.tokenizer)
local text_config = syz.json.decode(syz.file.read(opt.text_encoder))
text_config.vocab_size = tokenizer:size()
local pipe = syz.pipeline.new {
  transformer = syz.model.create(syz.json.decode(syz.file.read(opt.transformer))),
  text_encoder = syz.model.create(text_config),
  vae = syz.model.load(opt.vae), tokenizer = tokenizer, tokenizer_folder = opt.tokenizer,
  schedule = syz.schedule.flow { steps = 25, shift = 3 },
  size = { 64, 64 },
}
pipe.vae:requires_grad(false)
pipe.transformer:init(opt.seed)
pipe.text_encoder:init(opt.seed + 1)

-- Latents do not change while the transformer learns: encode every image once.
local latents = pipe:encode_all(data)
local batches = syz.data.epochs(data:count(), opt.batch, opt.seed)

-- Flow matching: v = eps - x0 at x = (1 - sigma) x0 + sigma eps, sigma = sigmoid(normal).
local function loss(step, generator)
  local zero_based, texts = {}, {}
  for i, index in ipairs(batches(step)) do
    zero_based[i] = index - 1
    texts[i] = world.caption(data.meta[index], function() return generator:number() end, { drop = opt.drop })
  end
  local x0 = latents:index_select(0, syz.tensor(zero_based, { #zero_based }, "i64"))
  local eps = generator:randn(x0:shape())
  local sigma = generator:randn({ opt.batch }):sigmoid()
  local level = sigma:reshape({ opt.batch, 1, 1 })
  local hidden, pooled = pipe.text_encoder:forward((tokenizer:batch(texts, pipe.text_length)))
  local x = x0 + level * (eps - x0)
  local v = pipe:velocity(x, sigma, { hidden = hidden, pooled = pooled })
  return v:mse_loss(eps - x0)
end

local function evaluate(step, run)
  pipe.cache = {}
  local prompts = {}
  for _, name in ipairs(world.subjects(8)) do
    for _, style in ipairs(world.styles) do prompts[#prompts + 1] = style.phrase .. ". " .. name end
    prompts[#prompts + 1] = name
  end
  syz.scope(function() run:sample(step, pipe:sample { prompts = prompts, guidance = 2, seed = 100, batch = 48 }) end)
  return {}
end

local function finish(run)
  pipe:save(opt.save, { dtype = "bf16" })
  evaluate(opt.steps, run)
end

return syz.fit {
  label = "transformer", modules = { transformer = pipe.transformer, text_encoder = pipe.text_encoder },
  order = { "transformer", "text_encoder" }, loss = loss, steps = opt.steps, seed = opt.seed,
  precision = opt.precision,
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 1e-2, clip = 1,
    schedule = syz.optim.cosine { warmup = 100, floor = 0.02 } },
  evaluate = evaluate, evaluate_every = 500, checkpoint_every = 500, finish = finish,
}
