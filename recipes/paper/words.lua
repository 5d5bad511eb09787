-- Figure 8 at embedded scale: one model, one reward, and the control word alone decides the style. Each word is set
-- against the words of the four other styles; the judge is asked for the style that the word names.
local common = require "common"

local opt = common.options { lr = { common.methods.SRPO.lr.relative, "AdamW learning rate" } }
local world = common.world(opt)

local styles = {
  { "3D render", "fluent-3d" }, { "Flat", "fluent-flat" }, { "Black and white", "fluent-high-contrast" },
  { "Soft shading", "noto" }, { "Sticker", "twemoji" },
}
local variants, claims = { { name = "base" } }, {}
for _, style in ipairs(styles) do
  local others = {}
  for _, other in ipairs(styles) do
    if other ~= style then others[#others + 1] = other[1] end
  end
  local control = { positive = { style[1] }, negative = others }
  variants[#variants + 1] = common.with(common.variant(world, "SRPO", "relative", { options = { control = control } }),
    { name = style[1], lr = opt.lr, eval = { style = style[2], control = control } })
end

-- Every word's own start, as a number that claims can be made about.
local function derive(before, after)
  return { gain = after.judge_style_probability - before.judge_style_probability }
end
for i = 2, #variants do
  claims[#claims + 1] = { ("%q moves the images to its style"):format(variants[i].name), variants[i].name, ">", "base",
    "gain" }
end

return common.compare(world, {
  title = "Control words (figure 8) at embedded scale", variants = variants, claims = claims, derive = derive,
  columns = {
    { "judge_style_probability", "style before", at = "before" }, { "judge_style_probability", "style after" },
    { "judge_subject_accuracy", "subject before", at = "before" }, { "judge_subject_accuracy", "subject after" },
    { "held_out_sgp", "held-out SGP before", at = "before" }, { "held_out_sgp", "held-out SGP after" },
    { "diversity", "diversity" }, { "saturation", "saturation" }, { "steps", "updates", digits = 0 },
    { "cpu_seconds", "CPU s", digits = 0 },
  },
})
