-- Train the independent judge: a convolutional classifier of style and subject, on originals and on what the VAE makes
-- of them (generated images pass through the VAE too). One drawing in ten is held out.
local syz = require "syz"
local opt = syz.options {
  data = { "examples/emoji/data/emoji64-train.tar", "WebDataset with the training images" },
  vae = { "examples/emoji/pipeline/vae", "trained VAE" },
  save = { "examples/emoji/judge", "folder that receives the trained judge" },
  steps = { 1600, "optimizer steps" }, batch = { 96, "images per step" }, lr = { 2e-3, "AdamW learning rate" },
  seed = { 7, "random seed" },
  precision = { "bf16", "of matrix products and convolutions", { "bf16", "f32" } },
}
local world = require "world"

local data = syz.data.webdataset(opt.data)
local vae = syz.model.load(opt.vae)
vae:requires_grad(false)

local styles, subjects, held, seen, fitted = {}, {}, {}, {}, {}
for _, style in ipairs(world.styles) do styles[#styles + 1] = style.name end
for i, meta in ipairs(data.meta) do
  if not seen[meta.subject] then seen[meta.subject], subjects[#subjects + 1] = true, meta.subject end
  -- by a hash of the key, so that the choice does not depend on the order of the file
  local list = tonumber(syz.sha256(meta.key):sub(1, 4), 16) % 10 == 0 and held or fitted
  list[#list + 1] = i
end
table.sort(subjects)
local judge = syz.judge.new(styles, subjects, opt.seed)

local function through_vae(images)
  return syz.no_grad(syz.scope, function()
    local moments = vae:encode(images * 2 - 1)
    return (vae:decode(moments:slice(3, 0, moments:size(3) / 2)) * 0.5 + 0.5):clamp(0, 1)
  end)
end

local function labels(indices)
  local style, subject = {}, {}
  for i, index in ipairs(indices) do
    style[i] = judge.style_index[data.meta[index].style]
    subject[i] = judge.subject_index[data.meta[index].subject]
  end
  return syz.tensor(style, { #style }, "i64"), syz.tensor(subject, { #subject }, "i64")
end

local batches = syz.data.epochs(#fitted, opt.batch, opt.seed)

local function loss(step, generator)
  local indices = {}
  for i, k in ipairs(batches(step)) do indices[i] = fitted[k] end
  local images = data:batch(indices)
  if step % 2 == 0 then images = through_vae(images) end
  images = images * (0.9 + 0.2 * generator:number()) + 0.03 * generator:randn(images:shape())
  local logits = judge:logits(images)
  local style, subject = labels(indices)
  return logits.style:cross_entropy(style) + logits.subject:cross_entropy(subject)
end

local function evaluate()
  return syz.no_grad(syz.scope, function()
    local style_hits, subject_hits = 0, 0
    for start = 1, #held, 96 do
      syz.scope(function()
        local indices = {}
        for i = start, math.min(start + 95, #held) do indices[#indices + 1] = held[i] end
        local logits = judge:logits(through_vae(data:batch(indices)))
        local style, subject = logits.style:argmax(-1):totable(), logits.subject:argmax(-1):totable()
        for i, index in ipairs(indices) do
          if style[i] == judge.style_index[data.meta[index].style] then style_hits = style_hits + 1 end
          if subject[i] == judge.subject_index[data.meta[index].subject] then subject_hits = subject_hits + 1 end
        end
      end)
    end
    return { heldout_style = style_hits / #held, heldout_subject = subject_hits / #held }
  end)
end

local function finish(run)
  judge:save(opt.save)
  run:summary(evaluate())
end

return syz.fit {
  label = "judge", modules = { judge = judge.module }, loss = loss, steps = opt.steps, seed = opt.seed,
  precision = opt.precision,
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 0.05, clip = 1, schedule = syz.optim.cosine { warmup = 100 } },
  evaluate = evaluate, evaluate_every = 400, checkpoint_every = 400, finish = finish,
}
