--- Noise schedules: x_t = alpha(t) x0 + sigma(t) eps, and the grids that sampling and training walk.
--
-- A level is one number t. For flow matching t is sigma itself (alpha = 1 - sigma); for the variance-preserving
-- schedule t is the fraction of the 1000 DDPM steps. Methods are written against alpha and sigma only, so that both
-- serve. Levels may be numbers or tensors of shape {B} (one level per sample).
local core = require "syz.core"
local fields = require "syz.fields"

local M = {}

---@class syz.Schedule
---@field steps integer   sampling steps
---@field shift number    time shift s: t' = s t / (1 + (s - 1) t)
local Schedule = {}
Schedule.__index = Schedule

local function shifted(t, shift)
  return shift * t / (1 + (shift - 1) * t)
end

--- n + 1 levels from 1 down to 0, shifted: the sampler's grid.
---@param n integer|nil  number of steps; the schedule's own by default
function Schedule:levels(n)
  n = n or self.steps
  local grid = {}
  for i = 0, n do
    grid[i + 1] = shifted(1 - i / n, self.shift)
  end
  return grid
end

--- The training window: T levels spaced evenly between two entries of a grid, noisiest first (the released code's
--- `linspace(S[first], S[last], T)`). Index i of the result is level i (from 0 to T - 1).
---@param window table  {first, last}: indices into the 50-step grid; or {sigma = {high, low}}
---@param T integer     number of levels (the released code's timestep_length, 1000)
---@param grid_steps integer|nil  steps of the grid that the indices count (50)
function Schedule:window(window, T, grid_steps)
  local high, low
  if window.sigma then
    high, low = window.sigma[1], window.sigma[2]
    if not (high and low and high > low and low >= 0 and high <= 1) then
      error("window.sigma must be {high, low} with 1 >= high > low >= 0", 2)
    end
  else
    local grid = self:levels(grid_steps or 50)
    local first, last = window[1], window[2]
    if type(first) ~= "number" or type(last) ~= "number" or first < 0 or last >= #grid or first >= last then
      error(("window {%s, %s} does not fit the %d-step grid: 0 <= first < last <= %d"):format(
        tostring(first), tostring(last), #grid - 1, #grid - 1), 2)
    end
    high, low = grid[first + 1], grid[last + 1]
  end
  local levels = {}
  for i = 0, T - 1 do
    levels[i] = high + (low - high) * i / (T - 1)
  end
  return levels
end

--- What the model predicts, turned into the clean image and the noise it implies.
--- Flow: v = eps - x0, so x0 = x - sigma v and eps = x + (1 - sigma) v. VP predicts eps: x0 = (x - sigma eps)/alpha.
local function split_flow(self, x, prediction, t)
  local _, sigma = self:at(t)
  return x - sigma * prediction, x + (1 - sigma) * prediction
end

local function split_vp(self, x, prediction, t)
  local alpha, sigma = self:at(t)
  return (x - sigma * prediction) / alpha, prediction
end

--- Inject the predefined noise (paper eq. 4a).
function Schedule:inject(x0, eps, t)
  local alpha, sigma = self:at(t)
  return alpha * x0 + sigma * eps
end

--- Coordinates in which the sampler is Euler's: with x = scale y, one step is y + (time' - time) prediction. For flow
--- matching scale is 1 and time is sigma; for VP (DDIM) scale is alpha and time is sigma / alpha.
---@param t number
---@return number scale, number time
function Schedule:straight(t)
  if self.kind == "flow" then return 1, t end
  local alpha, sigma = self:at(t)
  return alpha, sigma / alpha
end

--- One deterministic step from level `from` to level `to` along the model's prediction. For flow matching this is the
--- Euler step x + (to - from) v.
function Schedule:step(x, prediction, from, to)
  if self.kind == "flow" then
    return x + (to - from) * prediction
  end
  local x0, eps = self:split(x, prediction, from)
  return self:inject(x0, eps, to)
end

--- Recover the clean image with the known noise (paper eq. 4b): (y - sigma eps) / alpha.
function Schedule:recover(y, eps, t)
  local alpha, sigma = self:at(t)
  return (y - sigma * eps) / alpha
end

local function check(owner, options, spec)
  fields.check(owner, options, spec, 3)
  if options.steps and options.steps < 1 then error(owner .. ": steps must be at least 1", 3) end
  if options.shift and not (options.shift > 0 and options.shift < math.huge) then
    error(owner .. ": shift must be a number above 0", 3)
  end
end

local function new(kind, options, at, split)
  return setmetatable({ kind = kind, steps = options.steps or 25, shift = options.shift or 1, at = at, split = split },
    Schedule)
end

--- Flow matching: alpha = 1 - sigma.
---@param options { steps: integer|nil, shift: number|nil }
---@return syz.Schedule
function M.flow(options)
  options = options or {}
  check("syz.schedule.flow", options, { steps = "integer", shift = "number" })
  return new("flow", options, function(_, t) return 1 - t, t end, split_flow)
end

--- Variance preserving (DDPM, the scaled-linear betas of Stable Diffusion): alpha^2 = abar, sigma^2 = 1 - abar.
---@param options { steps: integer|nil, shift: number|nil, beta: number[]|nil, train_steps: integer|nil }
---@return syz.Schedule
function M.vp(options)
  options = options or {}
  check("syz.schedule.vp", options, { steps = "integer", shift = "number", beta = "table", train_steps = "integer" })
  local n, beta = options.train_steps or 1000, options.beta or { 0.00085, 0.012 }
  local abar, product = { [0] = 1 }, 1
  for i = 1, n do
    local root = math.sqrt(beta[1]) + (math.sqrt(beta[2]) - math.sqrt(beta[1])) * (i - 1) / (n - 1)
    product = product * (1 - root * root)
    abar[i] = product
  end
  local function at(t)
    local i = math.max(0, math.min(n, math.floor(t * n + 0.5)))
    return math.sqrt(abar[i]), math.sqrt(1 - abar[i])
  end
  return new("vp", options, function(_, t)
    if type(t) == "number" then return at(t) end
    local alpha, sigma, shape = t:totable(), {}, t:shape()
    for i, level in ipairs(alpha) do alpha[i], sigma[i] = at(level) end
    return core.tensor(alpha, shape), core.tensor(sigma, shape)
  end, split_vp)
end

--- Indices of the released SRPO code for one draw m: counted from 0 into the window's T levels; larger m is noisier.
--- Denoising goes h -> r, inversion q -> target; both recover at index T - m. Returns a table.
---@param m integer  drawn from 5 .. T - 5
---@param k integer  the jump in indices
---@param T integer
function M.pair(m, k, T)
  local jump = math.min(T - m, k, m)
  local back = math.max(m - jump, 1)
  return {
    jump = jump,
    denoise = { from = T - math.min(m + jump, T), to = T - m, kappa = m },
    inversion = { from = T - back, to = T - math.min(back + jump, T), kappa = back },
  }
end

--- The jump of the released code for a ratio: int((1 - ratio) * T) + 1, in double arithmetic (0.9 gives 100).
function M.jump(ratio, T)
  return math.floor((1 - ratio) * T) + 1
end

return M
