-- Learn control tokens: move the embeddings of a pair of control words until C1 - C2 tells two styles apart, then use
-- them in place of the words with `control = syz.control.tokens "RUN/tokens"`. Both towers of the reward stay frozen.
local syz = require "syz"
local opt = syz.options {
  reward = { "examples/emoji/reward", "a CLIP-like reward" },
  data = { "examples/emoji/data/emoji64-train.tar", "images with prompt or subject, and style: a .tar or a folder" },
  test = { "examples/emoji/data/emoji64-test.tar", "held-out images" },
  by = { "style", "the metadata field that names the style" },
  wanted = { { "fluent-3d" }, "its wanted values" }, unwanted = { { "fluent-flat" }, "its unwanted values" },
  positive = { "3D render", "words that the positive token starts from" },
  negative = { "Flat", "words that the negative token starts from" },
  length = { 4, "vectors per token", function(n) return n >= 1 and n % 1 == 0, "must be a whole number from 1" end },
  steps = { 150, "optimizer steps" }, batch = { 32, "images of each style per step" },
  lr = { 1e-3, "AdamW learning rate" },
  temperature = { 0.1, "SRP difference that counts as clear", function(t) return t > 0, "must be positive" end },
  save = { "", "folder that receives the tokens; RUN/tokens unless given" }, seed = { 42, "random seed" },
}

local reward = syz.reward.clip(opt.reward)
local tokens = syz.control.learn(reward, { positive = opt.positive, negative = opt.negative, length = opt.length })
  :attach(reward)

-- The images of both styles: their prompts, their features (which never change), and which are wanted.
local function load_set(path)
  local wanted_of, parts, prompts, positive, side = {}, {}, {}, {}, { [true] = {}, [false] = {} }
  for _, value in ipairs(opt.unwanted) do wanted_of[value] = false end
  for _, value in ipairs(opt.wanted) do wanted_of[value] = true end
  local set = syz.data.images(path, function(meta) return wanted_of[meta[opt.by]] ~= nil end)
  syz.data.each_batch(set, 64, function(batch) parts[#parts + 1] = reward:image(batch):keep() end)
  for i, meta in ipairs(set.meta) do
    prompts[i], positive[i] = syz.words.prompt(meta), wanted_of[meta[opt.by]]
    table.insert(side[positive[i]], i)
  end
  if #side[true] == 0 or #side[false] == 0 then error(path .. ": it needs images of both styles") end
  return { prompts = prompts, features = syz.data.stack(parts):copy():keep(), positive = positive,
           wanted = side[true], unwanted = side[false] }
end

local train, test = load_set(opt.data), load_set(opt.test)

local wanted = syz.data.epochs(#train.wanted, opt.batch, opt.seed)
local unwanted = syz.data.epochs(#train.unwanted, opt.batch, opt.seed + 1)

-- SRP of the images that a batch takes from a list.
local function srp(list, places)
  local prompts, rows = {}, {}
  for k, place in ipairs(places) do prompts[k], rows[k] = train.prompts[list[place]], list[place] - 1 end
  return tokens:srp(reward, train.features:index_select(0, syz.tensor(rows, { #rows }, "i64")), prompts)
end

-- Every wanted image against every unwanted one: a smooth stand-in for 1 - AUC.
local function loss(step)
  local a, b = srp(train.wanted, wanted(step)), srp(train.unwanted, unwanted(step))
  local margin = a:reshape({ opt.batch, 1 }) - b:reshape({ 1, opt.batch })
  return syz.loss.softplus(-margin / opt.temperature):mean()
end

local function measure()
  return { auc = syz.rank.auc(tokens:scores(reward, test.features, test.prompts), test.positive),
           train_auc = syz.rank.auc(tokens:scores(reward, train.features, train.prompts), train.positive) }
end

local before = measure()
return syz.fit {
  label = "control tokens", modules = { tokens = tokens.module }, loss = loss, steps = opt.steps, seed = opt.seed,
  optimizer = syz.adamw { lr = opt.lr, weight_decay = 0, clip = 1, schedule = syz.optim.cosine { warmup = 10 } },
  evaluate = measure, evaluate_every = 50, checkpoint_every = 50, log_every = 1,
  finish = function(run)
    local after = measure()
    tokens:save(opt.save ~= "" and opt.save or run.folder .. "/tokens")
    run:summary { auc = { before = before.auc, after = after.auc },
                  train_auc = { before = before.train_auc, after = after.train_auc } }
  end,
}
