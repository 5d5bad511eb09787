--- The path of a rollout and the surrogate built on it: states and predictions are cached without gradient, and a plan
--- says which predictions are computed again with gradient and how far each carries (backprop.lua has the design
--- space).
local core = require "syz.core"

local M = {}

-- Zero, with the gradient of x.
local function carrier(x)
  return x - x:detach()
end

--- The value of `value`, bit for bit, with the gradient of `surrogate`.
---@param value syz.Tensor
---@param surrogate syz.Tensor
function M.straight_through(value, surrogate)
  return value:detach() + carrier(surrogate)
end

--- x, with its gradient multiplied by `factor`.
function M.scale_gradient(x, factor)
  if factor == 0 then return x:detach() end
  if factor == 1 then return x end
  return x:detach() + factor * carrier(x)
end

--- Guidance at a level: a number as it stands, a function of (sigma, step) evaluated there, for each sample of a
--- tensor.
function M.guidance(value, schedule, level, step)
  if type(value) ~= "function" then return value end
  if type(level) == "number" then
    local _, sigma = schedule:at(level)
    return value(sigma, step)
  end
  local list = level:totable()
  for i, t in ipairs(list) do
    local _, sigma = schedule:at(t)
    list[i] = value(sigma, step)
  end
  return core.tensor(list)
end

--- The noise a rollout starts from, one per sample or one for all: also for all parts of an accumulated batch.
function M.draw_noise(self, batch, generator)
  if self.noise ~= "shared" then return self.pipeline:noise(generator, #batch.prompts) end
  if (batch.part or 1) == 1 then
    if self.shared_noise then self.shared_noise:free() end
    self.shared_noise = self.pipeline:noise(generator, 1):keep()
  end
  local shape = self.shared_noise:shape()
  shape[1] = #batch.prompts
  return self.shared_noise:broadcast_to(shape)
end

---@class syz.Path
---@field levels number[]      levels[i] is where step i starts; levels[n + 1] is clean
---@field x syz.Tensor[]       x[i] at levels[i], without gradient; x[n + 1] is the sampled latent
---@field v syz.Tensor[]       v[i] the prediction of step i, without gradient
---@field n integer
local Path = {}
Path.__index = Path

--- Roll out without gradient and keep what the surrogate needs.
---@param self table           the method
---@param batch { step: integer, prompts: string[], cond: table }
---@param noise syz.Tensor
---@param last integer|nil     take only the steps up to this one (all)
---@return syz.Path
function M.roll(self, batch, noise, last)
  local grid, pipe = self.schedule, self.pipeline
  local path = setmetatable({ method = self, cond = batch.cond, step = batch.step,
    levels = grid:levels(self.rollout_steps), x = { noise }, v = {} }, Path)
  local levels = path.levels
  path.n = #levels - 1
  core.no_grad(function()
    for i = 1, last or path.n do
      path.x[i + 1], path.v[i] = core.scope(function()
        local v = pipe:velocity(path.x[i], levels[i], batch.cond,
          M.guidance(self.rollout_guidance, grid, levels[i], batch.step))
        return grid:step(path.x[i], v, levels[i], levels[i + 1]), v
      end)
    end
  end)
  return path
end

--- The prediction of step i, computed again with gradient.
---@param i integer
---@param x syz.Tensor|nil   input; the cached state unless given
function Path:velocity(i, x)
  local method = self.method
  return method.pipeline:velocity(x or self.x[i], self.levels[i], self.cond,
    M.guidance(method.train_guidance, method.schedule, self.levels[i], self.step))
end

--- The noise at a grid point.
---@param i integer
function Path:sigma(i)
  local _, sigma = self.method.schedule:at(self.levels[i])
  return sigma
end

-- How far the legs' own predictions miss the cached state: the mean distance of each sample, {B}.
local function miss(path, leg)
  return core.no_grad(core.scope, function()
    local guess = leg.a * path.x[leg.from]
    for _, support in ipairs(leg.supports) do guess = guess + support.weight * path.v[support.step] end
    return (guess - path.x[leg.to]):abs():mean({ 1, 2 })
  end)
end

--- The surrogate of a plan.
---@param plan { legs: syz.Leg[], bridge: number|nil, sees: "sampled"|"posterior", stop: integer|nil,
---  active: boolean|nil, similarity: number|nil }
---  legs lead from one to the next; the gradient that reaches the start of the second passes to the model's input there
---  multiplied by `bridge` (none: 0). With sees = "posterior" the one-step guess of the clean image is made at step
---  `stop`, through its prediction when `active`. similarity = tau weights each sample by 1 / sum over legs of
---  max(miss, tau).
---@return syz.Tensor latents   {B,T,C}
---@return syz.Tensor|nil weight   {B}
function Path:surrogate(plan)
  local here, distance
  for number, leg in ipairs(plan.legs) do
    local flow = number > 1 and leg.a * carrier(here) or nil
    for _, support in ipairs(leg.supports) do
      if support.active then
        local bridged = number > 1 and support.step == leg.from
        local v = self:velocity(support.step, bridged and M.scale_gradient(here, plan.bridge or 0) or nil)
        local term = (support.weight * support.gain) * carrier(v)
        flow = flow and flow + term or term
      end
    end
    if plan.similarity then
      local far = miss(self, leg):maximum(core.full({ self.x[1]:size(0) }, plan.similarity))
      distance = distance and distance + far or far
    end
    here = flow and self.x[leg.to] + flow or self.x[leg.to]
  end
  if plan.sees == "posterior" then
    here = here or self.x[plan.stop]
    local v = plan.active and self:velocity(plan.stop) or self.v[plan.stop]
    here = (self.method.schedule:split(here, v, self.levels[plan.stop]))
  end
  return here, distance and 1 / distance
end

return M
