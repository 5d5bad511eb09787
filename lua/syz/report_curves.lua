--- The curves of a report: evaluations on fixed prompts and seeds first, then what training logged at every step. Where
--- a rule stopped the run or kept a model, each curve says at which step.

local chart = require "syz.chart"
local files = require "syz.files"
local page = require "syz.report_page"
local text = require "syz.text"

local curves = {}

local PREFIX = "eval/"

-- What people look at first; a held-out reward, whose name is the recipe's, comes after the optimised ones.
local ORDER = { sgp = 1, reward = 2, loss = 3, judge_style_probability = 11, judge_subject_accuracy = 12,
                diversity = 13, diversity_per_prompt = 14, saturation = 15, contrast = 16, sharpness = 17,
                grad_norm = 18, lr = 19 }

--- Sort metrics by importance, then by name.
---@param names string[]
---@return string[] names  the same table
function curves.sort(names)
  table.sort(names, function(a, b)
    local ra, rb = ORDER[a] or 10, ORDER[b] or 10
    if ra ~= rb then return ra < rb end
    return a < b
  end)
  return names
end

-- "judge_style_probability" is named for machines.
function curves.title(name)
  return (name:gsub("_", " "))
end

--- Metrics by name: their points, ordered by step; the later of two values for one step counts.
---@param folder string
---@return table<string, number[][]> evaluations, table<string, number[][]> training
function curves.series(folder)
  local evaluations, training = {}, {}
  for _, entry in ipairs(files.read_lines(folder .. "/metrics.jsonl")) do
    local step = tonumber(entry.object.step)
    for name, value in pairs(entry.object) do
      if step and name ~= "step" and type(value) == "number" then
        local series = training
        if name:sub(1, #PREFIX) == PREFIX then series, name = evaluations, name:sub(#PREFIX + 1) end
        local points = series[name] or {}
        series[name] = points
        if points[#points] and points[#points][1] == step then points[#points] = nil end
        points[#points + 1] = { step, value }
      end
    end
  end
  return evaluations, training
end

local function varies(points)
  for _, p in ipairs(points) do
    if p[2] ~= points[1][2] then return true end
  end
  return false
end

-- The vertical marks that all curves of a run share.
local function marks_of(record)
  local marks = {}
  local stopped = type(record.stopped) == "table" and record.stopped
  if tonumber(record.kept_step) then
    marks[1] = { step = record.kept_step, label = "kept", class = "kept",
                 title = ("step %d: the model that is kept"):format(record.kept_step) }
  end
  if stopped and tonumber(stopped.step) then
    marks[#marks + 1] = { step = stopped.step, label = "stopped", class = "stopped",
                          title = ("stopped at step %d: %s"):format(stopped.step, tostring(stopped.reason)) }
  end
  return marks
end

-- The sentence under the curve of a metric that stopped the run.
local function cause_of(record, name)
  local stopped = type(record.stopped) == "table" and record.stopped
  local reason = stopped and type(stopped.reasons) == "table" and stopped.reasons[name]
  return reason and tostring(reason) or nil
end

local function panel(name, points, record, evaluated)
  local last, first = points[#points][2], points[1][2]
  local shown = evaluated and #points > 1 and text.number(first) .. " → " .. text.number(last) or text.number(last)
  local cause = evaluated and cause_of(record, name)
  local guards = evaluated and type(record.guards) == "table" and record.guards or {}
  return ('<div class="panel%s"><header><b>%s</b><span>%s</span></header>%s%s</div>'):format(cause and " cause" or "",
    page.escape(curves.title(name)), shown,
    chart.svg(points, { marks = marks_of(record), level = tonumber(guards[name]), level_label = "guard" }),
    cause and '<p class="why">' .. page.escape(cause) .. "</p>" or "")
end

local function section(title, series, record, evaluated)
  local panels, constant, names = {}, {}, {}
  for name in pairs(series) do names[#names + 1] = name end
  for _, name in ipairs(curves.sort(names)) do
    local points = series[name]
    if varies(points) then
      panels[#panels + 1] = panel(name, points, record, evaluated)
    else
      constant[#constant + 1] = page.escape(curves.title(name)) .. " " .. text.number(points[1][2])
    end
  end
  if #panels == 0 and #constant == 0 then return "" end
  local rest = #constant > 0 and '<p class="soft">Constant: ' .. table.concat(constant, ", ") .. "</p>" or ""
  return "<h2>" .. title .. '</h2><div class="charts">' .. table.concat(panels, "\n") .. "</div>" .. rest
end

--- Both sections of curves.
---@param folder string
---@param record table   run.json
---@return string evaluations, string training  HTML, empty where nothing was logged
function curves.sections(folder, record)
  local evaluations, training = curves.series(folder)
  return section("Evaluations on fixed prompts and seeds", evaluations, record, true),
    section("Training", training, record, false)
end

return curves
