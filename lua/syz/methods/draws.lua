--- Which steps of a rollout carry gradient: the random choices of the direct-gradient methods. Steps count from 1, the
--- noisiest; n is the number of steps. All randomness comes from the generator of the training step.
local M = {}

--- One of the last `count` steps.
function M.late(generator, n, count)
  return generator:integer(n - count + 1, n)
end

--- `count` different steps of first .. last, in order, each drawn with probability proportional to step^bias: with bias
--- 0 all alike, with a larger one mostly late steps.
---@param generator syz.Generator
---@param first integer
---@param last integer
---@param count integer
---@param bias number
---@return integer[]
function M.biased(generator, first, last, count, bias)
  local pool, chosen = {}, {}
  for step = first, last do pool[#pool + 1] = step end
  for _ = 1, math.min(count, #pool) do
    local total = 0
    for _, step in ipairs(pool) do total = total + step ^ bias end
    local at, sum = generator:number() * total, 0
    local index = #pool
    for i, step in ipairs(pool) do
      sum = sum + step ^ bias
      if at < sum then
        index = i
        break
      end
    end
    chosen[#chosen + 1] = table.remove(pool, index)
  end
  table.sort(chosen)
  return chosen
end

--- `count` equally spaced steps of 1 .. n, the first drawn at random.
---@return integer[]
function M.spaced(generator, n, count)
  count = math.min(count, n)
  local stride = math.floor(n / count)
  local first = generator:integer(1, n - (count - 1) * stride)
  local steps = {}
  for i = 1, count do steps[i] = first + (i - 1) * stride end
  return steps
end

--- Two different steps k < j of 1 .. n, all pairs alike.
---@return integer k, integer j
function M.pair(generator, n)
  local k, j = generator:integer(1, n), generator:integer(1, n - 1)
  if j >= k then j = j + 1 end
  return math.min(k, j), math.max(k, j)
end

local function normal(generator)
  local u = 1 - generator:number()
  return math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * generator:number())
end

--- One draw from the gamma distribution of shape a >= 1 (Marsaglia and Tsang's method); a smaller shape is drawn at a +
--- 1 and brought down by a uniform number.
function M.gamma(generator, a)
  if a < 1 then return M.gamma(generator, a + 1) * (1 - generator:number()) ^ (1 / a) end
  local d = a - 1 / 3
  local c = 1 / math.sqrt(9 * d)
  while true do
    local x = normal(generator)
    local v = (1 + c * x) ^ 3
    if v > 0 and math.log(1 - generator:number()) < 0.5 * x * x + d - d * v + d * math.log(v) then return d * v end
  end
end

--- Two steps k < j of 1 .. n whose distances to the ends follow a Dirichlet distribution: before k, between them, after
--- j. Larger numbers keep the split closer to its mean.
---@param generator syz.Generator
---@param n integer                at least 3
---@param concentration number[]   { before, between, after }
---@return integer k, integer j
function M.dirichlet(generator, n, concentration)
  local share, total = {}, 0
  for i = 1, 3 do
    share[i] = M.gamma(generator, concentration[i])
    total = total + share[i]
  end
  local between = math.max(1, math.min(n - 1, math.floor(share[2] / total * n + 0.5)))
  local after = math.max(1, math.min(n - between, math.floor(share[3] / total * n + 0.5)))
  local j = n + 1 - after
  return j - between, j
end

--- How two steps k < j are drawn, from what a recipe says.
---@param value "uniform"|table|fun(generator: syz.Generator, n: integer): integer, integer
---  { before, between, after }: concentrations of a Dirichlet distribution
---@param owner string
---@param n integer   steps of the rollout
---@return fun(generator: syz.Generator, n: integer): integer, integer
function M.resolve_pair(value, owner, n)
  if n < 3 then error(("%s needs rollout_steps of at least 3, not %d"):format(owner, n), 0) end
  if value == "uniform" then return M.pair end
  if type(value) == "table" then
    for i = 1, 3 do
      if not (type(value[i]) == "number" and value[i] > 0) then
        error(owner .. ": pair as a list must hold three positive numbers { before, between, after }", 0)
      end
    end
    return function(generator, count) return M.dirichlet(generator, count, value) end
  end
  if type(value) ~= "function" then
    error(('%s: pair must be "uniform", { before, between, after } or a function (generator, n), not %s'):format(owner,
      type(value) == "string" and ("%q"):format(value) or "a " .. type(value)), 0)
  end
  return function(generator, count)
    local k, j = value(generator, count)
    if not (type(k) == "number" and type(j) == "number" and 1 <= k and k < j and j <= count) then
      error(("%s: pair(generator, %d) returned %s, %s: two steps with 1 <= k < j <= %d are needed"):format(owner, count,
        tostring(k), tostring(j), count), 0)
    end
    return k, j
  end
end

return M
