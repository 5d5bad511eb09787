--- The closest of some known names to a mistyped one.
--
-- Used wherever a person types a name: options of a recipe, commands, flags, fields.

--- Levenshtein distance in which swapping two neighbours counts as one edit.
---@param a string
---@param b string
---@return integer
local function distance(a, b)
  local before, last = nil, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local best = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if before and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      row[j] = best
    end
    before, last = last, row
  end
  return last[#b]
end

--- The known name closest to `name`, or nil when none is close enough to be what was meant.
---@param name string
---@param known string[]
---@return string|nil
local function nearest(name, known)
  local best, least
  local wanted = name:lower()
  for _, candidate in ipairs(known) do
    local d = distance(wanted, candidate:lower())
    -- a typed beginning ("denoise" for "denoise_kappa") is close however much is missing
    if #wanted >= 3 and candidate:lower():sub(1, #wanted) == wanted then d = math.min(d, 1) end
    if not least or d < least then best, least = candidate, d end
  end
  local tolerance = math.max(1, math.min(3, math.floor(#name / 3 + 0.5)))
  return least and least <= tolerance and best or nil
end

--- The sentence that follows "unknown ...": the nearest name, or all of them when they are few.
---@param name string
---@param known string[]
---@return string
local function hint(name, known)
  local best = nearest(name, known)
  if best then return ('; did you mean "%s"?'):format(best) end
  if #known == 0 then return "" end
  local sorted = {}
  for i, k in ipairs(known) do sorted[i] = k end
  table.sort(sorted)
  if #sorted > 12 then return "" end
  return "; there is " .. table.concat(sorted, ", ")
end

return { distance = distance, nearest = nearest, hint = hint }
