--- Batches of images as one picture.

local core = require "syz.core"
local data = require "syz.data"

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

-- On the CPU, where pictures come from and go to.
local function white(shape) return core.full(shape, 1):to("cpu") end

--- Lay a batch out as a grid; missing cells and gaps are white.
---@param batch syz.Tensor    [N,H,W,3] f32 in [0,1]
---@param columns integer|nil
---@param gap integer|nil     pixels
---@return syz.Tensor picture [rows*H + gaps, columns*W + gaps, 3]
---@return syz.Layout layout
function images.grid(batch, columns, gap)
  batch = batch:to("cpu")
  local count, height, width, channels = unpack(batch:shape())
  columns, gap = columns or images.columns(count), gap or 2
  local rows = math.ceil(count / columns)
  local missing = rows * columns - count
  if missing > 0 then
    batch = core.ops.concat({ batch, white { missing, height, width, channels } }, 0)
  end
  local cells = rows * columns
  batch = core.ops.concat({ batch, white { cells, height, gap, channels } }, 2)
  batch = core.ops.concat({ batch, white { cells, gap, width + gap, channels } }, 1)
  local high, wide = height + gap, width + gap
  local picture = batch:reshape({ rows, columns, high, wide, channels }):permute({ 0, 2, 1, 3, 4 })
    :reshape({ rows * high, columns * wide, channels })
  picture = picture:slice(0, 0, rows * high - gap):slice(1, 0, columns * wide - gap)
  return picture, { count = count, columns = columns, width = width, height = height, gap = gap }
end

-- The cells of a picture that `grid` made: a list of [1,H,W,3] in [0,1], at most `most`.
local function cells(picture, layout, most)
  local list = {}
  for i = 0, math.min(layout.count, most) - 1 do
    local x = i % layout.columns * (layout.width + layout.gap)
    local y = math.floor(i / layout.columns) * (layout.height + layout.gap)
    local cell = picture:slice(0, y, y + layout.height):slice(1, x, x + layout.width)
    list[i + 1] = cell:reshape({ 1, layout.height, layout.width, 3 }):to("f32") / 255
  end
  return list
end

--- Two grids of the same prompts as one picture: rows of the first, each with the row of the second below it.
---@param before { picture: syz.Tensor, layout: syz.Layout }
---@param after { picture: syz.Tensor, layout: syz.Layout }
---@param columns integer|nil  12 unless given
---@return syz.Tensor picture  f32 in [0,1]
function images.compare(before, after, columns)
  columns = columns or 12
  local count = math.min(before.layout.count, after.layout.count)
  count = count > columns and count - count % columns or count
  local first, second = cells(before.picture, before.layout, count), cells(after.picture, after.layout, count)
  columns = math.min(columns, count)
  local order = {}
  for start = 0, count - 1, columns do
    for k = 1, columns do order[#order + 1] = first[start + k] end
    for k = 1, columns do order[#order + 1] = second[start + k] end
  end
  return (images.grid(data.stack(order), columns))
end

return images
