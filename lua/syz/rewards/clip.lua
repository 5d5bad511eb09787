--- CLIP-like rewards: cosine between image and text features (HPSv2.1, PickScore, CLIP score, the emoji reward).
local core = require "syz.core"
local data = require "syz.data"

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
    core.no_grad(core.scope, function()
      local features = self.model:text_features((self.tokenizer:batch({ text }, self.length))):normalize(1e-12)
      self.cache[text] = features:keep()
    end)
  end
  local rows = {}
  for i, text in ipairs(texts) do rows[i] = self.cache[text] end
  return data.stack(rows)
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

--- Load a CLIPModel folder with its tokenizer.
---@param folder string
---@param options { scale: number|nil, logit_scale: boolean|nil }|nil  logit_scale = true uses exp(logit_scale)/20
---@return syz.ClipReward
function M.load(folder, options)
  options = options or {}
  local model = core.model.load(folder)
  model:requires_grad(false)
  local config = model:config()
  local self = setmetatable({
    model = model, config = config, tokenizer = core.tokenizer(folder), cache = {},
    length = config.text_config.max_position_embeddings, scale = options.scale or 1,
  }, Reward)
  if options.logit_scale then self.scale = math.exp(model:param("logit_scale"):item()) / 20 end
  return self
end

return M
