-- LoRA against all weights, everything else equal: SRPO as in table 1, and the same with adapters of several ranks. The
-- adapters' rate was searched on one seed (docs/lora.md). "MiB" is what training needs beyond the pipeline itself.
local common = require "common"

local opt = common.options { lr = { 4e-4, "AdamW learning rate of adapters" } }
local world = common.world(opt)

local function adapters(name, lora, more)
  return common.variant(world, "SRPO", "relative", common.with({ name = name, lora = lora, lr = opt.lr }, more))
end

local whole, eight = "all weights", "rank 8"
local style, subject = "judge_style_probability", "judge_subject_accuracy"

return common.compare(world, {
  title = "LoRA against all weights",
  variants = {
    { name = "base" },
    common.variant(world, "SRPO", "relative", { name = whole }),
    adapters("rank 2", { rank = 2 }), adapters(eight, { rank = 8 }), adapters("rank 32", { rank = 32 }),
    adapters("rank 8, attention", { rank = 8, targets = "attention" }),
    adapters("rank 8, all-linear", { rank = 8, targets = "all-linear" }),
    adapters("rank 8, average .9", { rank = 8 }, { ema = 0.9 }),
  },
  claims = {
    { "rank 8 reaches the style of all weights", eight, "~", whole, style, 0.1 },
    { "rank 8 keeps as many subjects", eight, "~", whole, subject, 0.05 },
    { "rank 8 needs less memory", eight, "<", whole, "memory" },
    { "rank 8 takes less time", eight, "<", whole, "cpu_seconds" },
    { "rank 2 reaches less of the style than rank 8", "rank 2", "<", eight, style },
    { "attention alone reaches less of the style", "rank 8, attention", "<", eight, style },
  },
  columns = {
    { style, "style" }, { subject, "subject" }, { "sgp", "SGP" }, { "held_out_sgp", "held-out SGP" },
    { "reward", "reward" }, { "diversity", "diversity" }, { "sharpness", "sharpness" },
    { "steps", "updates", digits = 0 }, { "cpu_seconds", "CPU s", digits = 1 }, { "memory", "MiB", digits = 0 },
  },
})
