--- CLIP's own opinion of how well an image fits a text: the cosine of its unit features (arXiv:2104.08718).
--
--   score = cosine(image, text)
--
-- Others report multiples of it: scale = 2.5 is CLIP-S and scale = 100 torchmetrics' CLIPScore, both before they cut
-- negative values to 0 (where no gradient would flow); "srpo" is exp(logit_scale) / 20. Files: any CLIPModel folder,
-- such as openai/clip-vit-large-patch14, or open_clip's weights.
local clip = require "syz.rewards.clip"

local M = {}

local DEFAULTS = { scale = "cosine", preprocess = { "crop", "processor" } }

--- Load a CLIP score.
---@param path string   a CLIPModel folder, or a weights file in open_clip's names
---@param options table|nil   fields of syz.rewards.clip; preprocess: "crop" or "processor"; scale: "cosine";
---  activation: "gelu" for LAION's and others' weights of OpenAI's sizes, whose files do not tell
---@return syz.ClipReward
function M.load(path, options)
  local reward = clip.open("syz.reward.clip_score", path, options, DEFAULTS)
  return reward -- no tail call: errors count the levels up to the recipe
end

return M
