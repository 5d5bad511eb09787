--- PickScore: a CLIP ViT-H/14 fine-tuned on the choices of Pick-a-Pic (arXiv:2305.01569).
--
--   score = exp(logit_scale) / 20 cosine(image, text)      as SRPO trains with it, to be near HPS: about 0.9 to 1.2
--
-- The published score is 20 times that (scale = "logit"), about 18 to 24; `syz score` prints it. Files: the folder
-- yuvalkirstain/PickScore_v1, a CLIPModel; without a tokenizer of its own, CLIP's comes with the program.
local clip = require "syz.rewards.clip"

local M = {}

local DEFAULTS = { scale = "srpo", preprocess = { "crop", "processor" } }

--- Load PickScore.
---@param path string
---@param options table|nil   fields of syz.rewards.clip; preprocess: "crop" as SRPO trains with it, or "processor",
---  whose corner of the crop is another on sides of odd difference; scale: "srpo"
---@return syz.ClipReward
function M.load(path, options)
  local reward = clip.open("syz.reward.pickscore", path, options, DEFAULTS)
  return reward -- no tail call: errors count the levels up to the recipe
end

return M
