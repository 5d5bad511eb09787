--- Group-relative advantages: how much better an image is than the others of its prompt.
local M = {}

--- Mean and standard deviation of values[first..last]; `unbiased` divides by n - 1.
---@return number mean, number deviation
function M.moments(values, first, last, unbiased)
  local n, sum = last - first + 1, 0
  for i = first, last do sum = sum + values[i] end
  local mean, squares = sum / n, 0
  for i = first, last do squares = squares + (values[i] - mean) ^ 2 end
  return mean, math.sqrt(squares / (unbiased and n - 1 or n))
end

--- (r - mean of the group) / (deviation + eps). The groups lie one after the other.
---
--- The deviation is the group's own (`spread = "group"`) or that of all rewards of the batch (`"global"`), which
--- leaves groups whose images hardly differ with small advantages. Each group sums to 0.
---@param rewards number[]
---@param group integer  images per group
---@param options { spread: "group"|"global", unbiased: boolean|nil, eps: number }
---@return number[] advantages
---@return { mean: number, deviation: number, low: number, high: number }[] groups
function M.compute(rewards, group, options)
  local advantages, groups = {}, {}
  local _, global = M.moments(rewards, 1, #rewards, options.unbiased)
  for first = 1, #rewards, group do
    local mean, deviation = M.moments(rewards, first, first + group - 1, options.unbiased)
    local low, high = math.huge, -math.huge
    for i = first, first + group - 1 do
      advantages[i] = (rewards[i] - mean) / ((options.spread == "global" and global or deviation) + options.eps)
      low, high = math.min(low, rewards[i]), math.max(high, rewards[i])
    end
    groups[#groups + 1] = { mean = mean, deviation = deviation, low = low, high = high }
  end
  return advantages, groups
end

--- Bring every value into [-bound, bound]. A NaN stays one.
---@param values number[]
---@param bound number
---@return number[]
function M.clamp(values, bound)
  local out = {}
  for i, value in ipairs(values) do
    out[i] = value > bound and bound or value < -bound and -bound or value
  end
  return out
end

return M
