--- Training data: prompts from a text file, images with metadata from a WebDataset or an image folder.
local core = require "syz.core"
local device = require "syz.device"
local identity = require "syz.identity"
local message = require "syz.message"
local progress = require "syz.progress"
local text = require "syz.text"

local M = {}

--- Lines of a text file without blank ones and without comments (#).
---@param path string
---@return string[]
function M.prompts(path)
  local list, number = {}, 0
  local bytes, reason = core.file.read(path)
  if not bytes then error(reason, 2) end
  for line in (bytes:gsub("^\239\187\191", "") .. "\n"):gmatch("(.-)\r?\n") do
    number = number + 1
    if not text.valid_utf8(line) or line:find("%z") then
      error(("%s:%d: not UTF-8 text; save the file as UTF-8"):format(path, number), 2)
    end
    local prompt = line:match("^%s*(.-)%s*$")
    if prompt ~= "" and prompt:sub(1, 1) ~= "#" then list[#list + 1] = prompt end
  end
  if #list == 0 then error(path .. ": the file holds no prompts, one per line is needed", 2) end
  identity.note("prompts", path)
  return list
end

--- Concatenate along the first dimension, in groups of eight (the most that one operation takes).
---@param list syz.Tensor[]
function M.stack(list)
  while #list > 1 do
    local merged = {}
    for i = 1, #list, 8 do
      local group = {}
      for k = i, math.min(i + 7, #list) do group[#group + 1] = list[k] end
      merged[#merged + 1] = #group > 1 and core.ops.concat(group, 0) or group[1]
    end
    list = merged
  end
  return list[1]
end

---@class syz.Images
---@field meta table[]        one table per image
---@field pixels syz.Tensor   u8 [N,H,W,3]
local Images = {}
Images.__index = Images

local function new_images(meta, tensors)
  if #tensors == 0 then error("the data set holds no images that were asked for", 0) end
  return setmetatable({ meta = meta, pixels = M.stack(tensors):keep() }, Images)
end

--- An image set from metadata and u8 tensors [1,H,W,3] of one size.
---@param meta table[]
---@param tensors syz.Tensor[]
---@return syz.Images
function M.images_of(meta, tensors) return new_images(meta, tensors) end

--- Images on their way into a set. One that cannot be read is left out, counted and named.
local function collector(path, filter)
  local meta, tensors, bad, good = {}, {}, {}, nil
  local self = {}

  -- `decode` runs for images that the filter lets through
  function self.add(key, fields, decode)
    fields.key = key
    if filter and not filter(fields) then return end
    local ok, decoded = pcall(decode)
    if not ok then
      if decoded == "interrupted" then error(decoded, 0) end
      bad[#bad + 1] = { key = key, reason = message.of(decoded):gsub("^image: ", "") }
      return
    end
    local s = decoded:shape()
    if good and (good.height ~= s[1] or good.width ~= s[2]) then
      error(("%s: image %s is %dx%d and %s is %dx%d; all must have one size (width x height)"):format(path, key, s[2],
        s[1], good.key, good.width, good.height), 0)
    end
    good = good or { key = key, height = s[1], width = s[2] }
    meta[#meta + 1] = fields
    tensors[#tensors + 1] = decoded:reshape({ 1, s[1], s[2], 3 })
  end

  function self.done()
    local names = {}
    for i = 1, math.min(3, #bad) do names[i] = bad[i].key end
    local what = ("%s: %d of %d images cannot be read: %s%s"):format(path, #bad, #bad + #tensors,
      table.concat(names, ", "), #bad > 3 and ", ..." or "")
    if #bad > 0 then what = ("%s (the first: %s)"):format(what, bad[1].reason) end
    if #bad > 0 and #tensors == 0 then error(what, 0) end
    if #bad > 0 then progress.note("warning: " .. what .. "; they are left out", "yellow") end
    return new_images(meta, tensors)
  end

  return self
end

local function object(bytes, where)
  local fields, reason = core.json.decode(bytes)
  if type(fields) ~= "table" or fields[1] ~= nil then
    error(("%s: %s"):format(where, reason or "a JSON object { ... } is needed"), 0)
  end
  return fields
end

--- Read a WebDataset tar (KEY.png or KEY.jpg, KEY.json) into memory.
---@param path string
---@param filter nil|fun(meta: table): boolean
---@return syz.Images
function M.webdataset(path, filter)
  return core.scope(function()
    local images = collector(path, filter)
    for key, sample in core.webdataset(path) do
      local bytes = sample.png or sample.jpg or sample.jpeg
      if bytes then
        local fields = sample.json and object(sample.json, ("%s: %s.json"):format(path, key)) or {}
        images.add(key, fields, function() return core.image.decode(bytes) end)
      end
    end
    return images.done()
  end)
end

-- Say which files the metadata tells about that are not there.
local function warn_of_missing(path, about, there)
  local missing = {}
  for name in pairs(about) do
    if not there[name] then missing[#missing + 1] = name end
  end
  if #missing == 0 then return end
  table.sort(missing)
  progress.note(("warning: %s/metadata.jsonl tells about %d files that are not there: %s%s"):format(path, #missing,
    table.concat(missing, ", ", 1, math.min(3, #missing)), #missing > 3 and ", ..." or ""), "yellow")
end

-- The lines of an image folder's metadata.jsonl by the file they tell about.
local function read_metadata(path)
  local about, number = {}, 0
  if core.file.exists(path) ~= "file" then return about end
  local bytes, reason = core.file.read(path)
  if not bytes then error(reason, 0) end
  for line in (bytes .. "\n"):gmatch("(.-)\r?\n") do
    number = number + 1
    if line:match "%S" then
      local where = ("%s:%d"):format(path, number)
      local fields = object(line, where)
      if type(fields.file_name) ~= "string" then
        error(('%s: "file_name" must name an image of the folder'):format(where), 0)
      end
      about[fields.file_name] = fields
    end
  end
  return about
end

--- Read a folder of images; a `metadata.jsonl` beside them ({"file_name": ..., ...} per line) adds fields.
---@param path string
---@param filter nil|fun(meta: table): boolean
---@return syz.Images
function M.folder(path, filter)
  if core.file.exists(path) ~= "folder" then error(("there is no image folder %q"):format(path), 2) end
  local about = read_metadata(path .. "/metadata.jsonl")
  return core.scope(function()
    local images, there = collector(path, filter), {}
    for _, name in ipairs(assert(core.file.list(path))) do
      there[name] = true
      local extension = (name:match("%.(%w+)$") or ""):lower()
      if extension == "png" or extension == "jpg" or extension == "jpeg" then
        images.add(name, about[name] or {}, function() return core.image.read(path .. "/" .. name) end)
      end
    end
    warn_of_missing(path, about, there)
    return images.done()
  end)
end

--- Read a WebDataset (.tar) or a folder, whichever the path is.
---@param path string
---@param filter nil|fun(meta: table): boolean
---@return syz.Images
function M.images(path, filter)
  local kind = core.file.exists(path)
  if not kind then error(("there are no images at %q: a .tar or a folder is needed"):format(path), 2) end
  return kind == "folder" and M.folder(path, filter) or M.webdataset(path, filter)
end

function Images:count() return #self.meta end

--- Images by position (1-based, as `meta`), f32 in [0, 1].
---@param indices integer[]
---@return syz.Tensor  [B,H,W,3]
function Images:batch(indices)
  local zero_based = {}
  for i, index in ipairs(indices) do zero_based[i] = index - 1 end
  local chosen = self.pixels:index_select(0, core.tensor(zero_based, { #zero_based }, "i64"))
  return device.here(chosen):to("f32") / 255
end

--- Positions of the images that share a metadata field, one list per value, in order of first appearance.
---@param images syz.Images
---@param field string
---@return integer[][]
function M.group(images, field)
  local groups, by_value = {}, {}
  for i, meta in ipairs(images.meta) do
    local value = tostring(meta[field])
    if not by_value[value] then
      by_value[value] = {}
      groups[#groups + 1] = by_value[value]
    end
    table.insert(by_value[value], i)
  end
  return groups
end

--- Call f(batch, first, last) on the whole set, `size` images at a time, without gradients and each in its own scope.
---@param images syz.Images
---@param size integer
---@param f fun(batch: syz.Tensor, first: integer, last: integer)
function M.each_batch(images, size, f)
  core.no_grad(function()
    for first = 1, images:count(), size do
      core.scope(function()
        local indices, last = {}, math.min(first + size - 1, images:count())
        for i = first, last do indices[#indices + 1] = i end
        f(images:batch(indices), first, last)
      end)
    end
  end)
end

--- Mean and variance over every element of f(batch).
---@param images syz.Images
---@param f fun(batch: syz.Tensor): syz.Tensor
function M.statistics(images, f)
  local sum, squares, n = 0, 0, 0
  M.each_batch(images, 64, function(batch)
    local z = f(batch)
    n = n + z:numel()
    sum = sum + z:sum():item()
    squares = squares + (z * z):sum():item()
  end)
  return sum / n, squares / n - (sum / n) ^ 2
end

--- Copy the files of a folder (not its subfolders).
function M.copy_folder(from, to)
  core.file.mkdir(to)
  for _, name in ipairs(core.file.list(from)) do
    if core.file.exists(from .. "/" .. name) == "file" then
      core.file.write(to .. "/" .. name, core.file.read(from .. "/" .. name))
    end
  end
end

--- A random permutation of 1 .. n (Fisher-Yates).
---@param generator syz.Generator
---@param n integer
function M.permutation(generator, n)
  local order = {}
  for i = 1, n do order[i] = i end
  for i = n, 2, -1 do
    local j = generator:integer(1, i)
    order[i], order[j] = order[j], order[i]
  end
  return order
end

--- Batches that visit every item once per epoch, in an order that depends on (seed, epoch) alone: batch `step` can be
--- computed without the ones before it, which is what makes resuming exact.
---@param n integer
---@param size integer
---@param seed integer
---@return fun(step: integer): integer[]
function M.epochs(n, size, seed)
  local cached_epoch, order
  return function(step)
    local indices = {}
    for k = 0, size - 1 do
      local position = (step - 1) * size + k
      local epoch = math.floor(position / n)
      if epoch ~= cached_epoch then
        order, cached_epoch = M.permutation(core.generator(seed, 1000003 + epoch), n), epoch
      end
      indices[k + 1] = order[position % n + 1]
    end
    return indices
  end
end

return M
