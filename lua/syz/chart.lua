--- A curve as inline SVG: axes with round numbers, the raw points, a smoothed line over long noisy ones, and vertical
--- marks at steps that matter.

local page = require "syz.report_page"
local text = require "syz.text"

local chart = {}

local wide, high = 340, 168
local left, right, top, bottom = 46, 12, 20, 24 -- words of marks stand above the plot

--- Round positions for about `count` ticks between two values.
---@param low number
---@param high_value number
---@param count integer
---@return number[]
function chart.ticks(low, high_value, count)
  local span = high_value - low
  if span <= 0 then return { low } end
  local rough = span / count
  local unit = 10 ^ math.floor(math.log10(rough))
  local step = unit
  for _, factor in ipairs { 1, 2, 2.5, 5, 10 } do
    step = unit * factor
    if step >= rough * 0.999 then break end
  end
  local ticks, k = {}, math.ceil(low / step - 1e-9)
  while k * step <= high_value + 1e-9 * span do
    ticks[#ticks + 1] = k * step
    k = k + 1
  end
  -- a span between two round numbers: halve the steps rather than show one lonely line
  if #ticks < 2 and count < 12 then return chart.ticks(low, high_value, count * 2) end
  return ticks
end

--- At most `limit` points, the last of each group kept, so that ends stay exact.
local function thin(points, limit)
  if #points <= limit then return points end
  local out, stride = { points[1] }, math.ceil(#points / limit)
  for i = 1 + stride, #points, stride do out[#out + 1] = points[i] end
  if out[#out] ~= points[#points] then out[#out + 1] = points[#points] end
  return out
end

-- Exponential moving average with its start corrected, over about a twentieth of the points.
local function smooth(points)
  local keep = 1 - 1 / math.max(2, #points / 20)
  local sum, weight, out = 0, 0, {}
  for i, point in ipairs(points) do
    sum, weight = keep * sum + (1 - keep) * point[2], keep * weight + 1 - keep
    out[i] = { point[1], sum / weight }
  end
  return out
end

local function bounds(points)
  local x0, x1, y0, y1 = points[1][1], points[1][1], points[1][2], points[1][2]
  for _, p in ipairs(points) do
    x0, x1, y0, y1 = math.min(x0, p[1]), math.max(x1, p[1]), math.min(y0, p[2]), math.max(y1, p[2])
  end
  local margin = (y1 - y0) * 0.06
  if y1 == y0 then margin = math.abs(y1) * 0.1 + 1e-9 end
  if x1 == x0 then x0, x1 = x0 - 1, x1 + 1 end
  return x0, x1, y0 - margin, y1 + margin
end

local function path_of(points, place)
  local parts = {}
  for i, p in ipairs(points) do parts[i] = ("%s%.1f %.1f"):format(i == 1 and "M" or "L", place(p[1], p[2])) end
  return table.concat(parts)
end

local function axes(x0, x1, y0, y1, place)
  local out = {}
  for _, y in ipairs(chart.ticks(y0, y1, 3)) do
    local _, at = place(x0, y)
    out[#out + 1] = ('<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>'
      .. '<text x="%d" y="%.1f" class="y">%s</text>')
      :format(left, wide - right, at, at, left - 6, at + 3.5, text.number(math.abs(y) < 1e-12 and 0 or y))
  end
  for _, x in ipairs(chart.ticks(x0, x1, 4)) do
    if x == math.floor(x) then
      local at = place(x, y0)
      out[#out + 1] = ('<text x="%.1f" y="%d" class="x">%s</text>'):format(at, high - 6, text.number(x))
    end
  end
  out[#out + 1] = ('<text x="%d" y="%d" class="y">step</text>'):format(left - 6, high - 6)
  return table.concat(out)
end

-- Vertical lines with a word beside each, on the side where there is room; a ring around the curve's own point.
local function draw_marks(marks, points, x0, x1, place)
  local out, taken = {}, nil
  for _, mark in ipairs(marks) do
    if mark.step >= x0 and mark.step <= x1 then
      local at = place(mark.step, points[1][2])
      local ending = at > left + (wide - left - right) / 2
      -- two words beside each other: the second one goes lower
      local y = taken and math.abs(taken - at) < 90 and top + 10 or top - 6
      taken = at
      out[#out + 1] = ('<g class="at %s"><title>%s</title><line x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>'
        .. '<text x="%.1f" y="%d" text-anchor="%s">%s</text>'):format(mark.class, page.escape(mark.title), at, at,
          top - 4, high - bottom, at + (ending and -4 or 4), y, ending and "end" or "start", page.escape(mark.label))
      for _, p in ipairs(mark.class == "kept" and #points <= 40 and points or {}) do
        if p[1] == mark.step then
          out[#out + 1] = ('<circle cx="%.1f" cy="%.1f" r="4.5"/>'):format(place(p[1], p[2]))
        end
      end
      out[#out + 1] = "</g>"
    end
  end
  return table.concat(out)
end

-- A horizontal line at a value that must not be passed, when it lies in sight.
local function draw_level(level, label, y0, y1, place)
  if not level or level < y0 or level > y1 then return "" end
  local _, at = place(0, level)
  return ('<g class="level"><line x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f">%s</text></g>'):format(
    left, wide - right, at, at, left + 4, at - 3, page.escape(label))
end

---@class syz.ChartMark
---@field step number
---@field label string
---@field class string   "kept" also gets a ring around the curve's point
---@field title string   what a pointer over it shows

--- The chart of one series.
---@param points number[][]   { step, value }, by step
---@param options { marks: syz.ChartMark[]|nil, level: number|nil, level_label: string|nil }|nil
---@return string svg
function chart.svg(points, options)
  options = options or {}
  local x0, x1, y0, y1 = bounds(points)
  local function place(x, y)
    return left + (x - x0) / (x1 - x0) * (wide - left - right), top + (y1 - y) / (y1 - y0) * (high - top - bottom)
  end
  local shown = thin(points, 500)
  local long = #points > 40
  local out = { ('<svg viewBox="0 0 %d %d" class="chart" role="img">'):format(wide, high),
                axes(x0, x1, y0, y1, place),
                draw_level(options.level, options.level_label or "", y0, y1, place) }
  out[#out + 1] = ('<path class="%s" d="%s"/>'):format(long and "raw" or "line", path_of(shown, place))
  if long then out[#out + 1] = ('<path class="line" d="%s"/>'):format(path_of(thin(smooth(points), 500), place)) end
  if #points <= 40 then
    for _, p in ipairs(points) do
      local px, py = place(p[1], p[2])
      out[#out + 1] = ('<circle class="dot" cx="%.1f" cy="%.1f" r="%s"/>'):format(px, py,
        #points <= 12 and "2.6" or "1.6")
    end
  end
  out[#out + 1] = draw_marks(options.marks or {}, points, x0, x1, place)
  local samples = {}
  for i, p in ipairs(shown) do
    local px, py = place(p[1], p[2])
    samples[i] = ("%.1f,%.1f,%s,%s"):format(px, py, text.number(p[1]), text.number(p[2]))
  end
  out[#out + 1] = ('<circle class="mark" r="3.5" data-points="%s"/></svg>'):format(table.concat(samples, ";"))
  return table.concat(out)
end

return chart
