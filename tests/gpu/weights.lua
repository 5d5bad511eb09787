--- Models of any size with random weights on a device, in little time.
--
-- Drawing twelve billion numbers one by one takes minutes. Here an empty file with the model's names and shapes is
-- opened, whose zeros take no place on the disk, goes to the device as any checkpoint would, and gets its values there:
-- one block of random numbers, repeated. Products of zeros would be timed too fast.
local core = require "syz.core"
local published = require "syz.published"

local weights = {}

-- A prime, so that neighbouring rows of a matrix differ.
local BLOCK = 65521
local DTYPES = { f32 = { name = "F32", bytes = 4 }, bf16 = { name = "BF16", bytes = 2 } }

-- Shapes of all parameters: those of a model with one block of each kind, whose names stand for the others'.
local function shapes(config)
  local first, found = core.model.create(published.shallow(config, 1)):init(1), {}
  for _, name in ipairs(core.model.create(config):names()) do
    local values = first:param(name) or first:param((name:gsub("(%a)%.%d+%.", "%1.0.", 1)))
    found[#found + 1] = { name = name, shape = values:shape(), numel = values:numel() }
  end
  return found
end

local function little_endian(n)
  local bytes = {}
  for i = 1, 8 do bytes[i], n = string.char(n % 256), math.floor(n / 256) end
  return table.concat(bytes)
end

-- A weights file that is all zeros, and sparse.
local function empty_file(path, config, dtype)
  local header, at = {}, 0
  for _, one in ipairs(shapes(config)) do
    local stop = at + one.numel * dtype.bytes
    header[one.name] = { dtype = dtype.name, shape = core.array(one.shape), data_offsets = { at, stop } }
    at = stop
  end
  local text = core.json.encode(header)
  text = text .. (" "):rep(-#text % 8)
  local file = assert(io.open(path, "wb"))
  assert(file:write(little_endian(#text), text))
  file:seek("cur", at - 1)
  assert(file:write("\0"))
  file:close()
end

-- Norms multiply by their one-dimensional weights, which are near 1; all else is small.
local function fill(model, block)
  for _, name in ipairs(model:names()) do
    core.no_grad(core.scope, function()
      local values = model:param(name)
      local n, shape = values:numel(), values:shape()
      local rows = math.ceil(n / BLOCK)
      local drawn = block:reshape({ 1, BLOCK }):broadcast_to({ rows, BLOCK }):reshape({ rows * BLOCK }):slice(0, 0, n)
      if #shape == 1 and name:match("%.weight$") then drawn = drawn + 1 end
      values:assign(drawn:reshape(shape))
    end)
  end
end

--- A frozen model; `dtype` is "f32" or "bf16". `folder` is for the empty file, which is removed.
---@param config table
---@param device string
---@param dtype string
---@param folder string
---@return syz.Model
function weights.model(config, device, dtype, folder)
  local path = folder .. "/empty.safetensors"
  empty_file(path, config, DTYPES[dtype])
  local model = core.model.load_stored(path, config)
  os.remove(path) -- it stays until nobody reads it
  if device == "cpu" then model:to_f32() else model:to(device) end
  core.scope(function()
    local block = core.generator(1):randn({ BLOCK }) * 0.02
    fill(model, device == "cpu" and block or block:to(dtype):to(device))
  end)
  return model:requires_grad(false)
end

return weights
