--- Human Preference Score v2.1: a CLIP ViT-H/14 fine-tuned on people's choices (arXiv:2306.09341).
--
--   score = cosine(image, text)                            published: hpsv2's score(), about 0.2 to 0.35
--
-- Files: HPS_v2.1_compressed.pt of xswu/HPSv2 as it is, or a CLIPModel folder.
local clip = require "syz.rewards.clip"

local M = {}

local DEFAULTS = { scale = "cosine", preprocess = { "crop", "pad", "processor" }, reading = "open_clip" }

--- Load HPSv2.1.
---@param path string   the .pt (or safetensors) file in open_clip's names, or a CLIPModel folder
---@param options table|nil   fields of syz.rewards.clip; preprocess: "crop" as SRPO trains with it, or "pad" as hpsv2
---  scores files (they agree on square images); scale: "cosine"
---@return syz.ClipReward
function M.load(path, options)
  local reward = clip.open("syz.reward.hps", path, options, DEFAULTS)
  return reward -- no tail call: errors count the levels up to the recipe
end

return M
