--- Training data: prompts from a text file, images with metadata from a WebDataset or an image folder.
local core = require "syz.core"

local M = {}

--- Lines of a text file without blank ones and without comments (#).
---@param path string
---@return string[]
function M.prompts(path)
  local list = {}
  for line in (core.file.read(path) .. "\n"):gmatch("(.-)\r?\n") do
    local text = line:match("^%s*(.-)%s*$")
    if text ~= "" and text:sub(1, 1) ~= "#" then list[#list + 1] = text end
  end
  if #list == 0 then error(path .. ": the file holds no prompts, one per line is needed", 2) end
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
  if #tensors == 0 then error("the data set holds no images that were asked for", 3) end
  return setmetatable({ meta = meta, pixels = M.stack(tensors):keep() }, Images)
end

--- An image set from metadata and u8 tensors [1,H,W,3] of one size.
---@param meta table[]
---@param tensors syz.Tensor[]
---@return syz.Images
function M.images_of(meta, tensors) return new_images(meta, tensors) end

local function add_image(meta, tensors, decoded, fields, filter)
  if filter and not filter(fields) then return end
  local s = decoded:shape()
  local first = tensors[1] and tensors[1]:shape()
  if first and (first[2] ~= s[1] or first[3] ~= s[2]) then
    error(("image %s is %dx%d, the ones before it %dx%d: all sizes must be equal"):format(
      tostring(fields.key), s[1], s[2], first[2], first[3]), 0)
  end
  meta[#meta + 1] = fields
  tensors[#tensors + 1] = decoded:reshape({ 1, s[1], s[2], 3 })
end

--- Read a WebDataset tar (KEY.png or KEY.jpg, KEY.json) into memory.
---@param path string
---@param filter nil|fun(meta: table): boolean
---@return syz.Images
function M.webdataset(path, filter)
  return core.scope(function()
    local meta, tensors = {}, {}
    for key, sample in core.webdataset(path) do
      local bytes = sample.png or sample.jpg or sample.jpeg
      if bytes then
        local fields = sample.json and core.json.decode(sample.json) or {}
        fields.key = key
        if not filter or filter(fields) then add_image(meta, tensors, core.image.decode(bytes), fields) end
      end
    end
    return new_images(meta, tensors)
  end)
end

--- Read a folder of images; a `metadata.jsonl` beside them ({"file_name": ..., ...} per line) adds fields.
---@param path string
---@param filter nil|fun(meta: table): boolean
---@return syz.Images
function M.folder(path, filter)
  if core.file.exists(path) ~= "folder" then error(("there is no image folder %q"):format(path), 2) end
  local about = {}
  if core.file.exists(path .. "/metadata.jsonl") then
    for line in core.file.read(path .. "/metadata.jsonl"):gmatch("[^\n]+") do
      local fields = core.json.decode(line)
      if fields.file_name then about[fields.file_name] = fields end
    end
  end
  local names = core.file.list(path)
  table.sort(names)
  return core.scope(function()
    local meta, tensors = {}, {}
    for _, name in ipairs(names) do
      local extension = (name:match("%.(%w+)$") or ""):lower()
      if extension == "png" or extension == "jpg" or extension == "jpeg" then
        local fields = about[name] or {}
        fields.key = name
        add_image(meta, tensors, core.image.read(path .. "/" .. name), fields, filter)
      end
    end
    return new_images(meta, tensors)
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
  return self.pixels:index_select(0, core.tensor(zero_based, { #zero_based }, "i64")):to("f32") / 255
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
