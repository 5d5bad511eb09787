--- Stochastic sampling steps of flow matching: what turns a deterministic sampler into a policy with probabilities.
--
-- Every step is linear in the state x and the velocity v, and Gaussian around its mean:
--
--   mean = a x + b v,   next = mean + std * noise,   with dt = to - from < 0
--
-- "dance"  s = eta                      a = 1 + s^2 dt / (2 from),  b = dt (1 + s^2 (1 - from) / (2 from)),
-- "flow"   s = eta sqrt(from/(1-from))  std = s sqrt(-dt).  The reverse SDE of diffusion s: Euler's step plus
--          -s^2/2 * score * dt, where score = -(x + (1 - from) v) / from. At from = 1 "flow" takes the next level of
--          the grid in its denominator.
-- "cps"    std = to sin(eta pi/2), mean = (1 - to) x0 + to cos(eta pi/2) x1, with the predicted ends x0 = x - from v
--          and x1 = x + (1 - from) v: the squares of the two noise coefficients add up to to^2, so that the state
--          holds as much noise as its level says (Coefficients-Preserving Sampling, arXiv 2509.05952).
local core = require "syz.core"
local data = require "syz.data"
local fields = require "syz.fields"
local nearest = require "syz.nearest"

local M = {}

---@class syz.StochasticStep
---@field a number      weight of x in the mean
---@field b number      weight of v in the mean
---@field std number    standard deviation of the noise; 0 for a deterministic step
---@field scale number  what the divergence from a reference is measured in: s of the SDE, std of "cps"
---@field from number
---@field to number

local function diffusion(s, from, to)
  local dt = to - from
  local half = s * s / (2 * from)
  return { a = 1 + half * dt, b = dt * (1 + half * (1 - from)), std = s * math.sqrt(-dt), scale = s }
end

local samplers = {}

function samplers.dance(eta, from, to) return diffusion(eta, from, to) end

function samplers.flow(eta, from, to, second)
  local level = from < 1 and from or second
  return diffusion(eta * math.sqrt(from / (1 - level)), from, to)
end

function samplers.cps(eta, from, to)
  local keep, std = to * math.cos(eta * math.pi / 2), to * math.sin(eta * math.pi / 2)
  return { a = 1 - to + keep, b = keep * (1 - from) - from * (1 - to), std = std, scale = std }
end

--- Refuse what is no sampler, or an amount of noise that it does not take.
---@param name string
---@param eta number
---@param who string  who asks, for the message
function M.check(name, eta, who)
  if not samplers[name] then
    error(("%s: there is no sampler %q%s"):format(who, tostring(name),
      nearest.hint(tostring(name), fields.names(samplers))), 3)
  end
  if type(eta) ~= "number" or not (eta > 0 and eta < math.huge) then
    error(("%s: eta must be a number above 0, not %s: without noise no step has a probability"):format(who,
      tostring(eta)), 3)
  end
  if name == "cps" and eta > 1 then
    error(("%s: eta of the cps sampler must lie in (0, 1], not %g: it is an angle in quarter turns"):format(who,
      eta), 3)
  end
end

--- The stochastic step between two levels. `second` is the second level of the grid, which "flow" needs at level 1.
---@param sampler string  "dance", "flow" or "cps"
---@param eta number
---@param from number
---@param to number
---@param second number|nil
---@return syz.StochasticStep
function M.stochastic(sampler, eta, from, to, second)
  local step = samplers[sampler](eta, from, to, second)
  step.from, step.to = from, to
  return step
end

--- Euler's step between two levels, as a step without noise.
---@return syz.StochasticStep
function M.deterministic(from, to)
  return { a = 1, b = to - from, std = 0, scale = 0, from = from, to = to }
end

--- A grid as steps: stochastic where `noisy[i]` says so, Euler's elsewhere.
---@param levels number[]  n + 1 levels, noisiest first
---@param noisy table<integer, boolean>
---@param sampler string
---@param eta number
---@return syz.StochasticStep[]
function M.steps(levels, noisy, sampler, eta)
  local steps = {}
  for i = 1, #levels - 1 do
    steps[i] = noisy[i] and M.stochastic(sampler, eta, levels[i], levels[i + 1], levels[2])
      or M.deterministic(levels[i], levels[i + 1])
  end
  return steps
end

--- One field of a list of steps, as a tensor {B,1,1}.
---@param steps syz.StochasticStep[]  one per sample
---@param field string
function M.column(steps, field)
  local values = {}
  for i, step in ipairs(steps) do values[i] = step[field] end
  return core.tensor(values, { #values, 1, 1 })
end

--- The mean of the next state, one step per sample. Rollout and training both come here, so that an unchanged model
--- gives the same numbers to the last bit.
---@param x syz.Tensor  [B,T,C]
---@param v syz.Tensor  [B,T,C]
---@param steps syz.StochasticStep[]
function M.mean(x, v, steps)
  return x * M.column(steps, "a") + v * M.column(steps, "b")
end

--- log p(next | mean, std) of each sample, averaged over its elements so that it does not grow with the image: the
--- Gaussian's, or, as the public code of "cps" has it, the square alone, without 1/(2 std^2) and constants.
---@param next_state syz.Tensor  [B,T,C]
---@param mean syz.Tensor        [B,T,C]
---@param steps syz.StochasticStep[]
---@param kind "gaussian"|"squared"
---@return syz.Tensor  {B}
function M.log_prob(next_state, mean, steps, kind)
  local difference = next_state - mean
  if kind == "squared" then return -difference:square():mean({ 1, 2 }) end
  local constants = {}
  for i, step in ipairs(steps) do constants[i] = -math.log(step.std) - 0.5 * math.log(2 * math.pi) end
  return (difference / M.column(steps, "std")):square():mean({ 1, 2 }) * -0.5 + core.tensor(constants)
end

local function repeated(step, count)
  local list = {}
  for i = 1, count do list[i] = step end
  return list
end

-- One step of one part of the batch: the next state, and the log-probabilities where there is noise.
local function advance(pipe, x, step, noise, options, cond)
  local size = x:size(0)
  local list = repeated(step, size)
  local v = pipe:velocity(x, core.full({ size }, step.from), cond, options.guidance)
  local mean = M.mean(x, v, list)
  if step.std == 0 then return mean end
  local next_state = mean + noise * M.column(list, "std")
  return next_state, M.log_prob(next_state, mean, list, options.log_prob or "gaussian"):totable()
end

--- Sample along the steps and remember everything. No gradients are recorded. All noise is drawn for the whole batch
--- at once, so that what is sampled does not depend on how the batch is divided.
---@param pipe syz.Pipeline
---@param options { noise: syz.Tensor, steps: syz.StochasticStep[], generator: syz.Generator, guidance: number|nil,
---  parts: { first: integer, last: integer, cond: table }[], log_prob: string|nil }
---  parts: how the batch is divided, in order; first and last count from 1
---@return { x: syz.Tensor[], log_prob: table<integer, number[]> }
---  x[i] is the state before step i, x[n + 1] the clean latent; log_prob[i] is one number per sample, noisy steps only
function M.rollout(pipe, options)
  local path = { x = { options.noise }, log_prob = {} }
  core.no_grad(function()
    for i, step in ipairs(options.steps) do
      path.x[i + 1] = core.scope(function()
        local x, noise = path.x[i], step.std > 0 and options.generator:randn(options.noise:shape())
        local states, logs = {}, {}
        for _, part in ipairs(options.parts) do
          local state, values = core.scope(function()
            local here = noise and noise:slice(0, part.first - 1, part.last)
            return advance(pipe, x:slice(0, part.first - 1, part.last), step, here, options, part.cond)
          end)
          states[#states + 1] = state
          for _, value in ipairs(values or {}) do logs[#logs + 1] = value end
        end
        if noise then path.log_prob[i] = logs end
        return data.stack(states)
      end)
    end
  end)
  return path
end

return M
