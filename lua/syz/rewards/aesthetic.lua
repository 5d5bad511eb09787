--- Aesthetic predictors: a small head on the unit image features of a large vision tower. They read no text.
--
--   score = head(f / |f|)                                  about 1 to 10
--
-- Aesthetic Predictor V2.5 (aesthetic_predictor_v2_5.pth) stands on the pooled output of SigLIP so400m
-- (google/siglip-so400m-patch14-384); LAION's heads (sac+logos+ava1-l14-linearMSE.pth, ava+logos-l14-reluMSE.pth, and
-- the older sa_0_4_vit_l_14_linear.pth) on the image features of OpenAI's CLIP ViT-L/14. Names and shapes of the file
-- tell which one it is.
local core = require "syz.core"
local device = require "syz.device"
local fields = require "syz.fields"
local identity = require "syz.identity"
local preprocess = require "syz.rewards.preprocess"

local M = {}

---@class syz.AestheticReward
---@field kind string        "v2.5", "laion" or "laion linear"
---@field tower syz.Model    SigLIP or CLIP
---@field layers { weight: syz.Tensor, bias: syz.Tensor }[]
---@field relu boolean       between the layers
local Reward = {}
Reward.__index = Reward

local SIGLIP = { SiglipModel = true, SiglipVisionModel = true }
local CLIP = { CLIPModel = true, CLIPVisionModelWithProjection = true }

-- Heads as published: where their layers lie in the file (what lies between has no weights, but where a third place is
-- skipped it is a ReLU).
local HEADS = {
  { kind = "v2.5", prefix = "scoring_head.", places = { 0, 2, 4, 6, 8 }, towers = SIGLIP, tower = "SigLIP so400m" },
  { kind = "laion", prefix = "layers.", places = { 0, 2, 4, 6, 7 }, towers = CLIP, tower = "OpenAI's CLIP ViT-L/14" },
  { kind = "laion", prefix = "layers.", places = { 0, 3, 6, 9, 11 }, towers = CLIP, tower = "OpenAI's CLIP ViT-L/14",
    relu = true },
  { kind = "laion linear", towers = CLIP, tower = "OpenAI's CLIP ViT-L/14" },
}

-- ---- the head ----

local function layer_names(head)
  local names = {}
  for i, place in ipairs(head.places or { "" }) do names[i] = head.prefix and head.prefix .. place .. "." or "" end
  return names
end

-- Whether a file holds just the tensors of this head.
local function matches(head, tensors)
  local wanted = {}
  for _, name in ipairs(layer_names(head)) do wanted[name .. "weight"], wanted[name .. "bias"] = true, true end
  for name in pairs(tensors) do
    if not wanted[name] then return false end
    wanted[name] = nil
  end
  return next(wanted) == nil
end

local function recognise(path, tensors)
  for _, head in ipairs(HEADS) do
    if matches(head, tensors) then return head end
  end
  local names = fields.names(tensors)
  local found = names[1] and ("%q and %d more tensors are"):format(names[1], #names - 1) or "an empty file is"
  error(("%s: %s no aesthetic head known here (Aesthetic Predictor V2.5, LAION's of five layers or of one)"):format(
    path, found), 0)
end

local function text_of(shape) return "[" .. table.concat(shape, ",") .. "]" end

-- The layers as f32, each fitting the one before it: from `width` features to one number.
local function read_layers(path, head, tensors, width, tower)
  local layers = {}
  for i, name in ipairs(layer_names(head)) do
    local weight, bias = tensors[name .. "weight"], tensors[name .. "bias"]
    local shape, outputs = weight:shape(), bias:shape()
    local last = i == #(head.places or { "" })
    if #shape ~= 2 or shape[2] ~= width or #outputs ~= 1 or outputs[1] ~= shape[1] or (last and shape[1] ~= 1) then
      error(("%s: %q has shape %s, %s needed%s"):format(path, name .. "weight", text_of(shape),
        last and ("[1,%d] is"):format(width) or ("%d columns are"):format(width),
        i == 1 and (" (the features of %s)"):format(tower) or ""), 0)
    end
    layers[i] = { weight = device.here(weight:to("f32"):copy()):keep(),
                  bias = device.here(bias:to("f32"):copy()):keep() }
    width = shape[1]
  end
  return layers
end

-- ---- scoring ----

--- Unit image features [B,P]; gradients flow to the images.
---@param images syz.Tensor  [B,H,W,3] in [0, 1]
function Reward:image(images)
  local pixels = preprocess.apply(self.preprocess, images, self.size)
  local features
  if self.preprocess == "siglip" then
    local _, pooled = self.tower:forward(pixels)
    features = pooled
  else
    features = self.tower:image_features(pixels)
  end
  return features:to("f32"):normalize(1e-12)
end

--- Scores {B}; texts are not read.
---@param images syz.Tensor
function Reward:score(images)
  local x = self:image(images)
  for i, layer in ipairs(self.layers) do
    x = x:linear(layer.weight, layer.bias)
    if self.relu and i < #self.layers then x = x:relu() end
  end
  return x:reshape({ images:size(0) })
end

--- Move tower and head to a device, as of syz.reward.clip; the head stays f32.
---@param where string
---@param precision "f32"|"bf16"|nil
function Reward:to(where, precision)
  device.move_model(self.tower, where, precision)
  for _, layer in ipairs(self.layers) do
    layer.weight, layer.bias = layer.weight:to(where):keep(), layer.bias:to(where):keep()
  end
  return self
end

local function refuse()
  error("an aesthetic predictor reads no text, so control words mean nothing to it: use its score (refl, draft, grpo), "
    .. "or srpo with a reward that reads text", 3)
end

function Reward.relative() refuse() end
function Reward.mixed() refuse() end

-- ---- opening ----

local function check_paths(head, tower)
  for _, given in ipairs { { "head", head }, { "tower", tower } } do
    if type(given[2]) ~= "string" then
      error(("syz.reward.aesthetic needs the name of its %s, not a %s"):format(given[1], type(given[2])), 3)
    end
    if not core.file.exists(given[2]) then error(given[2] .. ": no such file or folder", 3) end
  end
  if core.file.exists(head) == "folder" then
    error(head .. ": a folder; the head's file is needed, such as aesthetic_predictor_v2_5.pth", 3)
  end
end

local function features_of(tower)
  local class, config = tower:class(), tower:config()
  if SIGLIP[class] then
    local vision = class == "SiglipModel" and (config.vision_config or {}) or config
    return vision.hidden_size or 768, vision.image_size or 224
  end
  local vision = class == "CLIPModel" and (config.vision_config or {}) or config
  return config.projection_dim or 512, vision.image_size or 224
end

--- Load a head and the tower it stands on. The tower's weights stay as they are stored, and frozen.
---@param head string    the head's file (.pth or .safetensors)
---@param tower string   the tower's folder
---@param options { checkpointing: boolean|nil }|nil
---@return syz.AestheticReward
function M.load(head, tower, options)
  options = options or {}
  fields.check("syz.reward.aesthetic", options, { checkpointing = "boolean" })
  check_paths(head, tower)
  local model = core.model.load_stored(tower)
  return core.scope(function()
    local tensors = core.safetensors.read(head)
    local known = recognise(head, tensors)
    if not known.towers[model:class()] then
      error(("%s stands on %s, and %s holds a %s"):format(head, known.tower, tower, model:class()), 0)
    end
    local width, size = features_of(model)
    model:requires_grad(false)
    if options.checkpointing then model:checkpointing(true) end
    local self = setmetatable({
      kind = known.kind, relu = known.relu or false, tower = model, size = size, folder = head,
      preprocess = known.towers == SIGLIP and "siglip" or "crop",
      layers = read_layers(head, known, tensors, width, tower),
    }, Reward)
    identity.note("reward", head)
    identity.note("reward", tower)
    return self
  end)
end

return M
