--- Where a run computes: on the CPU, or on a GPU ("cuda", "cuda:1").
--
-- The one rule: tensors are made and models loaded where `use` said last, so that a recipe does not name a device in
-- its computations. Whole numbers (indices, pixels of files) stay on the CPU; models fetch what they are given. What
-- was made before has a method to(device).
local core = require "syz.core"

local M = {}

-- The device that the command line named, if it did: then a recipe's own wish does not count.
local fixed

--- The device in use: "cpu", "cuda:0", ...
---@return string
function M.current() return core.current_device() end

---@return boolean
function M.is_gpu() return M.current() ~= "cpu" end

--- What the command line says. Raises one line when there is no such device. nil: it says nothing.
---@param name string|nil
function M.choose(name)
  fixed = nil
  fixed = name and M.use(name)
end

--- What the command line said, if it said something.
---@return string|nil
function M.chosen() return fixed end

--- Raise a device's one line, at the caller's line, when a recipe names one that is not there and would be used.
---@param name string
---@param level integer
function M.check(name, level)
  if fixed then return end
  local ok, raised = pcall(core.check_device, name)
  if not ok then error(raised, level + 1) end
end

--- What a recipe says; the command line comes first.
---@param name string
---@return string  the device in use
function M.use(name)
  if not fixed then core.set_device(core.check_device(name)) end
  return M.current()
end

--- A tensor, or nil, on the device in use.
---@param tensor syz.Tensor|nil
function M.here(tensor) return tensor and tensor:to(M.current()) end

local function back(where, ok, ...)
  core.set_device(where)
  if not ok then error(..., 0) end
  return ...
end

--- Call f while tensors are made, and models loaded, on the CPU.
---@param f function
---@return any ...  what f returns
function M.on_cpu(f, ...)
  local where = M.current()
  core.set_device("cpu")
  return back(where, pcall(f, ...))
end

local function is_half(model)
  for _, parameter in ipairs(model:parameters()) do
    local dtype = parameter:dtype()
    if dtype == "bf16" or dtype == "f16" then return true end
  end
  return false
end

--- Move a model. On a GPU a model of half precision, or any with precision "bf16", has bf16 weights and computes in
--- bf16.
---@param model syz.Model
---@param where string
---@param precision "f32"|"bf16"|nil
function M.move_model(model, where, precision)
  model:to(where)
  if model:device() == "cpu" or model:trained_dtype() == "bf16" then return end
  if precision == "bf16" or is_half(model) then model:to_bf16() end
end

--- Move everything in a list that knows how to: pipelines, rewards, judges, modules, models.
---@param owners table<any, table|syz.Model>
---@param where string
---@param precision "f32"|"bf16"|nil
function M.move_all(owners, where, precision)
  local seen = {} -- the method's reward may be the evaluation's too
  for _, owner in pairs(owners) do
    if type(owner) == "userdata" then
      M.move_model(owner, where, precision)
    elseif not seen[owner] and type(owner.to) == "function" then
      owner:to(where, precision)
    end
    seen[owner] = true
  end
end

--- One line about a device's memory by use, and the same as numbers of bytes; of the most that was in use, or of now.
---@param where string
---@param now boolean|nil
---@return string text, { peak: integer, weights: integer, gradients: integer, optimizer: integer,
---  activations: integer } bytes
function M.memory(where, now)
  local text = require "syz.text"
  local memory = core.device_memory(where)
  local uses, total = now and memory.uses or memory.peak_uses, now and memory.live or memory.peak
  local parts, bytes = {}, { peak = total }
  for _, name in ipairs { "weights", "gradients", "optimizer", "activations" } do
    bytes[name] = uses[name]
    parts[#parts + 1] = ("%s %s"):format(name, text.bytes(uses[name]))
  end
  return ("%s (%s)"):format(text.bytes(total), table.concat(parts, ", ")), bytes
end

return M
