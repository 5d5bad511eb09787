--- What is measured and what is cached is computed with f32 products, whatever precision a training asked for.
--
-- A few dozen updates move weights by less than bf16 resolves: evaluated with rounded weights, most of what a model has
-- learned would not show. And features that are cached must not depend on whether training or evaluation came first.
local core = require "syz.core"

local M = {}

local function restore(precision, ok, ...)
  core.precision(precision)
  if not ok then error(..., 0) end
  return ...
end

--- Call f with f32 products; the precision in force before is in force again afterwards, also after an error.
---@param f function
---@return any ...  what f returns
function M.exact(f, ...)
  local before = core.precision()
  core.precision "f32"
  return restore(before, pcall(f, ...))
end

return M
