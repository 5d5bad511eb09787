-- LoRA against all weights, everything else equal: SRPO as in table 1, and the same with adapters of rank 8. Their
-- rate was searched on one seed (docs/results/lora-search.md). "MiB" is what training needs beyond the pipeline.
local common = require "common"

local opt = common.options { lr = { 6e-4, "AdamW learning rate of adapters" } }
local world = common.world(opt)

local function adapters(name, lora)
  return common.variant(world, "SRPO", "relative", { name = name, lora = lora, lr = opt.lr })
end

local whole, eight = "all weights", "rank 8, blocks"
local style, subject = "judge_style_probability", "judge_subject_accuracy"

return common.compare(world, {
  title = "LoRA against all weights",
  variants = {
    { name = "base" },
    common.variant(world, "SRPO", "relative", { name = whole }),
    adapters(eight, { rank = 8 }), adapters("rank 8, all-linear", { rank = 8, targets = "all-linear" }),
  },
  claims = {
    { "rank 8 reaches the style of all weights", eight, "~", whole, style, 0.1 },
    { "rank 8 keeps as many subjects", eight, "~", whole, subject, 0.05 },
    { "rank 8 needs less memory", eight, "<", whole, "memory" },
    { "rank 8 takes less time", eight, "<", whole, "cpu_seconds" },
    { "all-linear reaches more of the style than blocks", "rank 8, all-linear", ">", eight, style },
  },
  columns = {
    { style, "style" }, { subject, "subject" }, { "sgp", "SGP" }, { "held_out_sgp", "held-out SGP" },
    { "reward", "reward" }, { "diversity", "diversity" }, { "sharpness", "sharpness" },
    { "steps", "updates", digits = 0 }, { "cpu_seconds", "CPU s", digits = 1 }, { "memory", "MiB", digits = 0 },
  },
})
