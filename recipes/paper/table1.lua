-- Table 1 at embedded scale: methods and rewards varied separately, everything else equal. Each method climbs the plain
-- reward (how well the image fits its prompt) and the relative one ("3D render" against "Flat" and "Sticker").
local common = require "common"

local opt = common.options { methods = { common.order, "methods to compare" } }
local world = common.world(opt)

local variants = { { name = "base" } }
for _, name in ipairs(opt.methods) do
  if not common.methods[name] then error(("methods: there is no %q"):format(name)) end
  for _, kind in ipairs { "plain", "relative" } do variants[#variants + 1] = common.variant(world, name, kind) end
end

return common.compare(world, { title = "Table 1 at embedded scale", variants = variants })
