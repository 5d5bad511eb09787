--- Statistics of order: ranks, the area under the ROC curve, Spearman's correlation. Ties count as halves, exactly.

local rank = {}

local function check(values, what)
  if type(values) ~= "table" then error(("%s must be a list of numbers, not a %s"):format(what, type(values)), 3) end
  for i, value in ipairs(values) do
    if type(value) ~= "number" or value ~= value then
      error(("%s: value %d is %s, and has no place in an order"):format(what, i, tostring(value)), 3)
    end
  end
end

--- Ranks from 1; equal values share the mean of their places.
---@param values number[]
---@return number[]
function rank.ranks(values)
  check(values, "ranks")
  local order, ranks = {}, {}
  for i = 1, #values do order[i] = i end
  table.sort(order, function(a, b) return values[a] < values[b] end)
  local first = 1
  while first <= #order do
    local last = first
    while last < #order and values[order[last + 1]] == values[order[first]] do last = last + 1 end
    for k = first, last do ranks[order[k]] = (first + last) / 2 end
    first = last + 1
  end
  return ranks
end

--- The probability that a random positive scores above a random negative, ties counting half (Mann-Whitney).
---@param values number[]
---@param positive boolean[]   by position
---@return number|nil          nil when there are no positives, or nothing else
function rank.auc(values, positive)
  check(values, "auc")
  local ranks, sum, n = rank.ranks(values), 0, 0
  for i, r in ipairs(ranks) do
    if positive[i] then sum, n = sum + r, n + 1 end
  end
  local others = #values - n
  if n == 0 or others == 0 then return nil end
  return (sum - n * (n + 1) / 2) / (n * others)
end

--- The points of the ROC curve, from {0, 0} to {1, 1}: false positive rate, true positive rate.
---@param values number[]
---@param positive boolean[]
---@return number[][]
function rank.roc(values, positive)
  check(values, "roc")
  local order, n = {}, 0
  for i = 1, #values do
    order[i] = i
    if positive[i] then n = n + 1 end
  end
  table.sort(order, function(a, b) return values[a] > values[b] end)
  local points, hits, misses = { { 0, 0 } }, 0, 0
  for k, i in ipairs(order) do
    if positive[i] then hits = hits + 1 else misses = misses + 1 end
    local following = order[k + 1]
    if not following or values[following] ~= values[i] then
      points[#points + 1] = { misses / math.max(1, #values - n), hits / math.max(1, n) }
    end
  end
  return points
end

--- Correlation of the ranks of two lists, -1 to 1; nil where one of them is constant.
---@param a number[]
---@param b number[]
---@return number|nil
function rank.spearman(a, b)
  check(a, "spearman")
  check(b, "spearman")
  if #a ~= #b then error(("spearman: two lists of one length are needed, not %d and %d"):format(#a, #b), 2) end
  local x, y, mean = rank.ranks(a), rank.ranks(b), (#a + 1) / 2
  local xy, xx, yy = 0, 0, 0
  for i = 1, #a do
    local dx, dy = x[i] - mean, y[i] - mean
    xy, xx, yy = xy + dx * dy, xx + dx * dx, yy + dy * dy
  end
  if xx == 0 or yy == 0 then return nil end
  return xy / math.sqrt(xx * yy)
end

--- The value below which a share of the values lies, between neighbours in a straight line.
---@param values number[]
---@param share number   0 to 1
---@return number
function rank.quantile(values, share)
  local sorted = {}
  for i, value in ipairs(values) do sorted[i] = value end
  table.sort(sorted)
  local at = 1 + share * (#sorted - 1)
  local low = math.floor(at)
  local above = sorted[low + 1] or sorted[low]
  return sorted[low] + (at - low) * (above - sorted[low])
end

return rank
