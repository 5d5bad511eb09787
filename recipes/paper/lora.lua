-- LoRA against all weights, everything else equal: SRPO as in table 1, and the same with adapters of rank 8. "MiB" is
-- what training needs beyond the pipeline itself.
local common = require "common"

local opt = common.options {
  lr = { 7e-4, "AdamW learning rate of adapters on the blocks" },
  lr_all = { 5e-4, "the same of adapters on every linear layer" },
}
local world = common.world(opt)

local function adapters(name, lora, lr)
  return common.variant(world, "SRPO", "relative", { name = name, lora = lora, lr = lr })
end

local whole, eight, all = "all weights", "rank 8, blocks", "rank 8, all-linear"
local style, subject = "judge_style_probability", "judge_subject_accuracy"

return common.compare(world, {
  title = "LoRA against all weights", against = "all weights",
  about = "SRPO with all weights trained, and with adapters of rank 8. The adapters' rates were chosen, in two rounds, "
    .. "so that the style comes near that of all weights ([search](lora-search.md)): that it does is no finding. What "
    .. "that costs, in subjects, memory and time, is.",
  variants = {
    { name = "base" }, common.variant(world, "SRPO", "relative", { name = whole }),
    adapters(eight, { rank = 8 }, opt.lr), adapters(all, { rank = 8, targets = "all-linear" }, opt.lr_all),
  },
  claims = {
    { "adapters on the blocks reach the style", eight, "~", whole, style, 0.1 },
    { "adapters on the blocks keep as many subjects", eight, "~", whole, subject, 0.05 },
    { "adapters on every layer reach the style", all, "~", whole, style, 0.1 },
    { "adapters on every layer keep as many subjects", all, "~", whole, subject, 0.05 },
    { "adapters need less memory", eight, "<", whole, "memory" },
    { "adapters take less time", eight, "<", whole, "cpu_seconds" },
  },
  columns = {
    { style, "style" }, { subject, "subject" }, { "sgp", "SGP" }, { "held_out_sgp", "held-out SGP" },
    { "reward", "reward" }, { "diversity", "diversity" }, { "sharpness", "sharpness" },
    { "steps", "updates", digits = 0 }, { "cpu_seconds", "CPU s", digits = 1 }, { "memory", "MiB", digits = 0 },
  },
})
