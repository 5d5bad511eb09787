--- Preference pairs: two images for one prompt, and which of them was preferred; what a reward is fine-tuned on.
--
-- A folder holds images and pairs.jsonl, one object a line:
--   {"prompt": "a red cat", "images": ["a.png", "b.png"], "preferred": 0}
-- A WebDataset holds KEY.0.png, KEY.1.png (or jpg) and KEY.json with the prompt and preferred. `preferred` is 0 for the
-- first image, 1 for the second, .5 for a tie; a tie teaches that the scores are equal and counts in no accuracy.
local core = require "syz.core"
local data = require "syz.data"
local loss = require "syz.loss"
local nearest = require "syz.nearest"

local M = {}

---@class syz.PreferencePair
---@field prompt string
---@field first integer    position of an image in `images`
---@field second integer
---@field target number    1 where the first is preferred, 0 the second, .5 neither

---@class syz.Preferences
---@field images syz.Images
---@field list syz.PreferencePair[]
local Preferences = {}
Preferences.__index = Preferences

local function new(images, list)
  return setmetatable({ images = images, list = list }, Preferences)
end

-- A u8 image as a CLIP reward would see it: its shorter side brought to `size`, the middle cut out.
local function to_size(pixels, size)
  if not size then return pixels end
  local h, w = pixels:size(0), pixels:size(1)
  if h == size and w == size then return pixels end
  local short = math.min(h, w)
  local height, width = math.floor(h * size / short + 0.5), math.floor(w * size / short + 0.5)
  local image = (pixels:to("f32") / 255):reshape({ 1, h, w, 3 }):resize(height, width, 1, true)
  local top, left = math.floor((height - size) / 2), math.floor((width - size) / 2)
  image = image:slice(1, top, top + size):slice(2, left, left + size)
  return ((image:clamp(0, 1) * 255 + 0.5):to("u8")):reshape({ size, size, 3 })
end

-- Collects pairs and the images that they name, each image once.
local function collector(path, size)
  local self = { list = {}, meta = {}, tensors = {}, places = {} }
  function self.image(name, bytes)
    if self.places[name] then return self.places[name] end
    local pixels = to_size(core.image.decode(bytes()), size)
    local first, shape = self.tensors[1], pixels:shape()
    if first and (first:size(1) ~= shape[1] or first:size(2) ~= shape[2]) then
      error(("%s: image %s is %dx%d, the ones before it %dx%d; give `size` to bring them to one"):format(path, name,
        shape[1], shape[2], first:size(1), first:size(2)), 0)
    end
    self.tensors[#self.tensors + 1] = pixels:reshape({ 1, shape[1], shape[2], 3 })
    self.meta[#self.meta + 1] = { key = name }
    self.places[name] = #self.meta
    return #self.meta
  end
  function self.pair(where, fields, first, second)
    if type(fields.prompt) ~= "string" then error(where .. ": prompt must be a string", 0) end
    local target = ({ [0] = 1, [1] = 0, [0.5] = 0.5 })[fields.preferred]
    if not target then
      error(("%s: preferred must be 0, 1 or 0.5, not %s"):format(where, tostring(fields.preferred)), 0)
    end
    self.list[#self.list + 1] = { prompt = fields.prompt, first = first(), second = second(), target = target }
  end
  function self.finish()
    if #self.list == 0 then error(path .. ": it holds no preference pairs", 0) end
    return new(data.images_of(self.meta, self.tensors), self.list)
  end
  return self
end

local function read_folder(path, size)
  local file = path .. "/pairs.jsonl"
  if core.file.exists(file) ~= "file" then error(("%s: there is no pairs.jsonl in it"):format(path), 0) end
  local found, number = collector(path, size), 0
  for line in core.file.read(file, 2 ^ 40):gmatch("[^\r\n]+") do
    number = number + 1
    local where, fields = ("%s: pair %d"):format(file, number), core.json.decode(line)
    if type(fields) ~= "table" then error(where .. ": not a JSON object", 0) end
    local names = fields.images
    if type(names) ~= "table" or #names ~= 2 then error(where .. ": images must be two file names", 0) end
    local function image(name)
      if type(name) ~= "string" or name:find("^/") or name:find("%.%.") then
        error(("%s: image %s is not a file below the folder"):format(where, tostring(name)), 0)
      end
      return found.image(name, function() return assert(core.file.read(path .. "/" .. name)) end)
    end
    found.pair(where, fields, function() return image(names[1]) end, function() return image(names[2]) end)
  end
  return found.finish()
end

local function read_shard(path, size)
  local found = collector(path, size)
  for key, sample in core.webdataset(path) do
    local where, fields = ("%s: %s"):format(path, key), sample.json and core.json.decode(sample.json)
    if type(fields) ~= "table" then error(where .. ": there is no .json with its prompt", 0) end
    local function image(k)
      local bytes = sample[k .. ".png"] or sample[k .. ".jpg"] or sample[k .. ".jpeg"]
      if not bytes then error(("%s: there is no image .%d.png or .%d.jpg"):format(where, k, k), 0) end
      return found.image(("%s.%d"):format(key, k), function() return bytes end)
    end
    found.pair(where, fields, function() return image(0) end, function() return image(1) end)
  end
  return found.finish()
end

--- Read pairs from a folder or a WebDataset tar into memory.
---@param path string
---@param options { size: integer|nil }|nil  size: bring every image to size x size, as a CLIP reward would see it (its
---  shorter side resized, the middle cut out); without it all images must be of one size
---@return syz.Preferences
function M.read(path, options)
  local size = options and options.size
  local kind = core.file.exists(path)
  if not kind then error(("there are no preference pairs at %q: a folder or a .tar is needed"):format(path), 2) end
  return core.scope(function() return (kind == "folder" and read_folder or read_shard)(path, size) end)
end

--- Compose pairs from a labelled image set: of every subject, an image of a preferred style against each other one.
--- Which of the two comes first is drawn from the seed.
---@param images syz.Images
---@param options { preferred: string[], over: string[]|nil, by: string|nil, same: string|nil, seed: integer|nil }
---  by: the field of the style ("style"); same: the field that both images share ("subject"), also their prompt; over:
---  the styles it is preferred to (all others)
---@return syz.Preferences
function M.compose(images, options)
  local by, same = options.by or "style", options.same or "subject"
  local generator, list = core.generator(options.seed or 0, 1), {}
  local better, worse, present = {}, {}, {}
  for _, value in ipairs(options.preferred) do better[value] = true end
  for _, value in ipairs(options.over or {}) do worse[value] = true end
  for _, meta in ipairs(images.meta) do present[tostring(meta[by])] = true end
  local names = {}
  for value in pairs(present) do names[#names + 1] = value end
  for _, set in ipairs { better, worse } do
    for value in pairs(set) do
      if not present[value] then error(("no image has %s %q%s"):format(by, value, nearest.hint(value, names)), 2) end
    end
  end
  for _, group in ipairs(data.group(images, same)) do
    for _, one in ipairs(group) do
      for _, other in ipairs(group) do
        local a, b = tostring(images.meta[one][by]), tostring(images.meta[other][by])
        if better[a] and not better[b] and (worse[b] or not options.over) then
          local swap = generator:integer(0, 1) == 1
          list[#list + 1] = { prompt = tostring(images.meta[one][same]), first = swap and other or one,
                              second = swap and one or other, target = swap and 0 or 1 }
        end
      end
    end
  end
  if #list == 0 then error("no subject has both a preferred style and another one: there are no pairs", 2) end
  return new(images, list)
end

function Preferences:count() return #self.list end

--- Split off about a share of the pairs, by a hash of the prompt, so that no prompt is on both sides.
---@param share number   0 to 1
---@return syz.Preferences rest, syz.Preferences held_out
function Preferences:split(share)
  local rest, held = {}, {}
  for _, pair in ipairs(self.list) do
    local u = tonumber(core.sha256(pair.prompt):sub(1, 8), 16) / 2 ^ 32
    table.insert(u < share and held or rest, pair)
  end
  if #rest == 0 or #held == 0 then
    error(("of %d pairs %d would be held out: there are too few prompts to split"):format(#self.list, #held), 2)
  end
  return new(self.images, rest), new(self.images, held)
end

--- A batch: images of both sides [B,H,W,3], prompts, and targets {B}.
---@param places integer[]
---@return syz.Tensor first, syz.Tensor second, string[] prompts, syz.Tensor target
function Preferences:batch(places)
  local first, second, prompts, target = {}, {}, {}, {}
  for k, place in ipairs(places) do
    local pair = self.list[place]
    first[k], second[k], prompts[k], target[k] = pair.first, pair.second, pair.prompt, pair.target
  end
  return self.images:batch(first), self.images:batch(second), prompts, core.tensor(target)
end

--- The Bradley-Terry loss of a batch under score(images, prompts) -> {B}.
---@param score fun(images: syz.Tensor, prompts: string[]): syz.Tensor
---@param places integer[]
---@param scale number|syz.Tensor|nil   how much a difference of scores means (1)
function Preferences:loss(score, places, scale)
  local first, second, prompts, target = self:batch(places)
  return loss.bradley_terry(score(first, prompts) * (scale or 1), score(second, prompts) * (scale or 1), target)
end

--- The share of pairs (ties left out) whose preferred image scores higher; equal scores count half. And the mean loss.
---@param score fun(images: syz.Tensor, prompts: string[]): syz.Tensor
---@param scale number|nil
---@return number accuracy, number loss
function Preferences:evaluate(score, scale)
  local hits, counted, total = 0, 0, 0
  core.no_grad(function()
    for start = 1, #self.list, 32 do
      core.scope(function()
        local places = {}
        for place = start, math.min(start + 31, #self.list) do places[#places + 1] = place end
        local first, second, prompts, target = self:batch(places)
        local a, b = score(first, prompts) * (scale or 1), score(second, prompts) * (scale or 1)
        total = total + loss.bradley_terry(a, b, target):item() * #places
        for k, margin in ipairs((a - b):totable()) do
          local wanted = self.list[places[k]].target * 2 - 1
          if wanted ~= 0 then
            counted = counted + 1
            hits = hits + (margin * wanted > 0 and 1 or margin == 0 and 0.5 or 0)
          end
        end
      end)
    end
  end)
  return counted > 0 and hits / counted or 0, total / #self.list
end

--- What is left of prompt-following: how often an image scores higher under its own prompt than under that of the
--- pair half the list away.
---@param score fun(images: syz.Tensor, prompts: string[]): syz.Tensor
---@return number|nil   nil when all the prompts compared are equal
function Preferences:prompt_accuracy(score)
  local hits, counted, n = 0, 0, #self.list
  core.no_grad(function()
    for start = 1, n, 32 do
      core.scope(function()
        local places, others = {}, {}
        for place = start, math.min(start + 31, n) do
          local other = self.list[(place - 1 + math.floor(n / 2)) % n + 1].prompt
          if other ~= self.list[place].prompt then
            places[#places + 1], others[#others + 1] = place, other
          end
        end
        if #places == 0 then return end
        local first, _, prompts = self:batch(places)
        for _, margin in ipairs((score(first, prompts) - score(first, others)):totable()) do
          counted = counted + 1
          hits = hits + (margin > 0 and 1 or margin == 0 and 0.5 or 0)
        end
      end)
    end
  end)
  return counted > 0 and hits / counted or nil
end

return M
