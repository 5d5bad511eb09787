-- Table 1 at embedded scale: methods and rewards varied separately, everything else equal. Each method climbs the plain
-- reward (how well the image fits its prompt) and the relative one ("3D render" against "Flat" and "Sticker").
local common = require "common"

local opt = common.options { methods = { common.order, "methods to compare", common.order } }
local world = common.world(opt)

local variants, has = { { name = "base" } }, { base = true }
for _, name in ipairs(opt.methods) do
  for _, kind in ipairs { "plain", "relative" } do
    variants[#variants + 1] = common.variant(world, name, kind)
    has[variants[#variants].name] = true
  end
end

local claims = {}
local function claim(text, one, relation, other, metric, margin)
  if has[one] and has[other] then claims[#claims + 1] = { text, one, relation, other, metric, margin } end
end
local style, subject, srpo = "judge_style_probability", "judge_subject_accuracy", "SRPO, relative"
claim("SRPO makes the images more realistic", srpo, ">", "base", style)
for _, name in ipairs(common.order) do
  claim(("SRPO is more realistic than %s with the plain reward"):format(name), srpo, ">", name .. ", plain", style)
end
for _, name in ipairs { "ReFL", "DRaFT-LV", "DanceGRPO" } do
  claim(("SRPO is more realistic than %s with the relative reward"):format(name), srpo, ">", name .. ", relative",
    style)
end
claim("the inversion branch adds to Direct-Align with the relative reward", srpo, ">", "Direct-Align, relative", style)
claim("SRPO keeps the subjects (to .1)", srpo, "~", "base", subject, 0.1)
claim("SRPO keeps the diversity (to .1)", srpo, "~", "base", "diversity", 0.1)
claim("Direct-Align raises the plain reward more than ReFL", "Direct-Align, plain", ">", "ReFL, plain", "reward")

return common.compare(world, { title = "Table 1 at embedded scale", variants = variants, claims = claims })
