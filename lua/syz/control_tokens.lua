--- Learned control tokens: the pair of control words as embeddings of the reward's text tower, which training can move
--- until C1 - C2 separates the images it should (the paper names learnable tokens as future work).
--
-- Two learned tokens, "<positive>" and "<negative>", each n vectors long, start at the embeddings of a pair of words.
-- They live in the folder as learned_embeds.safetensors, in the layout of textual inversion (name -> [n,C]), beside a
-- config.json that tells which text tower they belong to.
local core = require "syz.core"
local control = require "syz.control"
local files = require "syz.files"
local learned = require "syz.learned_tokens"
local nn = require "syz.nn"

local M = {}

local POSITIVE, NEGATIVE = "<positive>", "<negative>"

---@class syz.ControlTokens
---@field module syz.Module      what training moves: parameters "<positive>" and "<negative>"
---@field words table<string, string>  the words they started from
---@field tower string           the hash of the token embeddings they belong to
local Tokens = {}
Tokens.__index = Tokens

local function hash_of(reward)
  return tostring(reward.model:param(learned.table_name):hash())
end

local function check_reward(reward, level)
  if type(reward) ~= "table" or type(reward.learn) ~= "function" or not reward.model then
    error("learned control tokens need a reward with a CLIP text tower (syz.reward.clip)", level + 1)
  end
end

-- The ids a token starts from: those of the words, again and again until there are `length`.
local function initial_ids(reward, words, length)
  local ids = reward.tokenizer:encode(words)
  if #ids == 0 then error(("control tokens cannot start from %q: it has no tokens"):format(words), 4) end
  local list = {}
  for k = 1, length or #ids do list[k] = ids[(k - 1) % #ids + 1] end
  return list
end

local function build(lengths, width)
  return nn.module({ { NEGATIVE, { lengths[NEGATIVE], width }, "zeros" },
                     { POSITIVE, { lengths[POSITIVE], width }, "zeros" } }, 0)
end

--- Tokens at their start, where they say what the words say.
---@param reward syz.ClipReward
---@param options { positive: string, negative: string, length: integer|nil }  length: vectors of each (the words')
---@return syz.ControlTokens
function M.new(reward, options)
  check_reward(reward, 2)
  for _, key in ipairs { "positive", "negative" } do
    if type(options[key]) ~= "string" then error(("control tokens need the words of %s"):format(key), 2) end
  end
  local length = options.length
  if length and (length < 1 or length ~= math.floor(length)) then
    error(("control tokens: length must be a whole number from 1, not %s"):format(tostring(length)), 2)
  end
  local ids = { [POSITIVE] = initial_ids(reward, options.positive, length),
                [NEGATIVE] = initial_ids(reward, options.negative, length) }
  local self = setmetatable({
    module = build({ [POSITIVE] = #ids[POSITIVE], [NEGATIVE] = #ids[NEGATIVE] }, reward.config.text_config.hidden_size),
    words = { positive = options.positive, negative = options.negative }, tower = hash_of(reward),
  }, Tokens)
  core.no_grad(core.scope, function()
    local vocabulary = reward.model:param(learned.table_name)
    for name, list in pairs(ids) do
      self.module:param(name):assign(vocabulary:embedding(core.tensor(list, { #list }, "i64")))
    end
  end)
  return self
end

--- The positive and the negative text for a prompt, with the tokens' names in them.
---@param prompt string
---@return string, string
function Tokens.texts(_, prompt)
  if prompt == "" then return POSITIVE, NEGATIVE end
  return control.join(POSITIVE, prompt), control.join(NEGATIVE, prompt)
end

--- Make a reward read the tokens' names. Again after training has moved them: what the reward has cached is forgotten.
---@param reward syz.ClipReward
---@return syz.ControlTokens self
function Tokens:attach(reward)
  check_reward(reward, 2)
  if hash_of(reward) ~= self.tower then
    error("these control tokens were learned in another text tower than this reward's: learn them with this reward "
      .. "(recipes/control_tokens.lua)", 2)
  end
  reward:learn(self.module.store)
  return self
end

--- SRP {B} of images with these unit features [B,P], each under its own prompt. Gradients reach the tokens.
---@param reward syz.ClipReward   one they are attached to
---@param features syz.Tensor
---@param prompts string[]
function Tokens:srp(reward, features, prompts)
  local positive, negative = {}, {}
  for i, prompt in ipairs(prompts) do positive[i], negative[i] = self:texts(prompt) end
  return (features * (reward:encode(positive) - reward:encode(negative))):sum({ 1 })
end

--- The same as a list of numbers, without gradients, for as many images as there are.
---@param reward syz.ClipReward
---@param features syz.Tensor
---@param prompts string[]
---@return number[]
function Tokens:scores(reward, features, prompts)
  local values = {}
  core.no_grad(function()
    for first = 1, #prompts, 64 do
      core.scope(function()
        local last, part = math.min(first + 63, #prompts), {}
        for i = first, last do part[#part + 1] = prompts[i] end
        for _, value in ipairs(self:srp(reward, features:slice(0, first - 1, last), part):totable()) do
          values[#values + 1] = value
        end
      end)
    end
  end)
  return values
end

--- Write the folder that syz.control.tokens loads.
---@param folder string
function Tokens:save(folder)
  core.file.mkdir(folder)
  core.safetensors.write(folder .. "/learned_embeds.safetensors", self.module.store, { format = "syzygy" })
  files.write_json(folder .. "/config.json", { _class_name = "ControlTokens", positive = POSITIVE, negative = NEGATIVE,
                                               words = self.words, text_tower = self.tower })
end

--- Read such a folder.
---@param folder string
---@return syz.ControlTokens
function M.load(folder)
  local path = folder .. "/config.json"
  local config = core.file.exists(path) == "file" and files.read_json(path)
  if not config or config._class_name ~= "ControlTokens" or type(config.text_tower) ~= "string" then
    error(("%s holds no control tokens (recipes/control_tokens.lua makes them)"):format(folder), 2)
  end
  return core.scope(function()
    path = folder .. "/learned_embeds.safetensors"
    local tensors = core.safetensors.read(path)
    local lengths = {}
    for _, name in ipairs { POSITIVE, NEGATIVE } do
      if not tensors[name] or tensors[name]:rank() ~= 2 then error(path .. ": there is no tensor " .. name, 0) end
      lengths[name] = tensors[name]:size(0)
    end
    local self = setmetatable({ module = build(lengths, tensors[POSITIVE]:size(1)), words = config.words or {},
                                tower = config.text_tower }, Tokens)
    for _, name in ipairs { POSITIVE, NEGATIVE } do self.module:param(name):assign(tensors[name]) end
    return self
  end)
end

return M
