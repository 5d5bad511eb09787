--- What raters' files add up to: grades counted against a study's key, rates, differences, agreement.

local core = require "syz.core"
local files = require "syz.files"
local statistics = require "syz.statistics"
local ratings = require "syz.study_ratings"
local study = require "syz.study"

local collect = {}

-- Draws for the intervals of differences.
local resamples = 2000

-- What is tested for differences: grades up to this position count as a hit.
collect.measures = { { key = "excellent", name = "Excellent", upto = 1 },
                     { key = "good_or_better", name = "Excellent or Good", upto = 2 } }

local position = ratings.position

-- An image's overall grade by one rater is the lowest of its four; it needs all four.
local function overall(given)
  local worst = 0
  for _, dimension in ipairs(study.dimensions) do
    local grade = position[given[dimension.key]]
    if not grade then return nil end
    worst = math.max(worst, grade)
  end
  return worst
end

--- The questions and what follows from them.
---@return { key: string, name: string }[]
function collect.rows()
  local rows = {}
  for i, dimension in ipairs(study.dimensions) do rows[i] = { key = dimension.key, name = dimension.name } end
  rows[#rows + 1] = { key = "overall", name = "Overall" }
  return rows
end

-- grades[row][item id] = list of grades, one per rater who answered.
local function grades_by_item(raters)
  local grades = {}
  for _, row in ipairs(collect.rows()) do grades[row.key] = {} end
  for _, rater in ipairs(raters) do
    for id, given in pairs(rater.ratings) do
      for key, by_item in pairs(grades) do
        local grade = key == "overall" and overall(given) or position[given[key]]
        if grade then
          by_item[id] = by_item[id] or {}
          table.insert(by_item[id], grade)
        end
      end
    end
  end
  return grades
end

-- A prompt that was drawn with several seeds is still one prompt: number of each text, and how many there are.
local function distinct(prompts)
  local number, count, unit = {}, 0, {}
  for p, prompt in ipairs(prompts) do
    if not number[prompt] then
      count = count + 1
      number[prompt] = count
    end
    unit[p] = number[prompt]
  end
  return unit, count
end

-- counts[model][distinct prompt] = { n per grade }: what one question was answered.
local function tally(key, by_item)
  local counts, unit, units = {}, distinct(key.prompts)
  for m in ipairs(key.models) do
    counts[m] = {}
    for p = 1, units do counts[m][p] = { 0, 0, 0, 0 } end
  end
  for id, list in pairs(by_item) do
    local place = key.items[id]
    local cell = counts[place.model][unit[place.prompt]]
    for _, grade in ipairs(list) do cell[grade] = cell[grade] + 1 end
  end
  return counts
end

local function hits_and_total(cell, upto)
  local hits = 0
  for grade = 1, upto do hits = hits + cell[grade] end
  return hits, cell[1] + cell[2] + cell[3] + cell[4]
end

local function shares(key, counts)
  local list = {}
  for m, model in ipairs(key.models) do
    local sum = { 0, 0, 0, 0 }
    for _, cell in ipairs(counts[m]) do
      for grade = 1, 4 do sum[grade] = sum[grade] + cell[grade] end
    end
    local entry = { model = model.name, counts = core.array(sum) }
    for _, measure in ipairs(collect.measures) do
      local hits, n = hits_and_total(sum, measure.upto)
      local low, high = statistics.wilson(hits, n)
      entry.ratings = n
      if n > 0 then entry[measure.key] = { rate = hits / n, low = low, high = high } end
    end
    list[m] = entry
  end
  return core.array(list)
end

-- Rates of every model and measure when prompt p counts weight[p] times.
local function rates(counts, weight)
  local out = {}
  for _, measure in ipairs(collect.measures) do
    for m = 1, #counts do
      local hits, n = 0, 0
      for p, cell in ipairs(counts[m]) do
        if weight[p] > 0 then
          local h, t = hits_and_total(cell, measure.upto)
          hits, n = hits + weight[p] * h, n + weight[p] * t
        end
      end
      out[#out + 1] = hits / n -- 0/0 is nan: not defined
    end
  end
  return out
end

-- Every pair of models, as differences of the rates above.
local function pairwise(models, values)
  local out = {}
  for k = 0, #collect.measures - 1 do
    for a = 1, models do
      for b = 1, models do
        if a ~= b then out[#out + 1] = values[k * models + a] - values[k * models + b] end
      end
    end
  end
  return out
end

local function differences(key, counts, row, into)
  local models, units, once = #key.models, #counts[1], {}
  for p = 1, units do once[p] = 1 end
  local values = pairwise(models, rates(counts, once))
  -- the same draws for every question
  local intervals = statistics.bootstrap(units, resamples, core.generator(key.seed or 0, 7),
    function(weight) return pairwise(models, rates(counts, weight)) end)
  local k = 0
  for _, measure in ipairs(collect.measures) do
    for a = 1, models do
      for b = 1, models do
        if a ~= b then
          k = k + 1
          if values[k] == values[k] then
            into[#into + 1] = { dimension = row.key, measure = measure.key, model = key.models[a].name,
                                against = key.models[b].name, difference = values[k], low = intervals[k].low,
                                high = intervals[k].high }
          end
        end
      end
    end
  end
end

local function agreement(by_item)
  local units, ids = {}, {}
  for id in pairs(by_item) do ids[#ids + 1] = id end
  table.sort(ids)
  for i, id in ipairs(ids) do units[i] = by_item[id] end
  local alpha, reason = statistics.alpha(units, #study.grades)
  return { alpha = alpha, reason = reason }
end

--- Count and conclude.
---@param key table
---@param raters table[]   from ratings.raters
---@return table results   what study_results shows and results.json holds
function collect.results(key, raters)
  local items = 0
  for _ in pairs(key.items) do items = items + 1 end
  local out = {
    format = study.formats.results, study = key.study, title = key.title, items = items,
    prompts = select(2, distinct(key.prompts)),
    models = {}, raters = {}, dimensions = core.array(collect.rows()), shares = {}, differences = core.array {},
    agreement = { method = "Krippendorff's alpha, ordinal" },
    intervals = { level = 0.95, rates = "Wilson, over ratings",
                  differences = "percentile bootstrap over prompts", resamples = resamples, seed = key.seed or 0 },
  }
  for m, model in ipairs(key.models) do out.models[m] = model.name end
  for r, rater in ipairs(raters) do out.raters[r] = { name = rater.name, file = rater.path, rated = rater.rated } end
  local grades = grades_by_item(raters)
  for _, row in ipairs(collect.rows()) do
    local counts = tally(key, grades[row.key])
    out.shares[row.key] = shares(key, counts)
    differences(key, counts, row, out.differences)
    out.agreement[row.key] = agreement(grades[row.key])
  end
  return out
end

--- Read, check, conclude, and write DIR/results.json and DIR/results.html.
---@param key_path string
---@param paths string[]
---@param folder string
---@return table|nil results
---@return string[]|nil problems
function collect.run(key_path, paths, folder)
  local key, reason = ratings.key(key_path)
  if not key then return nil, { reason } end
  local raters, problems = ratings.raters(paths, key)
  if not raters then return nil, problems end
  local results = collect.results(key, raters)
  core.file.mkdir(folder)
  files.write_json(folder .. "/results.json", results)
  core.file.write(folder .. "/results.html", require("syz.study_results").html(results))
  return results
end

return collect
