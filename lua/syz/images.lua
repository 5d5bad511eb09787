--- Batches of images as one picture.

local core = require "syz.core"

local images = {}

---@class syz.Layout
---@field count integer
---@field columns integer
---@field width integer    of one cell, in pixels
---@field height integer
---@field gap integer      between cells, in pixels

--- How `count` images are arranged: near a square, a little wider than high.
---@param count integer
---@return integer columns
function images.columns(count)
  return math.max(1, math.ceil(math.sqrt(count)))
end

--- Lay a batch out as a grid; missing cells and gaps are white.
---@param batch syz.Tensor    [N,H,W,3] f32 in [0,1]
---@param columns integer|nil
---@param gap integer|nil     pixels
---@return syz.Tensor picture [rows*H + gaps, columns*W + gaps, 3]
---@return syz.Layout layout
function images.grid(batch, columns, gap)
  local count, height, width, channels = unpack(batch:shape())
  columns, gap = columns or images.columns(count), gap or 2
  local rows = math.ceil(count / columns)
  local missing = rows * columns - count
  if missing > 0 then
    batch = core.ops.concat({ batch, core.full({ missing, height, width, channels }, 1) }, 0)
  end
  local cells = rows * columns
  batch = core.ops.concat({ batch, core.full({ cells, height, gap, channels }, 1) }, 2)
  batch = core.ops.concat({ batch, core.full({ cells, gap, width + gap, channels }, 1) }, 1)
  local high, wide = height + gap, width + gap
  local picture = batch:reshape({ rows, columns, high, wide, channels }):permute({ 0, 2, 1, 3, 4 })
    :reshape({ rows * high, columns * wide, channels })
  picture = picture:slice(0, 0, rows * high - gap):slice(1, 0, columns * wide - gap)
  return picture, { count = count, columns = columns, width = width, height = height, gap = gap }
end

return images
