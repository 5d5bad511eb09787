--- What a cell of a comparison was made with: its settings as a line for people, and as a fingerprint that tells a
--- resumed comparison whether a finished cell still is what the recipe asks for.
local core = require "syz.core"
local identity = require "syz.identity"
local text = require "syz.text"

local M = {}

local SILENT = { pipeline = true, reward = true, judge = true }

-- A value in one line, the same for equal values. What cannot be told by its values is told by what it is.
local function show(value, depth)
  local kind = type(value)
  if kind == "number" then return text.number(value) end
  if kind == "string" or kind == "boolean" then return tostring(value) end
  if kind ~= "table" then return kind == "userdata" and "a tensor" or "a " .. kind end
  if type(value.folder) == "string" then return value.folder end
  if depth > 4 then return "..." end
  local parts = {}
  if #value > 0 then
    for i, item in ipairs(value) do parts[i] = show(item, depth + 1) end
    return "{" .. table.concat(parts, ", ") .. "}"
  end
  local names = {}
  for name, item in pairs(value) do
    local told = type(item) ~= "userdata" and type(item) ~= "function" and not SILENT[name]
    if type(name) == "string" and told then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do parts[i] = name .. " " .. show(value[name], depth + 1) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

--- The fields of syz.adamw for a cell.
---@return table
function M.optimizer(comparison, variant)
  local options = {}
  for key, value in pairs(comparison.optimizer or {}) do options[key] = value end
  for _, key in ipairs { "lr", "clip", "weight_decay" } do
    if variant[key] then options[key] = variant[key] end
  end
  return options
end

-- Rewards are named by their folder, a relative one by what it is.
local function reward_name(reward)
  if not reward then return "plain" end
  if type(reward.reward) == "table" and reward.kappa then
    return ("relative, kappa %s"):format(text.number(reward.kappa))
  end
  return reward.folder or reward.name or "its own"
end

--- The settings of a variant as { name, value } in the order in which they are read.
---@return string[][]
function M.list(comparison, variant)
  if not variant.method then return { { "method", "none" } } end
  local optimizer = M.optimizer(comparison, variant)
  local out = { { "method", type(variant.method) == "string" and variant.method or "its own" } }
  -- where a method forms its reward of control words, these say it
  if not (variant.options and variant.options.control) then
    out[2] = { "reward", reward_name(variant.reward) }
  end
  for _, pair in ipairs {
    { "updates", text.number(variant.steps or comparison.steps) },
    { "batch", text.number(variant.batch or comparison.batch) },
  } do out[#out + 1] = pair end
  for _, group in ipairs { optimizer, variant.options or {} } do
    local names = {}
    for name in pairs(group) do
      if not SILENT[name] then names[#names + 1] = name end
    end
    table.sort(names)
    for _, name in ipairs(names) do out[#out + 1] = { name, show(group[name], 1) } end
  end
  for _, name in ipairs { "lora", "ema", "every", "target", "budget" } do
    if variant[name] then out[#out + 1] = { name, show(variant[name], 1) } end
  end
  return out
end

--- The settings of a variant as one line.
---@return string
function M.line(comparison, variant)
  local parts = {}
  for i, pair in ipairs(M.list(comparison, variant)) do
    parts[i] = pair[1] == "method" and pair[2] or pair[1] .. " " .. pair[2]
  end
  return table.concat(parts, ", ")
end

--- A hash of everything above, of the prompts and of the evaluation.
---@return string
function M.fingerprint(comparison, variant)
  return core.sha256(table.concat({
    M.line(comparison, variant), comparison.precision, show(variant.prompts or comparison.prompts, 1),
    show(comparison.eval, 1), show(variant.eval or {}, 1), show(comparison.schedule, 1),
    variant.reward and show(variant.reward, 1) or "",
    variant.lora and variant.lora.load and identity.of(variant.lora.load) or "",
  }, "\n")):sub(1, 16)
end

return M
