--- The relative reward as a reward of its own: score = (1 + kappa) s(image, positive) - s(image, negative), the paper's
--- eq. 8 and 9. Any method that climbs a score climbs the contrast of two control words with it, so that methods and
--- rewards can be varied separately.
--
-- The words of image i of a batch are those that `control` gives for step i - 1: lists rotate over the images.
local control = require "syz.control"
local device = require "syz.device"
local fields = require "syz.fields"

local M = {}

---@class syz.RelativeReward
local Relative = {}
Relative.__index = Relative

--- Wrap a reward that has `relative`, such as syz.reward.clip's.
---@param reward table
---@param options { control: table|string|function, kappa: number|nil }   as srpo's control; kappa: 0
---@return syz.RelativeReward
function M.new(reward, options)
  if type(reward) ~= "table" or type(reward.relative) ~= "function" then
    error("reward.relative needs a reward with a method relative(images, wanted, unwanted, kappa), such as "
      .. "syz.reward.clip's", 2)
  end
  fields.check("reward.relative", options, { control = "table|string|function", kappa = "number" })
  if options.control == nil then error("reward.relative needs the field control", 2) end
  return setmetatable({ reward = reward, kappa = options.kappa or 0, words = options.control,
                        control = control.resolve(options.control, reward) }, Relative)
end

local function texts(self, prompts)
  local positive, negative = {}, {}
  for i, prompt in ipairs(prompts) do positive[i], negative[i] = self.control(i - 1, prompt) end
  return positive, negative
end

--- Scores {B}.
function Relative:score(images, prompts)
  local positive, negative = texts(self, prompts)
  return self.reward:relative(images, positive, negative, self.kappa)
end

--- The pair is the caller's: as of the reward inside.
function Relative:relative(images, wanted, unwanted, kappa)
  return self.reward:relative(images, wanted, unwanted, kappa)
end

--- Move the reward inside to a device.
---@param where string
---@param precision "f32"|"bf16"|nil
function Relative:to(where, precision)
  device.move_all({ self.reward }, where, precision)
  return self
end

return M
