--- The Euler sampler that rollouts, evaluation and `syz sample` share.
local core = require "syz.core"

local M = {}

local function finish(ok, ...)
  core.fp8(false)
  if not ok then error(..., 0) end
  return ...
end

-- The velocity with the transformer's layers of tokens in 8 bits.
local function rounded_velocity(pipe, ...)
  core.fp8(true)
  return finish(pcall(pipe.velocity, pipe, ...))
end

--- Integrate from noise to the clean latent without recording gradients. `rollout` is the pipeline's unless given;
--- false: as the weights are.
---@param pipe syz.Pipeline
---@param options { noise: syz.Tensor, cond: table, schedule: syz.Schedule, steps: integer|nil,
---  guidance: number|nil|fun(level: number): number, rollout: "fp8"|false|nil,
---  on_step: nil|fun(i: integer, n: integer), visit: nil|fun(i: integer, level: number, x: syz.Tensor, v: syz.Tensor) }
---@return syz.Tensor  x0, shaped like noise
function M.euler(pipe, options)
  local levels = options.schedule:levels(options.steps)
  local x, steps, starts, guidance = options.noise, #levels - 1, {}, {}
  for i = 1, steps do
    starts[i], guidance[i] = levels[i], options.guidance
    if type(options.guidance) == "function" then guidance[i] = options.guidance(levels[i]) end
  end
  local rollout = options.rollout
  if rollout == nil then rollout = pipe.rollout end
  local velocity = rollout == "fp8" and rounded_velocity or pipe.velocity
  return core.no_grad(function()
    local modulation = pipe.modulation and pipe:modulation(starts, options.cond, guidance) or {}
    for i = 1, steps do
      x = core.scope(function()
        local v = velocity(pipe, x, levels[i], options.cond, guidance[i], modulation[i])
        if options.visit then options.visit(i, levels[i], x, v) end
        return options.schedule:step(x, v, levels[i], levels[i + 1])
      end)
      if options.on_step then options.on_step(i, steps) end
    end
    for _, step in ipairs(modulation) do -- the caller's scope may last for a whole training step
      step.own:free()
      if step.plain then step.plain:free() end
    end
    return x
  end)
end

return M
