--- CLIP-like rewards: cosine between image and text features (HPSv2.1, PickScore, CLIP score, the emoji reward).
local core = require "syz.core"
local data = require "syz.data"
local device = require "syz.device"
local fields = require "syz.fields"
local identity = require "syz.identity"
local learned = require "syz.learned_tokens"
local precision = require "syz.precision"
local preprocess = require "syz.rewards.preprocess"
local text_reader = require "syz.texts"

local M = {}

---@class syz.ClipReward
---@field scale number       factor on the cosine: 1 for HPSv2.1; exp(logit_scale)/20 for CLIP and PickScore in SRPO
---@field preprocess string  a name of syz.rewards.preprocess
local Reward = {}
Reward.__index = Reward

--- What the vision tower expects of images [N,H,W,3] in [0, 1]: preprocessing "crop" at the tower's size.
---@param images syz.Tensor
---@param config table  the CLIPModel configuration
function M.normalize(images, config)
  return preprocess.apply("crop", images, M.image_size(config))
end

--- Unit text features [B,P], without gradient, cached by text.
---@param texts string[]
function Reward:text(texts)
  local missing, seen = {}, {}
  for _, text in ipairs(texts) do
    if not self.cache[text] and not seen[text] then missing[#missing + 1], seen[text] = text, true end
  end
  -- one at a time, so that a text's features do not depend on its company (resumed runs are exact)
  for _, text in ipairs(missing) do
    precision.exact(core.no_grad, core.scope, function()
      self.cache[text] = self:encode({ text }):keep()
    end)
  end
  local rows = {}
  for i, text in ipairs(texts) do rows[i] = self.cache[text] end
  return data.stack(rows)
end

--- Unit text features [B,P], computed anew; gradients flow to the text tower, and to learned tokens where they occur.
---@param texts string[]
function Reward:encode(texts)
  local features
  if self.learned and next(self.learned) then
    features = self.model:text_features_from_embeddings(learned.embed(self, texts, self.learned))
  else
    features = self.model:text_features((self.tokenizer:batch(texts, self.length)))
  end
  return features:to("f32"):normalize(1e-12)
end

--- From now on these names in a text stand for learned tokens (control tokens; textual inversion).
---@param embeddings table<string, syz.Tensor>   "<name>" -> [n, width of the text tower]
function Reward:learn(embeddings)
  self.learned = self.learned or {}
  for name, tensor in pairs(embeddings) do
    learned.check(self, name, tensor)
    self.learned[name] = tensor
    for text in pairs(self.cache) do
      if text:find(name, 1, true) then self.cache[text] = nil end
    end
  end
end

--- Unit image features [B,P]; gradients flow to the images.
function Reward:image(images)
  local pixels = preprocess.apply(self.preprocess, images, M.image_size(self.config))
  return self.model:image_features(pixels):to("f32"):normalize(1e-12)
end

--- Scores {B} of images under one text each.
---@param images syz.Tensor  [B,H,W,3] in [0, 1]
---@param texts string[]
function Reward:score(images, texts)
  return self:pair(self:image(images), texts)
end

function Reward:pair(image_features, texts)
  return (image_features * self:text(texts)):sum({ 1 }) * self.scale
end

--- The semantic-relative preference (paper eq. 8, 9; with kappa as the released code has it):
--- (1 + kappa) s(image, wanted) - s(image, unwanted). kappa is a number or a tensor {B}.
function Reward:relative(images, wanted, unwanted, kappa)
  local features = self:image(images)
  return (1 + kappa) * self:pair(features, wanted) - self:pair(features, unwanted)
end

--- The CFG form (paper eq. 10): s under the mixed text feature (1 - k) C2 + k C1.
function Reward:mixed(images, wanted, unwanted, k)
  local features = self:image(images)
  return k * self:pair(features, wanted) + (1 - k) * self:pair(features, unwanted)
end

--- Move the model to a device; on a GPU it computes in bf16 where its weights are of half precision or `dtype` says so.
---@param where string
---@param dtype "f32"|"bf16"|nil
function Reward:to(where, dtype)
  device.move_model(self.model, where, dtype)
  self.cache = {} -- features of texts lie where they were made
  for name, tensor in pairs(self.learned or {}) do self.learned[name] = tensor:to(where):keep() end
  return self
end

--- Write the model into another folder, with the tokenizer and whatever else lay beside it, so that M.load reads it.
---@param folder string
function Reward:save(folder)
  if core.file.exists(folder) and core.file.real(folder) == core.file.real(self.folder) then
    error(("%s is the folder this reward was loaded from: save it elsewhere"):format(folder), 2)
  end
  core.file.mkdir(folder)
  local beside = core.file.exists(self.folder) == "folder" and core.file.list(self.folder) or {}
  for _, name in ipairs(beside) do
    local weights = name:match("%.safetensors$") or name:match("%.bin$") or name:match("%.index%.json$")
    if not weights and core.file.exists(self.folder .. "/" .. name) == "file" then
      core.file.write(folder .. "/" .. name, core.file.read(self.folder .. "/" .. name))
    end
  end
  self.model:save(folder)
end

-- ---- opening ----

-- What transformers takes where a configuration is silent.
local function default(config, tower, key, value)
  local fields_ = config[tower] or {}
  return fields_[key] or value
end

--- The side of the square images that a CLIPModel reads.
---@param config table
function M.image_size(config) return default(config, "vision_config", "image_size", 224) end

local SCALES = { "cosine", "logit", "srpo" }

local function scale_of(owner, value, model, level)
  if type(value) == "number" then return value end
  fields.choice(owner, "scale", value, SCALES, level + 1)
  if value == "cosine" then return 1 end
  local factor = math.exp(model:param("logit_scale"):to("f32"):item())
  return value == "srpo" and factor / 20 or factor
end

local function has_tokenizer(folder)
  return core.file.exists(folder .. "/vocab.json") == "file" or core.file.exists(folder .. "/tokenizer.json") == "file"
end

-- A tokenizer's folder that was named, or the reward's own, or else CLIP's vocabulary as it comes with the program.
local function open_tokenizer(path, options, config, reading)
  local vocabulary, reader = default(config, "text_config", "vocab_size", 49408), "the reward's text tower"
  local folder = options.tokenizer or has_tokenizer(path) and path or text_reader.bundled("clip")
  return text_reader.open(folder, vocabulary, reader, reading)
end

-- Weights of a published size do not tell gelu from quick_gelu: load again with the one that is wanted.
local function with_activation(load, path, wanted, owner, level)
  local model = load(path)
  if wanted == nil or model:class() ~= "CLIPModel" then return model end
  fields.choice(owner, "activation", wanted, { "gelu", "quick_gelu" }, level + 1)
  local config, changed = model:config(), false
  for _, tower in ipairs { "text_config", "vision_config" } do
    config[tower] = config[tower] or {}
    changed = changed or default(config, tower, "hidden_act", "quick_gelu") ~= wanted
    config[tower].hidden_act = wanted
  end
  return changed and load(path, config) or model
end

local function check_path(owner, path, folder_only, level)
  level = level + 1
  if type(path) ~= "string" then
    error(("%s needs the name of a folder%s, not a %s"):format(owner, folder_only and "" or " or weights file",
      type(path)), level)
  end
  local kind = core.file.exists(path)
  if kind ~= "folder" and (folder_only or kind ~= "file") then
    error(("%s: %s; a reward's folder%s is needed"):format(path, kind and "a file" or
      folder_only and "no such folder" or "no such folder or file", folder_only and "" or " or weights file"), level)
  end
  if core.file.exists(path .. "/model_index.json") then
    error(path .. " is a pipeline folder; a reward's folder holds a CLIPModel", level)
  end
end

--- Fields that every CLIP-like reward takes.
M.fields = {
  scale = "number|string",   -- a factor on the cosine, or "cosine" (1), "logit" (exp(logit_scale)), "srpo" (that / 20)
  preprocess = "string",     -- a name of syz.rewards.preprocess
  activation = "string",     -- "gelu" or "quick_gelu", for weights files whose sizes do not tell
  tokenizer = "string",      -- a folder; else the reward's own, or the one that comes with the program
  checkpointing = "boolean", -- recompute each layer in the backward pass: less memory, about a third more time
}

--- Open a CLIPModel, in a folder or a weights file, as a reward: what hps, pickscore and clip_score share. The weights
--- stay as they are stored, and frozen.
---@param owner string       for messages: "syz.reward.hps"
---@param path string
---@param options table|nil  of M.fields
---@param defaults { scale: string|number, preprocess: string[], reading: string|nil }   of the preprocessings the first
---  is the default; reading: of the tokenizer, as syz.texts has it
---@return syz.ClipReward
function M.open(owner, path, options, defaults)
  options = options or {}
  fields.check(owner, options, M.fields, 3)
  check_path(owner, path, false, 3)
  local model = with_activation(core.model.load_stored, path, options.activation, owner, 3)
  local reward = M.new(owner, model, path, options, defaults, 3)
  return reward -- no tail call: errors count the levels up to the recipe
end

--- A reward of a loaded model.
function M.new(owner, model, path, options, defaults, level)
  level = level + 1
  if model:class() ~= "CLIPModel" then
    error(("%s holds a %s; %s is a CLIPModel"):format(path, model:class(),
      owner == "syz.reward.clip" and "a reward" or owner), level)
  end
  model:requires_grad(false)
  if options.checkpointing then model:checkpointing(true) end
  local config, kind = model:config(), options.preprocess or defaults.preprocess[1]
  fields.choice(owner, "preprocess", kind, defaults.preprocess, level)
  local self = setmetatable({
    model = model, config = config, folder = path, cache = {}, preprocess = kind,
    tokenizer = open_tokenizer(path, options, config, defaults.reading),
    length = default(config, "text_config", "max_position_embeddings", 77),
    scale = scale_of(owner, options.scale or defaults.scale, model, level),
  }, Reward)
  identity.note("reward", path)
  return self
end

--- Load a CLIPModel folder with its tokenizer, as f32 that can be trained.
---@param folder string
---@param options { scale: number|string|nil, logit_scale: boolean|nil, preprocess: string|nil }|nil
---  logit_scale = true is scale = "srpo"
---@return syz.ClipReward
function M.load(folder, options)
  options = options or {}
  local known = { logit_scale = "boolean" }
  for name, kinds in pairs(M.fields) do known[name] = kinds end
  fields.check("syz.reward.clip", options, known)
  check_path("syz.reward.clip", folder, true, 2)
  local model = with_activation(core.model.load, folder, options.activation, "syz.reward.clip", 2)
  local defaults = { scale = options.logit_scale and "srpo" or 1, preprocess = { "crop", "pad", "processor" } }
  local reward = M.new("syz.reward.clip", model, folder, options, defaults, 2)
  return reward
end

return M
