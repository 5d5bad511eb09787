--- How far one leg of a trajectory carries, as coefficients: x_target = a x_start + sum_i w_i v_i, where v_i is what
--- the model predicted at step i of the cached rollout. Plain numbers, no tensors.
--
-- All three rules integrate the prediction over the schedule's straight coordinates (Schedule:straight), in which the
-- sampler is Euler's; with flow matching those are x and sigma themselves.
local M = {}

---@class syz.Leg
---@field from integer     step it starts at
---@field to integer       grid point it ends at; levels[#levels] is the clean image
---@field a number         coefficient of x_from
---@field supports { step: integer, weight: number, active: boolean|nil, gain: number|nil }[]

local function leg(grid, levels, from, to, steps, integral)
  local start_scale = grid:straight(levels[from])
  local scale = grid:straight(levels[to])
  local supports = {}
  for i, step in ipairs(steps) do supports[i] = { step = step, weight = scale * integral[i] } end
  return { from = from, to = to, a = scale / start_scale, supports = supports }
end

local function time(grid, level)
  local _, t = grid:straight(level)
  return t
end

--- Every step of the rollout between the two, as the sampler took it.
---@return syz.Leg
function M.euler(grid, levels, from, to)
  local steps, integral = {}, {}
  for step = from, to - 1 do
    steps[#steps + 1] = step
    integral[#integral + 1] = time(grid, levels[step + 1]) - time(grid, levels[step])
  end
  return leg(grid, levels, from, to, steps, integral)
end

--- One long step with the prediction at the start.
---@return syz.Leg
function M.leap(grid, levels, from, to)
  return leg(grid, levels, from, to, { from }, { time(grid, levels[to]) - time(grid, levels[from]) })
end

--- At most `order` steps of [from, to - 1], evenly spread, the first among them.
---@return integer[]
function M.spread(from, to, order)
  local count = to - from
  if count <= order then order = count end
  local steps = {}
  for i = 0, order - 1 do
    steps[i + 1] = from + (order > 1 and math.floor(i * (count - 1) / (order - 1) + 0.5) or 0)
  end
  return steps
end

-- The integral from 0 to `length` of each Lagrange basis polynomial over `nodes`: the product over the other nodes,
-- multiplied out and integrated term by term.
local function basis_integrals(nodes, length)
  local integrals = {}
  for i, own in ipairs(nodes) do
    local coefficients = { 1 }
    for j, other in ipairs(nodes) do
      if j ~= i then
        local grown = {}
        for p = 1, #coefficients + 1 do
          grown[p] = ((coefficients[p - 1] or 0) - other * (coefficients[p] or 0)) / (own - other)
        end
        coefficients = grown
      end
    end
    local sum = 0
    for p, c in ipairs(coefficients) do sum = sum + c * length ^ p / p end
    integrals[i] = sum
  end
  return integrals
end

--- The exact integral of the polynomial through `order` predictions spread over the leg (FlowBP-Lagrange). Order 1 is
--- the leap.
---@return syz.Leg
function M.lagrange(grid, levels, from, to, order)
  local steps, origin = M.spread(from, to, order), time(grid, levels[from])
  local nodes = {}
  for i, step in ipairs(steps) do nodes[i] = time(grid, levels[step]) - origin end
  return leg(grid, levels, from, to, steps, basis_integrals(nodes, time(grid, levels[to]) - origin))
end

--- Let gradient through some steps of a leg. `gain` multiplies the gradient of one and leaves its value alone.
---@param target syz.Leg
---@param steps integer[]
---@param gain nil|number|fun(step: integer): number
function M.activate(target, steps, gain)
  local wanted = {}
  for _, step in ipairs(steps) do wanted[step] = true end
  for _, support in ipairs(target.supports) do
    if wanted[support.step] then
      support.active = true
      support.gain = type(gain) == "function" and gain(support.step) or gain or 1
    end
  end
  return target
end

--- Make up for the steps that carry no gradient: multiply the gains of the active ones by 1 + strength (all / active -
--- 1), in absolute weights over the legs given.
---@param legs syz.Leg[]
---@param strength number   0 none, 1 full
function M.rescale(legs, strength)
  local all, active = 0, 0
  for _, one in ipairs(legs) do
    for _, support in ipairs(one.supports) do
      all = all + math.abs(support.weight)
      if support.active then active = active + math.abs(support.weight) end
    end
  end
  if strength == 0 or active == 0 then return end
  local factor = 1 + strength * (all / active - 1)
  for _, one in ipairs(legs) do
    for _, support in ipairs(one.supports) do
      if support.active then support.gain = support.gain * factor end
    end
  end
end

return M
