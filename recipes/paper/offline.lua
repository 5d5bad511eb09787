-- Offline SRPO at embedded scale: real drawings of the wanted style take the place of the rollout. The paper says that
-- fewer than 1500 real photos are enough; here there are 50, 500 and 1155, one for each subject.
local syz = require "syz"
local common = require "common"

local opt = common.options {
  counts = { { 50, 500, 1155 }, "how many real images" },
  data = { "examples/emoji/data/emoji64-train.tar", "WebDataset they come from" },
}
local world = common.world(opt)

local set = syz.data.images(opt.data, function(meta) return meta.style == opt.style end)
local order = syz.data.permutation(syz.generator(11, 1), set:count())

-- The first `count` images in a fixed order, their subjects as prompts, and a picture for a prompt.
local function offline(count)
  local by_subject, prompts = {}, {}
  for i = 1, math.min(count, #order) do
    local subject = set.meta[order[i]].subject
    by_subject[subject] = by_subject[subject] or {}
    table.insert(by_subject[subject], order[i])
    prompts[i] = subject
  end
  return prompts, function(batch, generator)
    local chosen = {}
    for i, prompt in ipairs(batch) do
      local among = by_subject[prompt]
      chosen[i] = among[generator:integer(1, #among)]
    end
    return set:batch(chosen)
  end
end

local online = common.variant(world, "SRPO", "relative")
online.name = "online"
local variants, claims, style = { { name = "base" }, online }, {}, "judge_style_probability"
for _, count in ipairs(opt.counts) do
  local prompts, pictures = offline(count)
  local variant = common.variant(world, "SRPO", "relative", { options = { offline = pictures } })
  variant.name, variant.prompts = ("%d images"):format(math.min(count, #order)), prompts
  variants[#variants + 1] = variant
  claims[#claims + 1] = { variant.name .. " are enough to move the style", variant.name, ">", "base", style }
end
local most, fewest = variants[#variants].name, variants[3].name
claims[#claims + 1] = { "the offline model is as good as the online one", most, "~", "online", style, 0.1 }
claims[#claims + 1] = { fewest .. " do as well as " .. most, fewest, "~", most, style, 0.05 }

return common.compare(world, { title = "Offline SRPO at embedded scale", variants = variants, claims = claims,
  derive = common.hacking, columns = common.hacking_columns })
