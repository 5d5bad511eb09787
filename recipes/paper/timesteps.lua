-- Figure 7 at embedded scale: which timesteps are trained, and what that does to the images. Early, all and late
-- windows (docs/methods.md) of Direct-Align with the plain reward and of SRPO, everything else equal. "drift" is how
-- far saturation, contrast and sharpness have moved, "hacked" what the trained reward gains beyond the one held out.
local common = require "common"

local opt = common.options()
local world = common.world(opt)

local variants, claims = { { name = "base" } }, {}
for _, what in ipairs { { "Direct-Align", "plain" }, { "SRPO", "relative" } } do
  for _, window in ipairs { "early", "all", "late" } do
    local variant = common.variant(world, what[1], what[2], { options = { window = window } })
    variant.name = ("%s, %s"):format(what[1], window)
    variants[#variants + 1] = variant
  end
end
for _, name in ipairs { "Direct-Align", "SRPO" } do
  local function claim(text, one, relation, other, metric)
    claims[#claims + 1] = { name .. ": " .. text, name .. ", " .. one, relation, name .. ", " .. other, metric }
  end
  claim("late timesteps hack the reward more than early ones", "late", ">", "early", "hacked")
  claim("late timesteps distort the images more than early ones", "late", ">", "early", "drift")
end
claims[#claims + 1] = { "SRPO: early timesteps reach more of the wanted style than late ones", "SRPO, early", ">",
  "SRPO, late", "judge_style_probability" }
claims[#claims + 1] = { "SRPO: all timesteps reach as much as early ones", "SRPO, all", "~", "SRPO, early",
  "judge_style_probability", 0.05 }

return common.compare(world, { title = "Timesteps (figure 7) at embedded scale", variants = variants, claims = claims,
  derive = common.hacking, columns = common.hacking_columns })
