--- Control words: which words stand in front of the prompt in the positive and the negative text (paper eq. 7 - 9).
local core = require "syz.core"
local nearest = require "syz.nearest"

local M = {}

--- The released code's form: word .. ". " .. prompt. An empty word leaves the prompt alone.
function M.join(word, prompt)
  return word == "" and prompt or word .. ". " .. prompt
end

--- Word lists that rotate with the step: list[step % #list], counted from 0, as in the released code.
---@param sets { positive: string[], negative: string[] }
---@return fun(step: integer, prompt: string): string, string  positive and negative text
function M.words(sets)
  for side in pairs(sets) do
    if side ~= "positive" and side ~= "negative" then
      error(("control has no list %q%s"):format(tostring(side),
        nearest.hint(tostring(side), { "positive", "negative" })), 2)
    end
  end
  for _, side in ipairs { "positive", "negative" } do
    local list = sets[side]
    if type(list) ~= "table" or #list == 0 then
      error(("control.%s must be a non-empty list of words"):format(side), 2)
    end
    for i, word in ipairs(list) do
      if type(word) ~= "string" then
        error(("control.%s[%d] must be a string, not %s"):format(side, i, type(word)), 2)
      end
    end
  end
  return function(step, prompt)
    local pos, neg = sets.positive, sets.negative
    return M.join(pos[step % #pos + 1], prompt), M.join(neg[step % #neg + 1], prompt)
  end
end

--- The two lists of the released SRPO code.
M.released = {
  positive = { "Natural-lighting", "Detail", "Detailed", "Real" },
  negative = { "Concept art", "Painting", "Anime", "Flat", "Oil" },
}

--- The word lists of a YAML file: `positive: [...]` and `negative: [...]`.
---@param path string
function M.read(path)
  if core.file.exists(path) ~= "file" then error(("control: there is no file %q"):format(path), 0) end
  local ok, sets = pcall(core.yaml.decode, core.file.read(path))
  if not ok then error(("control: %s: %s"):format(path, tostring(sets)), 0) end
  if type(sets) ~= "table" then error(("control: %s must hold the lists positive and negative"):format(path), 0) end
  return sets
end

--- Learned tokens from a folder (recipes/control_tokens.lua makes them), to be used in place of words.
---@param folder string
---@return syz.ControlTokens
function M.tokens(folder)
  return require("syz.control_tokens").load(folder)
end

--- Fresh tokens to learn, which start at a pair of words: see syz.control_tokens.
---@param reward syz.ClipReward
---@param options { positive: string, negative: string, length: integer|nil }
---@return syz.ControlTokens
function M.learn(reward, options)
  return require("syz.control_tokens").new(reward, options)
end

--- Accepts word lists, the path of a YAML file with them, learned tokens, or a function (step, prompt) -> positive,
--- negative. Texts stay strings all the way: learned tokens have names ("<positive>"), which the reward resolves once
--- they are attached to it.
---@param control table|string|fun(step: integer, prompt: string): string, string
---@param reward table|nil   what learned tokens are attached to
function M.resolve(control, reward)
  if type(control) == "string" then control = M.read(control) end
  if type(control) == "table" and type(control.attach) == "function" then
    control:attach(reward)
    return function(_, prompt) return control:texts(prompt) end
  end
  if type(control) == "function" then
    return function(step, prompt)
      local pos, neg = control(step, prompt)
      if type(pos) ~= "string" or type(neg) ~= "string" then
        error("control(step, prompt) must return two strings, the positive and the negative text", 2)
      end
      return pos, neg
    end
  end
  if type(control) ~= "table" then
    error("control must be {positive = {...}, negative = {...}}, learned tokens, or a function (step, prompt)", 3)
  end
  return M.words(control)
end

return M
