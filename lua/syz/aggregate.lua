--- Reward aggregation over several noise levels of one sample: r = sum_i lambda(t_i) r_i.
local M = {}

--- Weighted sum with a discount lambda(t); rewards are tensors {B}, positions t are numbers in [0, 1].
---@param lambda fun(t: number): number
---@return fun(rewards: syz.Tensor[], positions: number[]): syz.Tensor
function M.weighted(lambda)
  return function(rewards, positions)
    local total
    for i, reward in ipairs(rewards) do
      local term = reward * lambda(positions[i])
      total = total and total + term or term
    end
    return total
  end
end

--- The plain sum.
M.sum = M.weighted(function() return 1 end)

--- The mean over the window.
function M.mean(rewards)
  return M.sum(rewards, {}) / #rewards
end

return M
