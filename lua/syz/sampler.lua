--- The Euler sampler that rollouts, evaluation and `syz sample` share.
local core = require "syz.core"

local M = {}

--- Integrate from noise to the clean latent without recording gradients.
---@param pipe syz.Pipeline
---@param options { noise: syz.Tensor, cond: table, schedule: syz.Schedule, steps: integer|nil,
---  guidance: number|nil|fun(level: number): number,
---  on_step: nil|fun(i: integer, n: integer), visit: nil|fun(i: integer, level: number, x: syz.Tensor, v: syz.Tensor) }
---@return syz.Tensor  x0, shaped like noise
function M.euler(pipe, options)
  local levels = options.schedule:levels(options.steps)
  local x = options.noise
  return core.no_grad(function()
    for i = 1, #levels - 1 do
      x = core.scope(function()
        local guidance = options.guidance
        if type(guidance) == "function" then guidance = guidance(levels[i]) end
        local v = pipe:velocity(x, levels[i], options.cond, guidance)
        if options.visit then options.visit(i, levels[i], x, v) end
        return options.schedule:step(x, v, levels[i], levels[i + 1])
      end)
      if options.on_step then options.on_step(i, #levels - 1) end
    end
    return x
  end)
end

return M
