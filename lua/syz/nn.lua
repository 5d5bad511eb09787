--- Small networks written in Lua tensor operations: a named store of parameters that saves and loads as safetensors.
--- The judge is one; a custom reward or method may hold its own.
local core = require "syz.core"

local M = {}

---@class syz.Module
local Module = {}
Module.__index = Module

--- A store with parameters drawn from `seed`. `spec` lists {name, shape, init}: init is "linear" (uniform within
--- 1/sqrt(fan_in), PyTorch's default for weights), "ones", "zeros" or a standard deviation.
---@param spec table[]
---@param seed integer
function M.module(spec, seed)
  local self = setmetatable({ order = {}, store = {} }, Module)
  for i, row in ipairs(spec) do
    local name, shape, init = row[1], row[2], row[3]
    local generator = core.generator(seed, i)
    local tensor
    if init == "ones" then
      tensor = core.ones(shape)
    elseif init == "zeros" then
      tensor = core.zeros(shape)
    elseif type(init) == "number" then
      tensor = generator:randn(shape) * init
    else
      local fan = 1
      for d = 2, #shape do fan = fan * shape[d] end
      tensor = (generator:rand(shape) * 2 - 1) * (1 / math.sqrt(fan))
    end
    self.order[i], self.store[name] = name, tensor:keep()
  end
  return self
end

function Module:param(name)
  return self.store[name] or error(("there is no parameter %q"):format(name), 2)
end

function Module:names() return self.order end

function Module:parameters()
  local list = {}
  for i, name in ipairs(self.order) do list[i] = self.store[name] end
  return list
end

function Module:requires_grad(on)
  for _, tensor in pairs(self.store) do tensor:requires_grad(on) end
end

--- Move the parameters, which are new tensors then, to a device.
---@param where string
function Module:to(where)
  for name, tensor in pairs(self.store) do self.store[name] = tensor:to(where):keep() end
  return self
end

--- Write model.safetensors into a folder.
function Module:save(folder)
  core.file.mkdir(folder)
  core.safetensors.write(folder .. "/model.safetensors", self.store, { format = "syzygy" })
end

--- Read the values back; names and shapes must be the store's.
function Module:restore(folder)
  local path = folder .. "/model.safetensors"
  core.scope(function()
    local tensors = core.safetensors.read(path)
    for name, tensor in pairs(self.store) do
      if not tensors[name] then error(("%s: tensor %q is missing"):format(path, name), 0) end
      tensor:assign(tensors[name])
    end
    for name in pairs(tensors) do
      if not self.store[name] then error(("%s: tensor %q is unknown"):format(path, name), 0) end
    end
  end)
  return self
end

return M
