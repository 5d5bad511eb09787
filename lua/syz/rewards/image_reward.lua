--- ImageReward (Xu et al. 2023, arXiv 2304.05977): BLIP's image encoder, BERT that attends to the image, and a head.
--
--   s(image, text) = (head(BERT(text | ViT(image))[first token]) - mean) / deviation
--
-- Images are resized and cropped as ImageReward's own ReFL does it on tensors; texts are 35 tokens long, padded or cut.
-- An image is encoded once and scored under as many texts as are asked for: SRPO's relative reward needs two.
local core = require "syz.core"
local data = require "syz.data"
local device = require "syz.device"
local fields = require "syz.fields"
local files = require "syz.files"
local identity = require "syz.identity"
local message = require "syz.message"
local preprocess = require "syz.rewards.preprocess"
local text_reader = require "syz.texts"

local M = {}

---@class syz.ImageReward
---@field unmixable string   why there is no CFG form, for methods that ask for it
local Reward = {}
Reward.__index = Reward

local MEAN, DEVIATION, TOKENS = 0.16717362830052426, 1.0333394966054072, 35
local ADDED = 2 -- [DEC] and [ENC], which BLIP adds to BERT's vocabulary and no prompt contains

Reward.unmixable = "ImageReward reads text and image together and has no text feature to mix (paper eq. 10); "
  .. 'use form "difference" or "inversion"'

--- The images' states [B,1+P,C], for `pair`; gradients flow to the images.
---@param images syz.Tensor   [B,H,W,3] in [0, 1]
function Reward:image(images)
  return self.model:image_features(preprocess.apply("crop", images, self.size))
end

-- Ids and mask {B,TOKENS} of texts, cached by text.
function Reward:tokens(texts)
  local ids, masks = {}, {}
  for i, text in ipairs(texts) do
    local row = self.cache[text]
    if not row then
      local row_ids, used = self.tokenizer:batch({ text }, TOKENS)
      local mask = {}
      for k = 1, TOKENS do mask[k] = k <= used[1] and 1 or 0 end
      row = { ids = row_ids:keep(), mask = core.tensor(mask, { 1, TOKENS }, "i64"):keep() }
      self.cache[text] = row
    end
    ids[i], masks[i] = row.ids, row.mask
  end
  return data.stack(ids), data.stack(masks)
end

--- Scores {B} from the images' states and a text for each, or one text for all.
---@param states syz.Tensor
---@param texts string[]
function Reward:pair(states, texts)
  local count = states:size(0)
  if #texts ~= count and #texts ~= 1 then
    error(("ImageReward: %d images and %d texts: give a text for each image, or one"):format(count, #texts), 2)
  end
  local all = texts
  if #texts < count then
    all = {}
    for i = 1, count do all[i] = texts[1] end
  end
  local ids, mask = self:tokens(all)
  return (self.model:reward(states, ids, mask):to("f32") - MEAN) / DEVIATION
end

--- Scores {B} of images under one text each.
---@param images syz.Tensor  [B,H,W,3] in [0, 1]
---@param texts string[]
function Reward:score(images, texts)
  return self:pair(self:image(images), texts)
end

--- The semantic-relative preference (SRPO's eq. 8, 9): (1 + kappa) s(image, wanted) - s(image, unwanted). kappa is a
--- number or a tensor {B}.
function Reward:relative(images, wanted, unwanted, kappa)
  local states = self:image(images)
  return (1 + kappa) * self:pair(states, wanted) - self:pair(states, unwanted)
end

--- Move the model to a device, as of syz.reward.clip.
---@param where string
---@param precision "f32"|"bf16"|nil
function Reward:to(where, precision)
  device.move_model(self.model, where, precision)
  return self
end

function Reward:mixed()
  error(self.unmixable, 2)
end

-- ---- loading ----

local function is_file(path) return core.file.exists(path) == "file" end

local NAMES = { "ImageReward.pt", "ImageReward.safetensors" }

-- Whether a folder's config.json is of this class.
local function is_own(folder)
  local config = files.read_json(folder .. "/config.json")
  return config ~= nil and config._class_name == "ImageReward"
end

-- The weights file and the folder it lies in, or the folder alone when it holds a config.json of this class.
local function locate(path)
  local kind = core.file.exists(path)
  if not kind then error(("%s: no such file or folder"):format(path), 3) end
  if kind == "file" then return path, path:match("^(.*)/[^/]*$") or "." end
  if is_file(path .. "/model_index.json") then
    error(path .. " is a pipeline folder; ImageReward's holds ImageReward.pt and med_config.json", 3)
  end
  for _, name in ipairs(NAMES) do
    if is_file(path .. "/" .. name) then return path .. "/" .. name, path end
  end
  if is_own(path) then return nil, path end
  error(("%s holds no ImageReward.pt: name the file, or the folder it lies in"):format(path), 3)
end

-- BERT's configuration as published, if there is one, as this model's. Without, the weights' shapes tell.
local function configuration(folder, given)
  local path = given or folder .. "/med_config.json"
  if not is_file(path) then
    if given then error(path .. ": no such file (med_config)", 0) end
    return nil
  end
  local config = files.need_json(path)
  if not config.hidden_size then
    error(path .. ": no configuration of BERT: it has no \"hidden_size\"", 0)
  end
  config._class_name = "ImageReward"
  return config, path
end

local function load_model(weights, folder, med_config)
  if not weights then
    identity.note("reward", folder)
    return core.model.load_stored(folder)
  end
  local config, path = configuration(folder, med_config)
  identity.note("reward", weights)
  if path then identity.note("reward", path) end
  local ok, model = pcall(core.model.load_stored, weights, config)
  if not ok then
    -- a function: in a text, gsub would read the path's % as its own
    error((message.of(model):gsub("^configuration: ", function() return (path or "") .. ": " end)), 0)
  end
  if model:class() ~= "ImageReward" then
    error(("%s holds a %s, not an ImageReward"):format(weights, model:class()), 0)
  end
  return model
end

-- The tokenizer that was named, or lies beside the weights, or comes with the program.
local function open_tokenizer(folder, given, vocabulary)
  local beside = is_file(folder .. "/vocab.txt") or is_file(folder .. "/tokenizer.json")
  local where = given or beside and folder or text_reader.bundled("bert")
  local tokenizer = text_reader.open(where, vocabulary, "ImageReward's text encoder")
  local size = tokenizer:size()
  if size ~= vocabulary and size ~= vocabulary - ADDED then
    error(("%s: the tokenizer has %d tokens and ImageReward's text encoder %d: they do not belong together (BERT's "
      .. "uncased vocabulary has %d, without [DEC] and [ENC])"):format(where, size, vocabulary, vocabulary - ADDED), 0)
  end
  return tokenizer
end

--- Load ImageReward from the published files, ImageReward.pt and med_config.json, or from a folder that `syz` wrote.
--- The weights stay as they are stored, and frozen.
---@param path string      the file, or the folder it lies in
---@param options { med_config: string|nil, tokenizer: string|nil, checkpointing: boolean|nil }|nil  med_config: the
---  file, when it does not lie beside the weights; tokenizer: a folder with BERT's vocabulary; checkpointing: recompute
---  blocks in the backward pass, for less memory
---@return syz.ImageReward
function M.load(path, options)
  options = options or {}
  fields.check("syz.reward.image_reward", options, { med_config = "string", tokenizer = "string",
    checkpointing = "boolean" })
  if type(path) ~= "string" then
    error("syz.reward.image_reward needs the name of a file or folder, not a " .. type(path), 2)
  end
  local weights, folder = locate(path)
  local model = load_model(weights, folder, options.med_config)
  model:requires_grad(false):checkpointing(options.checkpointing or false)
  local config = model:config()
  return setmetatable({
    model = model, config = config, cache = {}, size = (config.vision_config or {}).image_size or 224,
    tokenizer = open_tokenizer(folder, options.tokenizer, config.vocab_size or 30524),
  }, Reward)
end

return M
