--- The reward at a path, whatever kind it is: for commands that are given no more than a path.
local clip = require "syz.rewards.clip"
local image_reward = require "syz.rewards.image_reward"

local M = {}

--- Load an ImageReward (its file, or its folder), or a CLIP-like reward's folder.
---@param path string
---@return table reward
function M.load(path)
  if image_reward.holds(path) then return image_reward.load(path) end
  return clip.load(path)
end

return M
