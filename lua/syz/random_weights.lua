--- Models with random weights of published size, for measuring speed and memory where the real files are not.
--
-- One parameter is drawn and written after the other, so that memory for the largest is enough; files are named and cut
-- as published.

local core = require "syz.core"
local files = require "syz.files"
local progress = require "syz.progress"
local published = require "syz.published"
local text = require "syz.text"

local random_weights = {}

local MB = 1e6

-- What a name, a config.json or a folder that holds one asks for.
local function parts_of(what, layers)
  local parts = published.parts(what, layers)
  if parts then return parts end
  local path = core.file.exists(what) == "folder" and what .. "/config.json" or what
  if core.file.exists(path) ~= "file" then
    error(("%s: neither a published model (%s) nor a config.json"):format(what,
      table.concat(published.names(), ", ")), 0)
  end
  return { published.part(files.need_json(path), layers) }
end

-- The nearest folder above that is there, whose disk will hold the files.
local function disk_of(path)
  while not core.file.exists(path) do
    path = path:match("^(.+)/[^/]*$") or (path:sub(1, 1) == "/" and "/" or ".")
  end
  return path
end

local function check_space(out, needed)
  local there = assert(core.file.free(disk_of(out)))
  if needed <= there then return end
  error(("%s: %s are needed and the disk has %s left: fewer --layers, or another --out"):format(out, text.bytes(needed),
    text.bytes(there)), 0)
end

---@class syz.RandomWeights
---@field what string          a published name, a config.json, or a folder that holds one
---@field out string           a folder that is not there or empty
---@field layers integer|nil   at most so many blocks in each part of a model
---@field dtype string|nil     "bf16" unless given
---@field seed integer|nil     1 unless given
---@field zeros boolean|nil    keep what starts at zero, so that a flow transformer's output is zero

--- Write a model, or all of a pipeline.
---@param options syz.RandomWeights
---@return { parameters: integer, bytes: number }
function random_weights.write(options)
  local out, dtype = options.out, options.dtype or "bf16"
  local parts, models, parameters = parts_of(options.what, options.layers), {}, 0
  if core.file.exists(out) and #(core.file.list(out) or { "" }) > 0 then
    error(out .. ": is there already; --out needs a new or empty folder", 0)
  end
  for i, part in ipairs(parts) do
    models[i] = core.model.create(part.config)
    parameters = parameters + models[i]:numel()
  end
  local bytes = parameters * (dtype == "f32" and 4 or 2)
  check_space(out, bytes)
  if published.parts(options.what) then published.write(options.what, out, options.layers) end
  local bar, before = progress.new(math.ceil(bytes / MB), "writing"), 0
  for i, part in ipairs(parts) do
    models[i]:save_random(out .. part.folder, options.seed or 1,
      { dtype = dtype, max_shard_bytes = part.shard_bytes, zeros = options.zeros },
      function(done) bar:update(math.floor((before + done) / MB), "MB") end)
    before = before + models[i]:numel() * (dtype == "f32" and 4 or 2)
  end
  bar:update(math.ceil(bytes / MB), "MB")
  bar:done()
  return { parameters = parameters, bytes = bytes }
end

return random_weights
