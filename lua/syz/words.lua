--- The lab of control words: what a pair of words would reward, measured on cached images before any training.
--
-- For a positive word p and a negative word n, SRP(x) = s(x, "p. prompt") - s(x, "n. prompt") with each image's own
-- prompt (paper eq. 8). Per pair:
--
--   cosine, length   of the text features C1, C2: their cosine, and |C1 - C2|, means over the prompts
--   steady           how far the directions C1 - C2 of the prompts agree: the length of the mean of their unit vectors
--   auc              the chance that an image of the wanted style has the higher SRP of two (ties count half)
--   agreement        Spearman's correlation of SRP under different rewards, mean over their pairs
--   plain            Spearman's correlation of SRP with the plain score s(x, prompt): what is left of prompt-following
--   sensitivity      |d SRP / dx| relative to |d s(x, prompt) / dx|, mean over some of the images
--   broad, uniform   the share of the squared gradient in a 4 x 4 mosaic, and in one colour for the whole image: what a
--                    generator can follow by tinting rather than by drawing
local core = require "syz.core"
local control = require "syz.control"
local data = require "syz.data"
local nearest = require "syz.nearest"
local rank = require "syz.rank"

local M = {}

local MOSAIC = 4

--- Above this share of the squared gradient in one colour, a pair is reported as easy to hack.
M.uniform_limit = 0.1

--- The prompt of an image by its metadata.
---@param meta table
---@return string
function M.prompt(meta)
  for _, field in ipairs { "prompt", "subject", "caption", "text" } do
    if type(meta[field]) == "string" then return meta[field] end
  end
  return ""
end

local function text(word, prompt)
  return prompt == "" and word or control.join(word, prompt)
end

-- All words that occur, once each, and "" for the plain prompt.
local function vocabulary(options)
  local list, seen = { "" }, { [""] = true }
  for _, side in ipairs { "positive", "negative" } do
    local words = options[side]
    if type(words) ~= "table" or #words == 0 then error(("words: %s must be a list of words"):format(side), 3) end
    for _, word in ipairs(words) do
      if not seen[word] then list[#list + 1], seen[word] = word, true end
    end
  end
  return list
end

-- Which images are of the wanted style: a set by position.
local function wanted_images(images, by, wanted)
  local chosen, present, found, others = {}, {}, {}, 0
  for _, value in ipairs(type(wanted) == "table" and wanted or { wanted }) do chosen[value] = false end
  local positive = {}
  for i, meta in ipairs(images.meta) do
    local value = tostring(meta[by])
    if not found[value] then present[#present + 1], found[value] = value, true end
    positive[i] = chosen[value] ~= nil
    if not positive[i] then others = others + 1 end
  end
  for value in pairs(chosen) do
    if not found[value] then
      error(("no image has %s %q%s"):format(by, tostring(value), nearest.hint(tostring(value), present)), 3)
    end
  end
  if others == 0 then error(("all images have the wanted %s: there is nothing to tell them from"):format(by), 3) end
  return positive
end

-- Scores of every image under every word: word -> list by image.
local function score_all(reward, images, words, tick)
  local scores = {}
  for _, word in ipairs(words) do scores[word] = {} end
  data.each_batch(images, 32, function(batch, first, last)
    local features, prompts = reward:image(batch), {}
    for i = first, last do prompts[#prompts + 1] = M.prompt(images.meta[i]) end
    for _, word in ipairs(words) do
      local texts = {}
      for k, prompt in ipairs(prompts) do texts[k] = text(word, prompt) end
      for k, value in ipairs(reward:pair(features, texts):totable()) do scores[word][first + k - 1] = value end
    end
    tick(last - first + 1)
  end)
  return scores
end

-- Means over prompts: cosine of C1 and C2, |C1 - C2|, and the length of the mean unit direction.
local function geometry(reward, prompts, positive, negative)
  return core.no_grad(core.scope, function()
    local one, two = {}, {}
    for i, prompt in ipairs(prompts) do one[i], two[i] = text(positive, prompt), text(negative, prompt) end
    local a, b = reward:text(one), reward:text(two)
    local difference = a - b
    local mean = difference:normalize(1e-12):mean({ 0 })
    return (a * b):sum({ 1 }):mean():item(), difference:square():sum({ 1 }):sqrt():mean():item(),
      math.sqrt(mean:square():sum():item())
  end)
end

-- d s(x, word. prompt) / dx of every word, for a few images at once.
local function gradients(reward, batch, prompts, words)
  local by_word = {}
  for _, word in ipairs(words) do
    local leaf, texts = batch:copy():requires_grad(true), {}
    for i, prompt in ipairs(prompts) do texts[i] = text(word, prompt) end
    reward:score(leaf, texts):sum():backward()
    by_word[word] = leaf:grad()
  end
  return by_word
end

--- Of a gradient [B,H,W,3]: its norm per image, and the shares of its square that lie in the mosaic and in one colour.
--- Both are energies of orthogonal projections, so that 0 <= uniform <= broad <= 1.
---@return number[] norm, number[] broad, number[] uniform
function M.gradient_shares(gradient)
  return core.no_grad(core.scope, function()
    local n, h, w = gradient:size(0), gradient:size(1), gradient:size(2)
    local rows, columns = math.floor(h / MOSAIC), math.floor(w / MOSAIC)
    if rows < 1 or columns < 1 then error(("images of %dx%d are too small for a mosaic"):format(h, w), 2) end
    gradient = gradient:slice(1, 0, rows * MOSAIC):slice(2, 0, columns * MOSAIC)
    local total = gradient:square():sum({ 1, 2, 3 })
    local tiles = gradient:reshape({ n, MOSAIC, rows, MOSAIC, columns, 3 }):mean({ 2, 4 })
    local broad = tiles:square():sum({ 1, 2, 3 }) * (rows * columns)
    local uniform = gradient:mean({ 1, 2 }):square():sum({ 1 }) * (rows * columns * MOSAIC * MOSAIC)
    return total:sqrt():totable(), (broad / (total + 1e-30)):totable(), (uniform / (total + 1e-30)):totable()
  end)
end

local function mean(list)
  local sum = 0
  for _, value in ipairs(list) do sum = sum + value end
  return #list > 0 and sum / #list or nil
end

-- sensitivity, broad and uniform of every pair and of the plain score, over the images at `chosen`.
local function sensitivities(reward, images, chosen, words, pairs_, tick)
  local samples, plain = {}, { broad = {}, uniform = {} }
  for k in ipairs(pairs_) do samples[k] = { sensitivity = {}, broad = {}, uniform = {} } end
  for first = 1, #chosen, 4 do
    core.scope(function()
      local indices, prompts = {}, {}
      for k = first, math.min(first + 3, #chosen) do
        indices[#indices + 1] = chosen[k]
        prompts[#prompts + 1] = M.prompt(images.meta[chosen[k]])
      end
      local by_word = gradients(reward, images:batch(indices), prompts, words)
      local base, base_broad, base_uniform = M.gradient_shares(by_word[""])
      for i in ipairs(base) do
        table.insert(plain.broad, base_broad[i])
        table.insert(plain.uniform, base_uniform[i])
      end
      for k, pair in ipairs(pairs_) do
        local norm, broad, uniform = M.gradient_shares(by_word[pair.positive] - by_word[pair.negative])
        for i in ipairs(norm) do
          table.insert(samples[k].sensitivity, norm[i] / math.max(base[i], 1e-30))
          table.insert(samples[k].broad, broad[i])
          table.insert(samples[k].uniform, uniform[i])
        end
      end
      tick(#indices)
    end)
  end
  for k, pair in ipairs(pairs_) do
    for name, values in pairs(samples[k]) do pair[name] = mean(values) end
  end
  return { broad = mean(plain.broad), uniform = mean(plain.uniform) }
end

local function difference(scores, pair)
  local a, b, out = scores[pair.positive], scores[pair.negative], {}
  for i = 1, #a do out[i] = a[i] - b[i] end
  return out
end

local function agreement(all_scores, pair)
  local values = {}
  for i = 1, #all_scores do
    for j = i + 1, #all_scores do
      values[#values + 1] = rank.spearman(difference(all_scores[i], pair), difference(all_scores[j], pair))
    end
  end
  return mean(values)
end

local function distinct_prompts(images)
  local list, seen = {}, {}
  for _, meta in ipairs(images.meta) do
    local prompt = M.prompt(meta)
    if not seen[prompt] then list[#list + 1], seen[prompt] = prompt, true end
  end
  return list
end

---@class syz.WordPair
---@field positive string
---@field negative string
---@field auc number
---@field srp number[]   by image, under the first reward

-- Checks what needs no computation, and lists the pairs.
local function prepare(options)
  local known = { rewards = 1, images = 1, positive = 1, negative = 1, wanted = 1, by = 1, prompts = 1, gradients = 1,
                  seed = 1, on_step = 1 }
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  for key in pairs(options) do
    if not known[key] then error(("words: unknown field %q%s"):format(key, nearest.hint(key, names)), 3) end
  end
  for _, key in ipairs { "rewards", "images", "wanted" } do
    if options[key] == nil then error(("words: needs the field %s"):format(key), 3) end
  end
  local list = {}
  for _, positive in ipairs(options.positive or {}) do
    for _, negative in ipairs(options.negative or {}) do
      list[#list + 1] = { positive = positive, negative = negative }
    end
  end
  return list
end

--- Measure every pair of a positive and a negative word.
---@param options { rewards: table[], images: syz.Images, positive: string[], negative: string[],
---  wanted: string|string[], by: string|nil, prompts: string[]|nil, gradients: integer|nil, seed: integer|nil,
---  on_step: nil|fun(done: integer, total: integer) }
---  rewards: the first is measured, the others are asked whether they agree; by: the metadata field that `wanted` is a
---  value of ("style"); prompts: what cosine and length are averaged over (those of the images); gradients: how many
---  images serve for them (16)
---@return { pairs: syz.WordPair[], plain: table, positive: boolean[], images: syz.Images }  pairs by falling AUC
function M.lab(options)
  local list = prepare(options)
  local words, images, rewards = vocabulary(options), options.images, options.rewards
  local positive = wanted_images(images, options.by or "style", options.wanted)
  local chosen = data.permutation(core.generator(options.seed or 0, 1), images:count())
  for k = #chosen, (options.gradients or 16) + 1, -1 do chosen[k] = nil end
  local done, total = 0, images:count() * #rewards + #chosen
  local function tick(n)
    done = done + n
    if options.on_step then options.on_step(done, total) end
  end
  local all = {}
  for r, reward in ipairs(rewards) do all[r] = score_all(reward, images, words, tick) end
  local prompts = options.prompts or distinct_prompts(images)
  for _, pair in ipairs(list) do
    pair.srp = difference(all[1], pair)
    pair.auc = rank.auc(pair.srp, positive)
    pair.plain = rank.spearman(pair.srp, all[1][""])
    if rewards[1].text then
      pair.cosine, pair.length, pair.steady = geometry(rewards[1], prompts, pair.positive, pair.negative)
    end
    if #rewards > 1 then
      pair.agreement, pair.other_auc = agreement(all, pair), {}
      for r = 2, #rewards do pair.other_auc[r - 1] = rank.auc(difference(all[r], pair), positive) end
    end
  end
  local plain = sensitivities(rewards[1], images, chosen, words, list, tick)
  plain.auc = rank.auc(all[1][""], positive)
  for i, pair in ipairs(list) do pair.place = i end
  table.sort(list, function(a, b)
    if a.auc ~= b.auc then return a.auc > b.auc end
    return a.place < b.place
  end)
  return { pairs = list, plain = plain, positive = positive, images = images }
end

return M
