--- What each reward's vision tower is shown: resize, crop or pad, normalise, all of it differentiable.
--
-- Rewards compute on float tensors, so that gradients reach the pixels: the reference is torch 2.13's
-- interpolate(antialias=True) as torchvision 0.28 calls it on tensors, unclamped between resize and normalisation.
-- Official scorers that start from a file resize in 8 bits with Pillow, which rounds and clamps: a difference of up to
-- one level (1/255) inside the image and of more where the cubic filter overshoots; docs/rewards.md has the figures.
--
--   crop       torchvision's Resize(size) and CenterCrop(size): SRPO's training, open_clip's own transform
--   processor  transformers' CLIPImageProcessor: another rounding of the crop's corner
--   pad        hpsv2 1.2.0's ResizeMaxSize: the longer side becomes `size`, black bars fill the rest
--   siglip     transformers' SiglipImageProcessor: both sides become `size`, whatever the proportions
local core = require "syz.core"

local M = {}

---@class syz.Preprocess
---@field fit "shorter"|"longer"|"both"   which side becomes `size`
---@field corner "even"|"down"|nil        rounding of the crop's corner: Python's round(), or int()
---@field mean number[]
---@field std number[]

local CLIP_MEAN = { 0.48145466, 0.4578275, 0.40821073 }
local CLIP_STD = { 0.26862954, 0.26130258, 0.27577711 }
local HALF = { 0.5, 0.5, 0.5 }

---@type table<string, syz.Preprocess>
M.kinds = {
  crop = { fit = "shorter", corner = "even", mean = CLIP_MEAN, std = CLIP_STD },
  processor = { fit = "shorter", corner = "down", mean = CLIP_MEAN, std = CLIP_STD },
  pad = { fit = "longer", mean = CLIP_MEAN, std = CLIP_STD },
  siglip = { fit = "both", mean = HALF, std = HALF },
}

local BICUBIC = 1

-- Python's round(): halves go to the even neighbour.
local function round_even(x)
  local low = math.floor(x)
  if x - low ~= 0.5 then return math.floor(x + 0.5) end
  return low % 2 == 0 and low or low + 1
end

local function resized(fit, h, w, size)
  if fit == "both" then return size, size end
  if fit == "longer" then
    local scale = size / math.max(h, w)
    return math.max(1, round_even(h * scale)), math.max(1, round_even(w * scale))
  end
  if w <= h then return math.floor(size * h / w), size end
  return size, math.floor(size * w / h)
end

local function crop(images, dim, size, corner)
  local spare = images:size(dim) - size
  if spare <= 0 then return images end
  local first = corner == "even" and round_even(spare / 2) or math.floor(spare / 2)
  return images:slice(dim, first, first + size)
end

local function pad(images, dim, size)
  local spare = size - images:size(dim)
  if spare <= 0 then return images end
  local function bar(length)
    local shape = images:shape()
    shape[dim + 1] = length
    return core.zeros(shape):to(images:device())
  end
  local before = math.floor(spare / 2)
  local parts = { images, bar(spare - before) }
  if before > 0 then table.insert(parts, 1, bar(before)) end
  return core.ops.concat(parts, dim)
end

--- Images [N,H,W,3] in [0, 1] as a tower that reads [N,size,size,3] wants them.
---@param kind string|syz.Preprocess   a name of M.kinds, or a table like those
---@param images syz.Tensor
---@param size integer
function M.apply(kind, images, size)
  local spec = type(kind) == "table" and kind or M.kinds[kind]
  local h, w = images:size(1), images:size(2)
  local height, width = resized(spec.fit, h, w, size)
  if height ~= h or width ~= w then images = images:resize(height, width, BICUBIC, true) end
  for dim = 1, 2 do
    images = spec.fit == "longer" and pad(images, dim, size) or crop(images, dim, size, spec.corner)
  end
  local where = images:device()
  return (images - core.tensor(spec.mean):to(where)) / core.tensor(spec.std):to(where)
end

return M
