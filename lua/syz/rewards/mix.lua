--- A weighted mix of rewards: R = sum_i w_i R_i, with what each of them pulls at logged.
--
-- Each reward is differentiated on its own, back to the images, and its graph is let go before the next one runs:
-- memory is that of the largest reward, and the norm of its gradient is there to be read. What goes on to the method
-- has the value of the mix and the gradient sum_i w_i dR_i/dimages, exactly. The norms are those of w_i dR_i/dimage,
-- averaged over the batch: compare them to see which reward steers.
local core = require "syz.core"
local device = require "syz.device"
local fields = require "syz.fields"

local M = {}

---@class syz.RewardMix
---@field parts { name: string, reward: table, weight: fun(): number }[]
---@field unmixable string|nil   why a part has no CFG form
local Mix = {}
Mix.__index = Mix

--- Mix rewards.
---@param parts { reward: table, weight: number|function|nil, name: string|nil }[]   weight: 1 unless given; a function
---  is called without arguments whenever the mix is scored
---@return syz.RewardMix
function M.new(parts)
  if type(parts) ~= "table" or #parts == 0 then
    error("reward_mix takes a list of { reward = ..., weight = ..., name = ... }", 2)
  end
  local list, taken, unmixable = {}, {}, nil
  for i, part in ipairs(parts) do
    local owner = ("reward_mix, entry %d"):format(i)
    fields.check(owner, part, { reward = "table", weight = "number|function", name = "string" })
    if not part.reward then error(owner .. " needs the field reward", 2) end
    local name = part.name or ("part%d"):format(i)
    if taken[name] then error(("reward_mix: two entries are named %q"):format(name), 2) end
    taken[name] = true
    unmixable = unmixable or part.reward.unmixable
    list[i] = { name = name, reward = part.reward,
                weight = fields.setting(part.weight or 1, ("reward_mix: weight of %s"):format(name)) }
  end
  return setmetatable({ parts = list, last = {}, unmixable = unmixable }, Mix)
end

-- Norm of each sample's gradient, averaged.
local function norm_of(gradient)
  local shape = gradient:shape()
  return gradient:reshape({ shape[1], -1 }):square():sum({ 1 }):sqrt():mean():item()
end

-- One part: its scores {B} without history, and its gradient on the images (nil when it has none).
local function pull(part, images, evaluate)
  return core.scope(function()
    local leaf = images:copy():requires_grad(true)
    local scores = evaluate(part.reward, leaf)
    if scores:requires_grad() then scores:sum():backward() end
    return scores:detach(), leaf:grad()
  end)
end

-- The mix of what `evaluate(reward, images)` gives for each part.
function Mix:combine(images, evaluate)
  local tracked = images:requires_grad() and core.grad_enabled()
  local value, gradient
  self.last = {}
  for _, part in ipairs(self.parts) do
    local weight = part.weight()
    local scores, slope
    if tracked then scores, slope = pull(part, images, evaluate) else scores = evaluate(part.reward, images) end
    self.last["reward_" .. part.name] = scores:mean():item()
    if tracked then self.last["pull_" .. part.name] = slope and math.abs(weight) * norm_of(slope) or 0 end
    value = value and value + weight * scores or weight * scores
    if slope then gradient = gradient and gradient + weight * slope or weight * slope end
  end
  if not gradient then return value end
  local shape = images:shape()
  local linear = (images * gradient):reshape({ shape[1], -1 }):sum({ 1 })
  return value + (linear - linear:detach())
end

--- Scores {B}.
function Mix:score(images, texts)
  return self:combine(images, function(reward, x) return reward:score(x, texts) end)
end

--- The semantic-relative preference of the mix: each part's own, weighted.
function Mix:relative(images, wanted, unwanted, kappa)
  return self:combine(images, function(reward, x) return reward:relative(x, wanted, unwanted, kappa) end)
end

--- The CFG form, weighted.
function Mix:mixed(images, wanted, unwanted, k)
  return self:combine(images, function(reward, x) return reward:mixed(x, wanted, unwanted, k) end)
end

-- A reward whose features of an image can be compared with any text.
local function has_pairs(reward) return reward.image ~= nil and reward.pair ~= nil end

--- Features of every part, for `pair`; of a part without such, the images.
function Mix:image(images)
  local features = {}
  for i, part in ipairs(self.parts) do
    features[i] = has_pairs(part.reward) and part.reward:image(images) or images
  end
  return features
end

--- Scores from features, as evaluation asks for them.
function Mix:pair(features, texts)
  local value
  for i, part in ipairs(self.parts) do
    local score = has_pairs(part.reward) and part.reward.pair or part.reward.score
    local scores = part.weight() * score(part.reward, features[i], texts)
    value = value and value + scores or scores
  end
  return value
end

--- Move the parts to a device.
---@param where string
---@param precision "f32"|"bf16"|nil
function Mix:to(where, precision)
  local rewards = {}
  for i, part in ipairs(self.parts) do rewards[i] = part.reward end
  device.move_all(rewards, where, precision)
  return self
end

--- What the latest scoring said of each part: reward_<name>, and pull_<name>, the norm of its weighted gradient on the
--- images.
---@return table<string, number>
function Mix:report()
  return self.last
end

return M
