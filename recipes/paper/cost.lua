-- What it costs: CPU-seconds of training until the judge sees as much of the wanted style, SRPO against DanceGRPO. The
-- paper says 75 times less. A variant that never gets there within its budget gives a bound, and says so.
local common = require "common"

local opt = common.options {
  target = { 0.4, "probability of the wanted style that ends a training" },
  budget = { 200, "CPU-seconds after which one ends anyway" },
  every = { { 2, 10 }, "updates between evaluations, of SRPO and of DanceGRPO" },
}
if opt.quick then opt = setmetatable({ budget = 40 }, { __index = opt }) end
local world = common.world(opt)

local style, variants = "judge_style_probability", {}
for i, what in ipairs { { "SRPO", "relative" }, { "DanceGRPO", "relative" }, { "DanceGRPO", "plain" } } do
  variants[#variants + 1] = common.variant(world, what[1], what[2], {
    steps = 100000, every = opt.every[math.min(i, 2)], budget = opt.budget, target = { [style] = opt.target },
  })
end

-- Seconds to the target of each seed, and whether all of them reached it.
local function seconds(rows, name)
  local list, all = {}, true
  for _, row in ipairs(rows) do
    if row.variant == name then
      list[#list + 1], all = row.reached and row.reached.cpu_seconds or row.cpu_seconds, all and row.reached ~= nil
    end
  end
  return list, all
end

local function conclude(rows, tables)
  local base, reached = seconds(rows, variants[1].name)
  local mean, lines = tables.statistics(base), {}
  lines[1] = ("CPU-seconds of training until the judge sees the wanted style with a probability of %g (the paper: SRPO "
    .. "needs 75 times less than DanceGRPO).%s"):format(opt.target, reached and "" or " SRPO did not reach it in every "
    .. "seed: the factors mean little.")
  for i, variant in ipairs(variants) do
    local list, all = seconds(rows, variant.name)
    local own, err = tables.statistics(list)
    local more = all and "" or "more than "
    if own then
      lines[#lines + 1] = ("%s: %s%s%s."):format(variant.name, more, tables.show({ digits = 0 }, own, err),
        i > 1 and (", %s%.1f times SRPO's"):format(more, own / mean) or "")
    end
  end
  return table.concat(lines, "\n\n")
end

local columns = { { "cpu_seconds", "CPU s", digits = 0 }, { "steps", "updates", digits = 0 }, { style, "style" } }
for _, column in ipairs(common.columns) do
  if column[1] ~= style and column[1] ~= "cpu_seconds" and column[1] ~= "steps" then columns[#columns + 1] = column end
end

return common.compare(world, {
  title = "Cost to the same realism at embedded scale", variants = variants, columns = columns, conclude = conclude,
  curve = { x = "cpu_seconds", y = style, x_label = "CPU-seconds of training",
            y_label = "probability of the wanted style", level = opt.target, level_label = "target" },
})
