--- Losses that are compositions of operations.

local M = {}

--- log(1 + exp(x)), without overflow.
---@param x syz.Tensor
function M.softplus(x)
  return x:relu() + ((-x:abs()):exp() + 1):log()
end

--- The Bradley-Terry model of preference: P(a beats b) = sigmoid(a - b); the mean negative log-likelihood.
---@param a syz.Tensor       scores {B}
---@param b syz.Tensor       scores {B} of what they are compared with
---@param target syz.Tensor|nil  {B}: how far a was preferred, 1 (always, unless given) to 0; .5 is a tie
function M.bradley_terry(a, b, target)
  local margin = a - b
  local loss = M.softplus(-margin)
  -- -t log s(m) - (1 - t) log s(-m) = softplus(-m) + (1 - t) m
  if target then loss = loss + (1 - target) * margin end
  return loss:mean()
end

return M
