--- What a comparison leaves behind: the table, verdicts on its claims, the figure, the picture, a page with all of it.
--
--   table.md figure.svg curve.svg pictures.png compare.html     in the run's folder, after every seed
--   NAME.md NAME.svg NAME-curve.svg NAME.jpg                    in `publish`, where that is set
local core = require "syz.core"
local chart = require "syz.compare_chart"
local page = require "syz.compare_page"
local settings = require "syz.compare_settings"
local tables = require "syz.compare_table"
local text = require "syz.text"

local M = { statistics = tables.statistics }

--- Sum of one of the rows' own numbers.
---@param rows table[]
---@param name string
function M.total(rows, name)
  local sum = 0
  for _, row in ipairs(rows) do sum = sum + (row[name] or 0) end
  return sum
end

--- A finished cell in a few words.
---@return string
function M.brief(comparison, row)
  if row.failed then return "failed" end
  local parts = {}
  for i = 1, math.min(3, #comparison.columns) do
    local column = comparison.columns[i]
    local value = tables.value(row, column[1], column.at)
    parts[i] = value and ("%s %s"):format(column[2] or column[1], tables.show(column, value))
  end
  parts[#parts + 1] = ("%.0f s"):format(row.seconds)
  return table.concat(parts, ", ")
end

--- The claims with what the numbers say: { verdict, claim, detail }.
---@return string[][]
function M.verdicts(comparison, rows)
  local out = {}
  for i, claim in ipairs(comparison.claims or {}) do
    local verdict, detail = tables.verdict(rows, claim)
    out[i] = { verdict, claim[1], detail }
  end
  return out
end

--- The table for a terminal, and the verdicts below it.
---@return string
function M.plain(comparison, run, rows)
  local out = { tables.plain(rows, comparison.variants, comparison.columns) }
  for _, v in ipairs(M.verdicts(comparison, rows)) do
    out[#out + 1] = ("%s: %s (%s)\n"):format(v[1], v[2], v[3])
  end
  if comparison.conclude then out[#out + 1] = comparison.conclude(rows, tables) .. "\n" end
  out[#out + 1] = ("\n%s/compare.html\n"):format(run.folder)
  return table.concat(out)
end

local function dots(comparison, rows)
  local labels, panels = {}, {}
  for v, variant in ipairs(comparison.variants) do labels[v] = variant.name end
  for _, column in ipairs(comparison.columns) do
    local panel = { label = column[2] or column[1], means = {}, errors = {}, shown = {}, colours = {} }
    for v, variant in ipairs(comparison.variants) do
      local mean, err = tables.statistics((tables.values(rows, variant.name, column[1], column.at)))
      panel.means[v], panel.errors[v] = mean, err
      panel.shown[v], panel.colours[v] = tables.show(column, mean, err), variant.colour or 1
    end
    panels[#panels + 1] = panel
  end
  return chart.dots(labels, panels)
end

-- Curves of the variants that were measured on the way: means over the seeds that reached a step.
local function curves(comparison, rows)
  local axes, series = comparison.curve, {}
  if not axes then return nil end
  local function coordinate(point, row, name)
    if name == "cpu_seconds" or name == "step" then return point[name] end
    return (point.after or row.before)[name]
  end
  for _, variant in ipairs(comparison.variants) do
    local by_step, steps = {}, {}
    for _, row in ipairs(rows) do
      if row.variant == variant.name and row.curve then
        local points = { { step = 0, cpu_seconds = 0, after = row.before } }
        for _, point in ipairs(row.curve) do points[#points + 1] = point end
        for _, point in ipairs(points) do
          local sums = by_step[point.step] or { 0, 0, 0 }
          if not by_step[point.step] then by_step[point.step], steps[#steps + 1] = sums, point.step end
          sums[1] = sums[1] + coordinate(point, row, axes.x)
          sums[2], sums[3] = sums[2] + coordinate(point, row, axes.y), sums[3] + 1
        end
      end
    end
    table.sort(steps)
    local points = {}
    for i, step in ipairs(steps) do
      local sums = by_step[step]
      points[i] = { sums[1] / sums[3], sums[2] / sums[3] }
    end
    if #points > 0 then series[#series + 1] = { name = variant.name, points = points } end
  end
  if #series == 0 then return nil end
  return chart.lines(series, { x = axes.x_label or axes.x, y = axes.y_label or axes.y, level = axes.level,
                               level_label = axes.level_label })
end

-- The pictures of the first seed, one under the other. Returns their variants in that order.
local function pictures(comparison, run, rows)
  local names, parts = {}, {}
  return core.no_grad(core.scope, function()
    for _, variant in ipairs(comparison.variants) do
      for _, row in ipairs(rows) do
        local path = row.picture and run.folder .. "/" .. row.picture
        if row.variant == variant.name and row.seed == comparison.seeds[1] and path and core.file.exists(path) then
          local picture = core.image.read(path)
          if #parts > 0 then parts[#parts + 1] = core.full({ 4, picture:size(1), 3 }, 255):to("cpu"):to("u8") end
          parts[#parts + 1], names[#names + 1] = picture, variant.name
        end
      end
    end
    if #parts == 0 then return names end
    core.image.write(run.folder .. "/pictures.png", require("syz.data").stack(parts))
    return names
  end)
end

--- What the numbers behind the means are.
---@return string
function M.spread(comparison)
  if #comparison.seeds == 1 then return "One seed: nothing is known of the spread" end
  return ("Mean ± standard error over %d seeds"):format(#comparison.seeds)
end

--- The prompts whose images are shown.
---@return string
function M.prompts(comparison)
  local shown, count = {}, math.min(comparison.eval.grid or 16, #comparison.eval.prompts)
  for i = 1, count do shown[i] = comparison.eval.prompts[i] end
  return table.concat(shown, ", ")
end

--- How the numbers came about: { what, value }.
---@return string[][]
function M.facts(comparison, run, rows)
  local seeds, machine, eval = {}, core.machine(), comparison.eval
  for i, seed in ipairs(comparison.seeds) do seeds[i] = tostring(seed) end
  local cells = #comparison.seeds * #comparison.variants
  return {
    { "command", "`" .. run:again() .. "`" },
    { "cells", #rows < cells and ("%d of %d: unfinished"):format(#rows, cells) or tostring(cells) },
    { "training seeds", table.concat(seeds, ", ") },
    { "evaluation", ("%d images, %d steps, guidance %s; noise the same for all variants, another for each seed"):format(
      #eval.prompts * (eval.per_prompt or 1), eval.steps or comparison.schedule.steps,
      text.number(eval.guidance or comparison.pipeline.default_guidance or 1)) },
    { "time", ("%s of CPU in training, %s in all"):format(text.duration(M.total(rows, "cpu_seconds")),
      text.duration(M.total(rows, "seconds"))) },
    { "machine", ("%s, %d thread%s, training in %s"):format(machine.cpu, core.threads(),
      core.threads() == 1 and "" or "s", comparison.precision) },
  }
end

local function markdown(comparison, run, rows, names, shown)
  local head, body = tables.cells(rows, comparison.variants, comparison.columns)
  local out = { ("# %s\n"):format(comparison.title or run.state.name) }
  if comparison.about then out[#out + 1] = comparison.about .. "\n" end
  out[#out + 1] = tables.markdown(head, body)
  out[#out + 1] = M.spread(comparison) .. ".\n"
  local verdicts = M.verdicts(comparison, rows)
  if #verdicts > 0 then out[#out + 1] = ("## Against %s\n"):format(comparison.against) end
  for _, v in ipairs(verdicts) do out[#out + 1] = ("- **%s**: %s. (%s)"):format(v[1], v[2], v[3]) end
  if #verdicts > 0 then out[#out + 1] = "" end
  if comparison.conclude then out[#out + 1] = comparison.conclude(rows, tables) .. "\n" end
  out[#out + 1] = ("## Figure\n\n![means and standard errors](%s)\n"):format(names.figure)
  if names.curve then out[#out + 1] = ("![on the way](%s)\n"):format(names.curve) end
  if #shown > 0 then
    out[#out + 1] = ("## Images\n\nSeed %d, same noise in each column. Rows: %s. Columns: %s.\n\n![images](%s)\n")
      :format(comparison.seeds[1], table.concat(shown, "; "), M.prompts(comparison), names.pictures)
  end
  out[#out + 1] = "## How\n"
  out[#out + 1] = tables.markdown({ "", "" }, M.facts(comparison, run, rows)):gsub("%-%-%-:", "---")
  local lines = {}
  for i, variant in ipairs(comparison.variants) do
    lines[i] = { variant.name, settings.line(comparison, variant) }
  end
  out[#out + 1] = tables.markdown({ "variant", "settings" }, lines):gsub("%-%-%-:", "---")
  return table.concat(out, "\n")
end

--- Write everything, in the run's folder and, where the comparison publishes and is complete, in that folder too.
---@param comparison syz.Comparison
---@param run syz.Run
---@param rows table[]
function M.write(comparison, run, rows)
  local folder = run.folder
  local figure, curve, shown = dots(comparison, rows), curves(comparison, rows), pictures(comparison, run, rows)
  core.file.write(folder .. "/figure.svg", figure)
  if curve then core.file.write(folder .. "/curve.svg", curve) end
  core.file.write(folder .. "/table.md", markdown(comparison, run, rows, { figure = "figure.svg",
    curve = curve and "curve.svg", pictures = "pictures.png" }, shown))
  core.file.write(folder .. "/compare.html", page.render(M, comparison, run, rows, figure .. (curve or "")))
  local target = comparison.publish
  if not target or target == "" or #rows < #comparison.seeds * #comparison.variants then return end
  core.file.mkdir(target)
  local name = comparison.name or run.state.name
  local base = target .. "/" .. name
  core.file.write(base .. ".svg", figure)
  if curve then core.file.write(base .. "-curve.svg", curve) end
  if #shown > 0 then -- a JPEG is a fifth of the PNG, and this copy is for repositories
    core.scope(function()
      core.file.write(base .. ".jpg", core.image.jpeg(core.image.read(folder .. "/pictures.png"), 82))
    end)
  end
  core.file.write(base .. ".md", markdown(comparison, run, rows, { figure = name .. ".svg",
    curve = curve and name .. "-curve.svg", pictures = name .. ".jpg" }, shown))
end

return M
