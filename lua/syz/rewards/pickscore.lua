--- PickScore: a CLIP ViT-H/14 fine-tuned on the choices of Pick-a-Pic (arXiv:2305.01569).
--
--   score = exp(logit_scale) cosine(image, text)           published: about 18 to 24
--
-- SRPO divides it by 20, to be near HPS: scale = "srpo". Files: the folder yuvalkirstain/PickScore_v1, a CLIPModel;
-- without a tokenizer of its own, CLIP's comes with the program.
local clip = require "syz.rewards.clip"

local M = {}

--- Load PickScore.
---@param path string
---@param options table|nil   fields of syz.rewards.clip; preprocess: "crop" as SRPO trains with it, or "processor",
---  whose corner of the crop is another on sides of odd difference; scale: "logit"
---@return syz.ClipReward
function M.load(path, options)
  return clip.open("syz.reward.pickscore", path, options, { scale = "logit", preprocess = { "crop", "processor" } })
end

return M
