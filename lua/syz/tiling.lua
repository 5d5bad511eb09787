--- Large images through the VAE in overlapping tiles, as diffusers' enable_tiling has it; gradients pass through.
--
-- Memory then goes with the tile's size, not the image's. Where tiles overlap, the later one fades in over the one
-- before it, first rows, then columns. A tile sees nothing beyond its border, so that the result differs a little from
-- that of the whole image. With vae:checkpointing(true) a tile keeps only its latents until its gradient is asked for.

local core = require "syz.core"
local fields = require "syz.fields"

local tiling = {}

---@class syz.Tiling
---@field sample integer    side of a tile in pixels
---@field latent integer    and in latents
---@field overlap number    part of the side that neighbours share

--- Check what a pipeline was given as `vae_tiling`.
---@param vae syz.Model
---@param options { size: integer|nil, overlap: number|nil }|true   size: pixels, the VAE's sample_size unless given
---@return syz.Tiling
function tiling.new(vae, options)
  if options == true then options = {} end
  fields.check("vae_tiling", options, { size = "integer", overlap = "number" })
  local config = vae:config()
  local factor, size = 2 ^ (#config.block_out_channels - 1), options.size or config.sample_size or 512
  local overlap = options.overlap or 0.25
  if size < factor or size % factor ~= 0 then
    error(("vae_tiling: size must be a multiple of %d, not %s"):format(factor, size), 0)
  end
  if not (overlap >= 0 and overlap < 1) then
    error(("vae_tiling: overlap must be at least 0 and below 1, not %s"):format(overlap), 0)
  end
  local latent = size / factor
  local step, kept = math.floor(latent * (1 - overlap)), latent - math.floor(latent * overlap)
  if step ~= kept or math.floor(size * (1 - overlap)) ~= kept * factor then
    error(("vae_tiling: an overlap of %s cuts tiles of %d pixels between latents, which stand for %d"):format(overlap,
      size, factor), 0)
  end
  return { sample = size, latent = latent, overlap = overlap }
end

-- b [N,H,W,C] with its first `extent` rows (dim 1) or columns (dim 2) faded in over the last ones of a.
local function blend(a, b, extent, dim)
  local last, size = a:size(dim), b:size(dim)
  extent = math.min(last, size, extent)
  if extent == 0 then return b end
  local ramp = {}
  for k = 1, extent do ramp[k] = (k - 1) / extent end
  ramp = core.tensor(ramp):reshape(dim == 1 and { extent, 1, 1 } or { extent, 1 })
  local seam = a:slice(dim, last - extent, last) * (1 - ramp) + b:slice(dim, 0, extent) * ramp
  return extent == size and seam or core.ops.concat({ seam, b:slice(dim, extent, size) }, dim)
end

-- Tiles of x of side `from`, run and put together; a tile's result has side `to`.
local function in_tiles(x, from, to, overlap, run)
  local height, width = x:size(1), x:size(2)
  local step, extent = math.floor(from * (1 - overlap)), math.floor(to * overlap)
  local kept, rows, above = to - extent, {}, {}
  for top = 0, height - 1, step do
    local row, cut = {}, {}
    for left = 0, width - 1, step do
      local tile = run(x:slice(1, top, math.min(top + from, height)):slice(2, left, math.min(left + from, width)))
      local j = #row + 1
      if above[j] then tile = blend(above[j], tile, extent, 1) end
      if row[j - 1] then tile = blend(row[j - 1], tile, extent, 2) end
      row[j] = tile
      cut[j] = tile:slice(1, 0, math.min(kept, tile:size(1))):slice(2, 0, math.min(kept, tile:size(2)))
    end
    rows[#rows + 1] = core.ops.concat(cut, 2)
    above = row
  end
  return core.ops.concat(rows, 1)
end

--- As vae:decode(z), [N,h,w,C] -> [N,H,W,3]; `tiles` nil or a z of one tile: at once.
---@param vae syz.Model
---@param z syz.Tensor
---@param tiles syz.Tiling|nil
---@return syz.Tensor
function tiling.decode(vae, z, tiles)
  if not tiles or (z:size(1) <= tiles.latent and z:size(2) <= tiles.latent) then return vae:decode(z):to("f32") end
  return in_tiles(z, tiles.latent, tiles.sample, tiles.overlap, function(tile)
    return vae:decode_tile(tile):to("f32")
  end)
end

--- As vae:encode(image), [N,H,W,3] -> moments [N,h,w,2C].
---@param vae syz.Model
---@param image syz.Tensor
---@param tiles syz.Tiling|nil
---@return syz.Tensor
function tiling.encode(vae, image, tiles)
  if not tiles or (image:size(1) <= tiles.sample and image:size(2) <= tiles.sample) then
    return vae:encode(image):to("f32")
  end
  return in_tiles(image, tiles.sample, tiles.latent, tiles.overlap, function(tile)
    return vae:encode_tile(tile):to("f32")
  end)
end

return tiling
