-- The search behind recipes/paper/common.lua, with the same small budget for every method. Each is trained with each
-- reward at three learning rates, one seed, for a few updates, and measured on training prompts with other noise, so
-- that the evaluation prompts stay unseen. The rate that is kept raises what it climbs the most (the plain reward, or
-- SGP) among those at which the judge still recognises the subjects, the images stay as different as before, and the
-- held-out reward still finds the prompt in them.
local common = require "common"

local opt = common.options {
  methods = { common.order, "methods to search", common.order }, rates = { { 1e-5, 3e-5, 1e-4 }, "learning rates" },
  seeds = { { 100 }, "training seeds" }, steps = { 30, "updates of each cell" }, prompts = { 48, "training prompts" },
  subject = { 0.1, "by how much the recognised subjects may fall" },
  diversity = { 0.15, "by which share diversity may fall" },
  held_out_fall = { 0.04, "by how much the held-out reward may fall" },
}
local world = common.world(opt)
world.spec.eval.prompts = common.first(world.spec.prompts, opt.prompts)

local variants, choices = { { name = "base" } }, {}
for _, name in ipairs(opt.methods) do
  for _, kind in ipairs { "plain", "relative" } do
    local group = { name = ("%s, %s"):format(name, kind), metric = kind == "plain" and "reward" or "sgp" }
    for _, rate in ipairs(opt.rates) do
      local variant = common.variant(world, name, kind, { lr = rate })
      variant.name = ("%s, %g"):format(group.name, rate)
      variants[#variants + 1], group[#group + 1] = variant, { variant.name, rate }
    end
    choices[#choices + 1] = group
  end
end

local function conclude(rows, tables)
  local function mean(variant, metric) return (tables.statistics((tables.values(rows, variant, metric)))) end
  local lines = {}
  for _, group in ipairs(choices) do
    local best, rate
    for _, entry in ipairs(group) do
      local gain, subject, diversity = mean(entry[1], group.metric), mean(entry[1], "judge_subject_accuracy"),
        mean(entry[1], "diversity")
      local whole = gain and subject >= mean("base", "judge_subject_accuracy") - opt.subject
        and diversity >= mean("base", "diversity") * (1 - opt.diversity)
        and mean(entry[1], "held_out") >= mean("base", "held_out") - opt.held_out_fall
      if whole and (not best or gain > best) then best, rate = gain, entry[2] end
    end
    lines[#lines + 1] = ("%s: %s"):format(group.name, rate and ("%g"):format(rate) or "none of these rates")
  end
  return "Kept: " .. table.concat(lines, "; ") .. "."
end

return common.compare(world, { title = "Learning rates, searched alike for every method", variants = variants,
  conclude = conclude })
