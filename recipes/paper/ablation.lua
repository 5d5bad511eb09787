-- Figure 9d at embedded scale: what SRPO loses without one of its parts. The whole method trains high noise levels too,
-- gives low ones less weight by lambda(t), and climbs one branch while it descends the inversion branch.
local common = require "common"

local opt = common.options { lambda = { { 0.2, 1 }, "weight of the loss at the clean and at the noisy end" } }
local world = common.world(opt)

local function variant(name, options, more)
  return common.with(common.variant(world, "SRPO", "relative", {
    options = common.with({ lambda = opt.lambda }, options) }), common.with({ name = name }, more))
end
local whole = "SRPO"
local variants = {
  { name = "base" },
  variant(whole),
  variant("without early steps", { window = { sigma = { 0.6, 0.3 } } }),
  variant("without lambda(t)", { lambda = 1 }),
  variant("direct difference", { form = "difference", kappa = { denoise = { 0.3, 1 }, inversion = 0 } }),
  -- (1 - k) s_neg + k s_pos with k = 2 is 2 s_pos - s_neg
  variant("CFG form, k = 2", { form = "cfg", kappa = { denoise = 2, inversion = 0 } }),
}
local style = "judge_style_probability"
local claims = {
  { "without early steps the style is worse", "without early steps", "<", whole, style },
  { "without early steps the images drift further", "without early steps", ">", whole, "drift" },
  { "without lambda(t) the style is worse", "without lambda(t)", "<", whole, style },
  { "without lambda(t) the images drift further", "without lambda(t)", ">", whole, "drift" },
  { "the direct difference reaches less of the style than inversion", "direct difference", "<", whole, style },
  { "the direct difference hacks the reward more than inversion", "direct difference", ">", whole, "hacked" },
}

return common.compare(world, { title = "Ablation (figure 9d) at embedded scale", variants = variants, claims = claims,
  derive = common.hacking, columns = common.hacking_columns })
