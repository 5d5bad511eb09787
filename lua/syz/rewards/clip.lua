--- CLIP-like rewards: cosine between image and text features (HPSv2.1, PickScore, CLIP score, the emoji reward).
local core = require "syz.core"
local data = require "syz.data"
local fields = require "syz.fields"
local identity = require "syz.identity"
local learned = require "syz.learned_tokens"
local precision = require "syz.precision"
local text_reader = require "syz.texts"

local M = {}

---@class syz.ClipReward
---@field scale number  factor on the cosine: 1 for HPSv2.1; exp(logit_scale)/20 for CLIP and PickScore in SRPO
local Reward = {}
Reward.__index = Reward

local CLIP_MEAN = { 0.48145466, 0.4578275, 0.40821073 }
local CLIP_STD = { 0.26862954, 0.26130258, 0.27577711 }

--- What the vision tower expects of images [N,H,W,3] in [0, 1]: bicubic resize of the shorter side (antialiased, as
--- torchvision does it), centre crop, CLIP's mean and standard deviation.
---@param images syz.Tensor
---@param config table  the CLIPModel configuration
function M.normalize(images, config)
  local size = config.vision_config.image_size
  local h, w = images:size(1), images:size(2)
  if h ~= size or w ~= size then
    local short = math.min(h, w)
    local height, width = math.floor(h * size / short + 0.5), math.floor(w * size / short + 0.5)
    images = images:resize(height, width, 1, true)
    local top, left = math.floor((height - size) / 2), math.floor((width - size) / 2)
    if height ~= size then images = images:slice(1, top, top + size) end
    if width ~= size then images = images:slice(2, left, left + size) end
  end
  return (images - core.tensor(CLIP_MEAN)) / core.tensor(CLIP_STD)
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
  return features:normalize(1e-12)
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
  return self.model:image_features(M.normalize(images, self.config)):normalize(1e-12)
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

--- Write the model into another folder, with the tokenizer and whatever else lay beside it, so that M.load reads it.
---@param folder string
function Reward:save(folder)
  if core.file.exists(folder) and core.file.real(folder) == core.file.real(self.folder) then
    error(("%s is the folder this reward was loaded from: save it elsewhere"):format(folder), 2)
  end
  core.file.mkdir(folder)
  for _, name in ipairs(core.file.list(self.folder)) do
    local weights = name:match("%.safetensors$") or name:match("%.bin$") or name:match("%.index%.json$")
    if not weights and core.file.exists(self.folder .. "/" .. name) == "file" then
      core.file.write(folder .. "/" .. name, core.file.read(self.folder .. "/" .. name))
    end
  end
  self.model:save(folder)
end

--- Load a CLIPModel folder with its tokenizer.
---@param folder string
---@param options { scale: number|nil, logit_scale: boolean|nil }|nil  logit_scale = true uses exp(logit_scale)/20
---@return syz.ClipReward
function M.load(folder, options)
  options = options or {}
  fields.check("syz.reward.clip", options, { scale = "number", logit_scale = "boolean" })
  if type(folder) ~= "string" then error("syz.reward.clip needs the name of a folder, not a " .. type(folder), 2) end
  if core.file.exists(folder) ~= "folder" then
    error(("%s: %s; a reward's folder is needed"):format(folder, core.file.exists(folder) and "a file"
      or "no such folder"), 2)
  end
  if core.file.exists(folder .. "/model_index.json") then
    error(folder .. " is a pipeline folder; a reward's folder holds a CLIPModel", 2)
  end
  local model = core.model.load(folder)
  if model:class() ~= "CLIPModel" then
    error(("%s holds a %s; a reward is a CLIPModel"):format(folder, model:class()), 2)
  end
  model:requires_grad(false)
  local config = model:config()
  local self = setmetatable({
    model = model, config = config, folder = folder, cache = {},
    tokenizer = text_reader.open(folder, config.text_config.vocab_size, "the reward's text tower"),
    length = config.text_config.max_position_embeddings, scale = options.scale or 1,
  }, Reward)
  identity.note("reward", folder)
  if options.logit_scale then self.scale = math.exp(model:param("logit_scale"):item()) / 20 end
  return self
end

return M
