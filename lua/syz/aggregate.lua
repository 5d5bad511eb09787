--- Reward aggregation (the paper's r(x_t) = lambda(t) sum over i = k-n .. k of r(recover(x_i))) and the windows of its
--- ablation by name.
local core = require "syz.core"
local fields = require "syz.fields"

local M = {}

--- Noise levels {high, low} of the named windows: the noisy third, everything, the clean third.
M.windows = { early = { 0.99, 0.66 }, all = { 0.99, 0.01 }, late = { 0.34, 0.01 } }

--- A window by name, or as it is.
---@param window string|table
---@param owner string   for the message
---@return table   for Schedule:window
function M.window(window, owner)
  if type(window) ~= "string" then return window end
  fields.choice(owner, "window", window, { "early", "all", "late" }, 4)
  return { sigma = M.windows[window] }
end

local DEFAULT_LEVELS = 4

--- How many levels share an update, how far they lie apart, and what is made of their rewards.
---@param value integer|function|{ levels: integer, by: function|nil }|nil
---@param owner string
---@return integer levels, function|nil by
function M.resolve(value, owner)
  if value == nil then return 1 end
  if type(value) == "function" then return DEFAULT_LEVELS, value end
  local by
  if type(value) == "table" then
    fields.check(owner .. ": aggregate", value, { levels = "integer", by = "function" }, 4)
    value, by = value.levels or DEFAULT_LEVELS, value.by
  end
  if value < 1 then error(("%s: aggregate must be at least 1 level, not %d"):format(owner, value), 4) end
  return value, by
end

local function described(value)
  return type(value) == "number" and tostring(value) or "a " .. type(value)
end

-- Weights as a list of tensors {B}.
local function from_list(list, rewards)
  local weights = {}
  for i, reward in ipairs(rewards) do
    local weight = list[i]
    if type(weight) == "number" then
      weight = core.full(reward:shape(), weight)
    elseif type(weight) ~= "userdata" then
      error(("aggregate returned %s as weight %d of %d: a number, or a tensor with one per sample, is needed"):format(
        described(weight), i, #rewards), 0)
    end
    weights[i] = weight
  end
  return weights
end

--- What weight each level's rewards get: the function's own, or the derivative of the scalar that it returned, times B
--- so that the mean over the batch of weight * reward has it as gradient.
---@param by fun(rewards: syz.Tensor[], sigmas: syz.Tensor[]): syz.Tensor|table
---@param rewards syz.Tensor[]   {B} for each level
---@param sigmas syz.Tensor[]    {B} for each level
---@return syz.Tensor[]   {B} for each level
function M.weights(by, rewards, sigmas)
  return core.scope(function()
    local leaves = {}
    for i, reward in ipairs(rewards) do leaves[i] = reward:copy():requires_grad(true) end
    local result = by(leaves, sigmas)
    if type(result) == "table" then return from_list(result, rewards) end
    if type(result) ~= "userdata" then
      error(("aggregate(rewards, sigmas) returned %s: a scalar tensor made of the rewards, or a list of weights, "
        .. "is needed"):format(described(result)), 0)
    end
    if result:numel() ~= 1 or not result:requires_grad() then
      error("aggregate(rewards, sigmas) must return one number made of the rewards (:mean() or :sum() makes one)", 0)
    end
    result:backward()
    local weights = {}
    for i, leaf in ipairs(leaves) do
      local grad = leaf:grad()
      weights[i] = grad and grad * leaf:size(0) or core.zeros(leaf:shape())
    end
    return weights
  end)
end

return M
