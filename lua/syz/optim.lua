--- The optimizer as recipes declare it: AdamW with global-norm clipping and a learning-rate schedule.
local core = require "syz.core"
local fields = require "syz.fields"

local M = {}

---@class syz.Optimizer
local Optimizer = {}
Optimizer.__index = Optimizer

local FIELDS = { lr = "number", clip = "number", weight_decay = "number", beta1 = "number", beta2 = "number",
  eps = "number", schedule = "function" }

local defaults = { lr = 1e-5, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 1e-4, clip = 1.0 }

--- Declare an optimizer; the trainer binds it to parameters.
---@param options { lr: number|nil, clip: number|nil, weight_decay: number|nil, beta1: number|nil, beta2: number|nil,
---  eps: number|nil, schedule: nil|fun(step: integer, steps: integer): number }
---@return syz.Optimizer
function M.adamw(options)
  options = options or {}
  fields.check("adamw", options, FIELDS)
  local self = setmetatable({}, Optimizer)
  for key, value in pairs(defaults) do self[key] = options[key] or value end
  self.schedule = options.schedule
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
  })
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
  local norm = self.adamw:clip(self.clip)
  local rate = self.lr * (self.schedule or M.constant)(step, steps)
  local finite = norm == norm and norm < math.huge
  if finite then self.adamw:step(rate) end
  self.adamw:zero_grad()
  return norm, rate, finite
end

--- Moments as a flat table of tensors for a checkpoint, and the count of updates.
function Optimizer:state()
  local tensors, state = {}, self.adamw:state()
  for _, kind in ipairs { "m", "v" } do
    for i, tensor in ipairs(state[kind]) do
      tensors[("%s.%05d"):format(kind, i)] = tensor
    end
  end
  return tensors, self.adamw:count()
end

function Optimizer:load_state(tensors, count)
  local state = { m = {}, v = {} }
  for i = 1, #self.parameters do
    for _, kind in ipairs { "m", "v" } do
      local tensor = tensors[("%s.%05d"):format(kind, i)]
      if not tensor then
        error(("the optimizer checkpoint lacks %s of parameter %d: it belongs to another model"):format(kind, i), 2)
      end
      state[kind][i] = tensor
    end
  end
  self.adamw:load_state(state)
  self.adamw:set_count(count)
end

return M
