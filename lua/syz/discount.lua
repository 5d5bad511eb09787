--- Discounts: functions of the noise position t in [0, 1] (0 the clean end of the window, 1 the noisy end), used as
--- lambda(t) on rewards and as kappa(t) inside a pair. A plain Lua function does as well.
local M = {}

--- The same value everywhere.
---@param value number
function M.constant(value)
  return function() return value end
end

--- From `clean` at t = 0 to `noisy` at t = 1: numpy's linspace(clean, noisy, T)[m] for t = m / (T - 1).
---@param clean number
---@param noisy number
function M.linear(clean, noisy)
  return function(t) return clean + (noisy - clean) * t end
end

--- t^p: a decaying discount that gives late, low-noise steps less weight (the paper's lambda).
---@param exponent number
function M.power(exponent)
  return function(t) return t ^ exponent end
end

--- Half a cosine from 0 at t = 0 to 1 at t = 1.
function M.cosine()
  return function(t) return 0.5 - 0.5 * math.cos(math.pi * t) end
end

--- Accepts a number, a pair {clean, noisy} or a function, and returns a function that checks what it returns.
---@param value number|number[]|fun(t: number): number
---@param name string  for the message
function M.resolve(value, name)
  local f
  if type(value) == "number" then
    f = M.constant(value)
  elseif type(value) == "table" and type(value[1]) == "number" and type(value[2]) == "number" then
    f = M.linear(value[1], value[2])
  elseif type(value) == "function" then
    f = value
  else
    error(("%s must be a number, a pair {clean, noisy} or a function of t, not %s"):format(name, type(value)), 3)
  end
  return function(t)
    local y = f(t)
    if type(y) ~= "number" or y ~= y then
      error(("%s(%g) returned %s, a number is needed"):format(name, t, type(y) == "number" and "NaN" or type(y)), 2)
    end
    return y
  end
end

return M
