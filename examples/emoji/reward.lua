-- Train the emoji reward: a small CLIP (vision and text tower) on images of five styles and their captions.
local syz = require "syz"
local world = require "world"
local opt = syz.options {
  data = { "examples/emoji/data/emoji64-train.tar", "WebDataset with the training images" },
  test = { "examples/emoji/data/emoji64-test.tar", "WebDataset with held-out subjects" },
  config = { "examples/emoji/configs/reward.json", "model configuration" },
  tokenizer = { "examples/emoji/tokenizer", "tokenizer folder" },
  save = { "examples/emoji/reward", "folder that receives the trained model" },
  steps = { 2100, "optimizer steps" }, subjects = { 24, "subjects per batch, four styles each" },
  lr = { 1e-3, "AdamW learning rate" }, plain = { 0.4, "share of captions without a style" },
  seed = { 2, "random seed" },
  precision = { "bf16", "of matrix products and convolutions", { "bf16", "f32" } },
}

local train, test = syz.data.webdataset(opt.data), syz.data.webdataset(opt.test)
local tokenizer = syz.tokenizer(opt.tokenizer)
local config = syz.json.decode(syz.file.read(opt.config))
config.text_config.vocab_size = tokenizer:size()
local clip = syz.model.create(config)
clip:init(opt.seed)
local length = config.text_config.max_position_embeddings

local by_subject = syz.data.group(train, "codepoint")

-- Four of the five drawings of each subject, with captions; positives are all pairs whose text fits the image.
local function batch(step, generator)
  local indices, texts, about = {}, {}, {}
  for _, group in ipairs(syz.data.epochs(#by_subject, opt.subjects, opt.seed)(step)) do
    local members = by_subject[group]
    local order = syz.data.permutation(generator, #members)
    for k = 1, math.min(4, #members) do
      local index = members[order[k]]
      local meta = train.meta[index]
      local plain = generator:number() < opt.plain
      indices[#indices + 1] = index
      local function uniform() return generator:number() end
      texts[#texts + 1] = world.caption(meta, uniform, { style = plain and 0 or 1, tag = 0.2 })
      about[#about + 1] = { subject = meta.codepoint, style = meta.style, plain = plain }
    end
  end
  local target = {}
  for i, image in ipairs(about) do
    for j, text in ipairs(about) do
      local fits = image.subject == text.subject and (text.plain or image.style == text.style)
      target[(i - 1) * #about + j] = fits and 1 or 0
    end
  end
  return indices, texts, syz.tensor(target, { #about, #about })
end

-- InfoNCE with several positives: cross entropy against the uniform distribution over what fits, both ways.
local function contrast(logits, target)
  local wanted = target / target:sum({ 1 }, true)
  return -(wanted * logits:log_softmax(-1)):sum() / logits:size(0)
end

local function augment(images, generator)
  local gain = 0.9 + generator:number() * 0.2
  return (images * gain + 0.02 * generator:randn(images:shape())):clamp(0, 1)
end

local function features(images, texts)
  local image = clip:image_features(syz.reward.normalize(images, config)):normalize(1e-8)
  local text = clip:text_features((tokenizer:batch(texts, length))):normalize(1e-8)
  return image, text
end

local function loss(step, generator)
  local indices, texts, target = batch(step, generator)
  local image, text = features(augment(train:batch(indices), generator), texts)
  local logits = image:matmul(text, false, true) * clip:param("logit_scale"):exp()
  local total = (contrast(logits, target) + contrast(logits:transpose(0, 1), target:transpose(0, 1))) * 0.5
  return total
end

-- Style: which of five "STYLE. subject" texts fits best. Subject: rank of the image's subject among all of the set.
local function measure(set, limit)
  return syz.no_grad(syz.scope, function()
    local names, seen = {}, {}
    for _, meta in ipairs(set.meta) do
      if not seen[meta.subject] and #names < limit then
        names[#names + 1] = meta.subject
        seen[meta.subject] = #names
      end
    end
    local chosen = {}
    for i, meta in ipairs(set.meta) do if seen[meta.subject] then chosen[#chosen + 1] = i end end
    local plain = clip:text_features((tokenizer:batch(names, length))):normalize(1e-8)
    local style_hits, top1, top5 = 0, 0, 0
    for start = 1, #chosen, 50 do
      syz.scope(function()
        local part = {}
        for i = start, math.min(start + 49, #chosen) do part[#part + 1] = chosen[i] end
        local image = clip:image_features(syz.reward.normalize(set:batch(part), config)):normalize(1e-8)
        local scores = image:matmul(plain, false, true):totable()
        for row, index in ipairs(part) do
          local meta = set.meta[index]
          local own, rank = scores[(row - 1) * #names + seen[meta.subject]], 1
          for j = 1, #names do if scores[(row - 1) * #names + j] > own then rank = rank + 1 end end
          if rank == 1 then top1 = top1 + 1 end
          if rank <= 5 then top5 = top5 + 1 end
          local styled = {}
          for k, style in ipairs(world.styles) do styled[k] = style.phrase .. ". " .. meta.subject end
          local text = clip:text_features((tokenizer:batch(styled, length))):normalize(1e-8)
          local best = image:slice(0, row - 1, row):matmul(text, false, true):argmax(-1):totable()[1]
          if world.styles[best + 1].name == meta.style then style_hits = style_hits + 1 end
        end
      end)
    end
    return style_hits / #chosen, top1 / #chosen, top5 / #chosen
  end)
end

local function evaluate()
  local style, top1, top5 = measure(test, 122)
  local train_style, train_top1, train_top5 = measure(train, 122)
  return { heldout_style = style, heldout_top1 = top1, heldout_top5 = top5, train_style = train_style,
    train_top1 = train_top1, train_top5 = train_top5 }
end

local function finish(run)
  clip:save(opt.save, "bf16")
  syz.data.copy_folder(opt.tokenizer, opt.save)
  run:summary(evaluate())
end

return syz.fit {
  label = "reward", modules = { reward = clip }, loss = loss, steps = opt.steps, seed = opt.seed,
  precision = opt.precision,
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 0.1, clip = 1, schedule = syz.optim.cosine { warmup = 100 } },
  evaluate = evaluate, evaluate_every = 700, checkpoint_every = 350, finish = finish,
}
