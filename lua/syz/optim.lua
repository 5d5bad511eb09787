--- The optimizer as recipes declare it: AdamW with global-norm clipping and a learning-rate schedule.
local core = require "syz.core"
local fields = require "syz.fields"

local M = {}

---@class syz.Optimizer
local Optimizer = {}
Optimizer.__index = Optimizer

local FIELDS = { lr = "number", clip = "number", weight_decay = "number", beta1 = "number", beta2 = "number",
  eps = "number", schedule = "function", moments = "string" }

local MOMENTS = { "f32", "8bit", "host" }

local defaults = { lr = 1e-5, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 1e-4, clip = 1.0 }

--- Declare an optimizer; the trainer binds it to parameters.
---@param options { lr: number|nil, clip: number|nil, weight_decay: number|nil, beta1: number|nil, beta2: number|nil,
---  eps: number|nil, schedule: nil|fun(step: integer, steps: integer): number, moments: "f32"|"8bit"|"host"|nil }
---  moments: how the two moments of each parameter are kept (docs/optimizer-states.md)
---@return syz.Optimizer
function M.adamw(options)
  options = options or {}
  fields.check("adamw", options, FIELDS)
  local self = setmetatable({}, Optimizer)
  for key, value in pairs(defaults) do self[key] = options[key] or value end
  self.schedule, self.moments = options.schedule, options.moments or "f32"
  fields.choice("adamw", "moments", self.moments, MOMENTS)
  for _, key in ipairs { "lr", "clip", "weight_decay", "eps" } do
    if not (self[key] >= 0 and self[key] < math.huge) then
      error(("adamw: %s must be a finite number from 0, not %s"):format(key, self[key]), 2)
    end
  end
  for _, key in ipairs { "beta1", "beta2" } do
    if not (self[key] >= 0 and self[key] < 1) then
      error(("adamw: %s must be at least 0 and below 1, not %s"):format(key, self[key]), 2)
    end
  end
  return self
end

--- Learning-rate multipliers.
M.constant = function() return 1 end

--- Linear warm-up over `warmup` steps, then half a cosine down to `floor` times the rate.
function M.cosine(options)
  options = options or {}
  local warmup, floor = options.warmup or 0, options.floor or 0
  return function(step, steps)
    if step <= warmup then return step / warmup end
    local progress = math.min(1, (step - warmup) / math.max(1, steps - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
  end
end

---@param parameters syz.Tensor[]
function Optimizer:bind(parameters)
  self.parameters = parameters
  self.adamw = core.adamw(parameters, {
    lr = self.lr, beta1 = self.beta1, beta2 = self.beta2, eps = self.eps, weight_decay = self.weight_decay,
    moments = self.moments,
  })
end

--- Bytes that training keeps for each parameter of `dtype`.
---@param dtype "f32"|"bf16"
---@return { weights: number, remainders: number, gradients: number, moments: number }
function Optimizer:bytes(dtype)
  local bf16 = dtype == "bf16"
  return { weights = bf16 and 2 or 4, remainders = bf16 and 2 or 0, gradients = 4,
    moments = self.moments == "8bit" and 2 + 8 / 256 or 8 }
end

function Optimizer:zero_grad()
  self.adamw:zero_grad()
end

--- Multiply the accumulated gradients: by 1/n, after n parts of a batch.
function Optimizer:scale(factor)
  self.adamw:scale(factor)
end

--- Clip and apply the accumulated gradients. Returns the gradient norm and the learning rate used; a norm that is not
--- finite changes nothing.
---@param step integer
---@param steps integer
function Optimizer:update(step, steps)
  local norm = self.adamw:limit(self.clip)
  local rate = self.lr * (self.schedule or M.constant)(step, steps)
  local finite = norm == norm and norm < math.huge
  if finite then self.adamw:step(rate) end
  self.adamw:zero_grad()
  return norm, rate, finite
end

local function name_of(kind, i) return ("%s.%05d"):format(kind, i) end

--- Moments, their scales and remainders as a flat table of tensors for a checkpoint, and the count of updates.
function Optimizer:state()
  local tensors = {}
  for i = 1, #self.parameters do
    for kind, tensor in pairs(self.adamw:state(i)) do tensors[name_of(kind, i)] = tensor end
  end
  return tensors, self.adamw:count()
end

local KEPT = { f32 = "f32 moments", u8 = "8-bit moments" }

-- A checkpoint's states belong to a run that keeps the same ones.
local function check_kind(tensors, own, i)
  local saved = tensors[name_of("m", i)]
  if not saved then return end
  local was, is = saved:dtype(), own.m:dtype()
  if was ~= is then
    error(("the optimizer checkpoint holds %s, and this run keeps %s: set moments as it was"):format(KEPT[was] or was,
      KEPT[is]), 0)
  end
  local bf16 = tensors[name_of("remainder", i)] ~= nil
  if bf16 ~= (own.remainder ~= nil) then
    error(("the optimizer checkpoint is of %s weights, and this run trains %s: set the pipeline's dtype as it was")
      :format(bf16 and "bf16" or "f32", bf16 and "f32" or "bf16"), 0)
  end
end

function Optimizer:load_state(tensors, count)
  for i = 1, #self.parameters do
    local own = self.adamw:state(i)
    check_kind(tensors, own, i)
    for kind, tensor in pairs(own) do
      local saved = tensors[name_of(kind, i)]
      if not saved then
        error(("the optimizer checkpoint lacks %s of parameter %d: it belongs to another model"):format(kind, i), 2)
      end
      tensor:assign(saved)
    end
  end
  self.adamw:set_count(count)
end

--- Give a module whose bf16 parameters were trained f32 ones in their place, with the values that training had.
---@param module syz.Model
function Optimizer:to_f32(module)
  module:to_f32()
  for i, parameter in ipairs(module:parameters()) do
    core.scope(function() parameter:assign(self.adamw:master(i)) end)
  end
end

return M
