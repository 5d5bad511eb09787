--- Numbers of a comparison: mean and standard error over seeds, paired differences, verdicts on claims, and the table
--- in plain text and in Markdown.
local text = require "syz.text"

local M = {}

-- Two-sided 95 % points of Student's t for 1, 2, ... degrees of freedom: with few seeds two standard errors say little.
local STUDENT = { 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228 }

--- Mean of a list and the standard error of that mean; no error from fewer than two.
---@param list number[]
---@return number|nil mean, number|nil error
function M.statistics(list)
  local n, sum, squares = #list, 0, 0
  if n == 0 then return nil end
  for _, value in ipairs(list) do sum = sum + value end
  local mean = sum / n
  if n == 1 then return mean end
  for _, value in ipairs(list) do squares = squares + (value - mean) ^ 2 end
  return mean, math.sqrt(squares / (n - 1) / n)
end

--- A metric of one cell: one of the row's own numbers (steps, cpu_seconds, memory), or of its evaluation `at` the start
--- ("before"), the end ("after", the default), or their difference ("change").
---@param row table
---@param metric string
---@param at "before"|"after"|"change"|nil
---@return number|nil
function M.value(row, metric, at)
  if type(row[metric]) == "number" then return row[metric] end
  local before, after = row.before and row.before[metric], row.after and row.after[metric]
  if at == "before" then return tonumber(before) end
  if at == "change" then return tonumber(before) and tonumber(after) and after - before end
  return tonumber(after)
end

--- A metric of a variant, one number per seed that has it.
---@param rows table[]
---@param variant string
---@param metric string
---@param at string|nil
---@return number[] values, table<integer, number> by_seed
function M.values(rows, variant, metric, at)
  local list, by_seed = {}, {}
  for _, row in ipairs(rows) do
    local value = row.variant == variant and M.value(row, metric, at)
    if value then list[#list + 1], by_seed[row.seed] = value, value end
  end
  return list, by_seed
end

--- Mean difference of two variants over the seeds that both have, paired seed by seed, and its standard error.
---@return number|nil difference, number|nil error, integer seeds
function M.difference(rows, one, other, metric, at)
  local _, a = M.values(rows, one, metric, at)
  local _, b = M.values(rows, other, metric, at)
  local list = {}
  for seed, value in pairs(a) do
    if b[seed] then list[#list + 1] = value - b[seed] end
  end
  local mean, err = M.statistics(list)
  return mean, err, #list
end

--- Whether a claim { "text", "A", ">", "B", "metric", margin } holds: A's metric above ("<": below, "~": within the
--- margin of) B's plus the margin, beyond what the spread over seeds explains (95 %, Student's t).
---@param rows table[]
---@param claim table
---@return "agrees"|"does not agree"|"undecided" verdict, string detail
function M.verdict(rows, claim)
  local _, one, relation, other, metric, margin = unpack(claim, 1, 6)
  margin = margin or 0
  local difference, err, seeds = M.difference(rows, one, other, metric)
  if not difference then return "undecided", "no numbers" end
  local a, b = M.statistics(M.values(rows, one, metric)), M.statistics(M.values(rows, other, metric))
  local detail = ("%s %s against %s, difference %+.3g"):format(metric, text.number(tonumber(("%.3g"):format(a))),
    text.number(tonumber(("%.3g"):format(b))), difference)
  if not err then return "undecided", detail .. "; one seed" end
  local reach = (STUDENT[seeds - 1] or 1.96) * err
  detail = ("%s ± %.2g (95 %%)"):format(detail, reach)
  if relation == "~" then
    if math.abs(difference) + reach <= margin then return "agrees", detail end
    return math.abs(difference) - reach > margin and "does not agree" or "undecided", detail
  end
  local lead = (relation == "<" and -difference or difference) - margin
  if lead > reach then return "agrees", detail end
  return lead < -reach and "does not agree" or "undecided", detail
end

--- A number and its error in a column's digits.
---@param column { digits: integer|nil }
---@param mean number|nil
---@param err number|nil
---@return string
function M.show(column, mean, err)
  if not mean then return "-" end
  local form = ("%%.%df"):format(column.digits or 3)
  local shown = form:format(mean)
  return err and ("%s ± %s"):format(shown, form:format(err)) or shown
end

--- The table's cells as text: a head, then one row per variant.
---@param rows table[]
---@param variants { name: string }[]
---@param columns table[]   { "metric", "label", digits =, at = }
---@return string[] head, string[][] body
function M.cells(rows, variants, columns)
  local head, body = { "" }, {}
  for c, column in ipairs(columns) do head[c + 1] = column[2] or column[1] end
  for v, variant in ipairs(variants) do
    body[v] = { variant.name }
    local failed
    for _, row in ipairs(rows) do failed = failed or row.variant == variant.name and row.failed end
    for c, column in ipairs(columns) do
      local mean, err = M.statistics((M.values(rows, variant.name, column[1], column.at)))
      body[v][c + 1] = mean and M.show(column, mean, err) or failed and "failed" or "-"
    end
  end
  return head, body
end

--- Aligned for a terminal, numbers to the right.
---@return string
function M.plain(rows, variants, columns)
  local head, body = M.cells(rows, variants, columns)
  local all, widths = { head }, {}
  for _, row in ipairs(body) do all[#all + 1] = row end
  for _, row in ipairs(all) do
    for c, cell in ipairs(row) do widths[c] = math.max(widths[c] or 0, text.width(cell)) end
  end
  for _, row in ipairs(all) do
    for c = 2, #row do row[c] = text.pad(row[c], -widths[c]) end
  end
  return text.columns(all)
end

local function line(cells)
  for i, cell in ipairs(cells) do cells[i] = tostring(cell):gsub("|", "\\|") end
  return "| " .. table.concat(cells, " | ") .. " |"
end

--- A table in Markdown.
---@param head string[]
---@param body string[][]
---@return string
function M.markdown(head, body)
  local rule = { "---" }
  for c = 2, #head do rule[c] = "---:" end
  local lines = { line(head), "|" .. table.concat(rule, "|") .. "|" }
  for _, row in ipairs(body) do lines[#lines + 1] = line(row) end
  return table.concat(lines, "\n") .. "\n"
end

return M
