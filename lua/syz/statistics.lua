--- Statistics of a study: an interval for a rate, an interval by resampling, and how far raters agree.

local statistics = {}

-- The normal distribution's 97.5 % point: all intervals here are two-sided 95 %.
local z95 = 1.959963984540054

--- Wilson's score interval of a rate (Wilson 1927): unlike rate ± z·se it stays inside [0, 1] and does not collapse at
--- 0 of n.
---@param hits integer
---@param n integer
---@return number low    nan when n is 0
---@return number high
function statistics.wilson(hits, n)
  if n == 0 then return 0 / 0, 0 / 0 end
  local p, z2 = hits / n, z95 * z95
  local centre = (p + z2 / (2 * n)) / (1 + z2 / n)
  local half = z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
  return math.max(0, centre - half), math.min(1, centre + half)
end

--- The q-quantile of a sorted list, linear between neighbours (type 7 of Hyndman and Fan 1996, as in R and NumPy).
---@param sorted number[]
---@param q number   in [0, 1]
---@return number    nan for an empty list
function statistics.quantile(sorted, q)
  if #sorted == 0 then return 0 / 0 end
  local at = 1 + q * (#sorted - 1)
  local below = math.floor(at)
  local above = math.min(below + 1, #sorted)
  return sorted[below] + (at - below) * (sorted[above] - sorted[below])
end

--- Percentile intervals (Efron 1979) of statistics of units that are drawn again with replacement. Whatever belongs to
--- a unit is drawn together, so that answers which resemble each other within a unit do not narrow the interval.
---@param units integer          how many there are
---@param resamples integer
---@param generator syz.Generator
---@param statistic fun(counts: integer[]): number[]   counts[i]: how often unit i was drawn; nan where undefined
---@return { low: number, high: number }[]   per number that `statistic` returns
function statistics.bootstrap(units, resamples, generator, statistic)
  local values, counts = {}, {}
  for _ = 1, resamples do
    for i = 1, units do counts[i] = 0 end
    for _ = 1, units do
      local i = generator:integer(1, units)
      counts[i] = counts[i] + 1
    end
    for k, value in ipairs(statistic(counts)) do
      values[k] = values[k] or {}
      if value == value then table.insert(values[k], value) end
    end
  end
  local intervals = {}
  for k, list in ipairs(values) do
    table.sort(list)
    intervals[k] = { low = statistics.quantile(list, 0.025), high = statistics.quantile(list, 0.975) }
  end
  return intervals
end

-- How often grades c and k meet in one unit; a unit with m grades has weight 1 / (m - 1) for each ordered pair.
local function coincidences(units, grades)
  local o = {}
  for c = 1, grades do
    o[c] = {}
    for k = 1, grades do o[c][k] = 0 end
  end
  for _, unit in ipairs(units) do
    for i = 1, #unit do
      for j = 1, #unit do
        if i ~= j then o[unit[i]][unit[j]] = o[unit[i]][unit[j]] + 1 / (#unit - 1) end
      end
    end
  end
  return o
end

--- Krippendorff's alpha for ordered grades: 1 is perfect agreement, 0 what chance would give, below 0 is disagreement.
--- Works for any number of raters and for missing grades (Krippendorff, Content Analysis, ch. 11):
--- alpha = 1 - (n - 1) · sum o_ck d_ck / sum n_c n_k d_ck, d_ck = (sum_{g=c..k} n_g - (n_c + n_k) / 2)².
---@param units integer[][]   per unit the grades it was given, 1 .. grades; with fewer than two it counts for nothing
---@param grades integer
---@return number|nil alpha   nil when it is not defined
---@return string|nil reason
function statistics.alpha(units, grades)
  local o, n_of, n = coincidences(units, grades), {}, 0
  for c = 1, grades do
    n_of[c] = 0
    for k = 1, grades do n_of[c] = n_of[c] + o[c][k] end
    n = n + n_of[c]
  end
  if n == 0 then return nil, "no image has two ratings" end
  local observed, expected = 0, 0
  for c = 1, grades do
    local between = n_of[c]
    for k = c + 1, grades do
      between = between + n_of[k]
      local distance = (between - (n_of[c] + n_of[k]) / 2) ^ 2
      observed = observed + o[c][k] * distance
      expected = expected + n_of[c] * n_of[k] * distance
    end
  end
  if expected == 0 then return nil, "everybody gave one and the same grade" end
  return 1 - (n - 1) * observed / expected
end

return statistics
