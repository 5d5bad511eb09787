--- Charts of a comparison, as SVG that stands alone: means with their standard errors side by side, and curves of
--- several variants in one frame.
local chart = require "syz.chart"
local page = require "syz.report_page"
local text = require "syz.text"

local M = {}

M.colours = { "#c2571a", "#2f6f9f", "#2f7d4f", "#8a4fa3", "#b3861e", "#b3261e", "#4f8a8b", "#6d6762" }

local style = [[<style>
svg{background:#fff;font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
text{fill:#1d1b1a}.soft{fill:#6d6762;font-size:10.5px}.head{font-weight:600}
.grid{stroke:#e6e1da}.row{stroke:#f1ede7}.base{stroke:#a39c94;stroke-dasharray:3 3}
</style>]]

local function svg(width, height, parts)
  return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">\n'
    .. "%s%s</svg>\n"):format(width, height, width, height, style, table.concat(parts, "\n"))
end

local function range(panel, rows)
  local low, high = math.huge, -math.huge
  for i = 1, rows do
    local mean, err = panel.means[i], panel.errors[i] or 0
    if mean then low, high = math.min(low, mean - err), math.max(high, mean + err) end
  end
  if low > high then return 0, 1 end
  local margin = high > low and (high - low) * 0.08 or math.abs(high) * 0.1 + 1e-9
  return low - margin, high + margin
end

-- One metric: a dot per variant, a bar of one standard error to each side, a dashed line at the first variant.
local function dots_panel(out, panel, labels, x, width, top, step)
  local low, high = range(panel, #labels)
  local function at(value) return x + 8 + (value - low) / (high - low) * (width - 16) end
  local bottom = top + #labels * step
  out[#out + 1] = ('<text class="head" x="%.1f" y="%d" text-anchor="middle">%s</text>'):format(x + width / 2, top - 12,
    page.escape(panel.label))
  for _, tick in ipairs(chart.ticks(low, high, 2)) do
    out[#out + 1] = ('<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/><text class="soft" x="%.1f" y="%d" '
      .. 'text-anchor="middle">%s</text>'):format(at(tick), at(tick), top, bottom, at(tick), bottom + 14,
      text.number(math.abs(tick) < 1e-12 and 0 or tick))
  end
  if panel.means[1] then
    out[#out + 1] = ('<line class="base" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>'):format(at(panel.means[1]),
      at(panel.means[1]), top, bottom)
  end
  for i in ipairs(labels) do
    local mean, err = panel.means[i], panel.errors[i]
    local y, colour = top + (i - 0.5) * step, M.colours[panel.colours and panel.colours[i] or 1]
    if mean and err then
      out[#out + 1] = ('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="2"/>'):format(
        at(mean - err), at(mean + err), y, y, colour)
    end
    if mean then
      out[#out + 1] = ('<circle cx="%.1f" cy="%.1f" r="3.6" fill="%s"><title>%s: %s</title></circle>'):format(at(mean),
        y, colour, page.escape(labels[i]), page.escape(panel.shown and panel.shown[i] or text.number(mean)))
    end
  end
end

-- Panels in a row before the next band begins: a page's width.
local BAND = 6

--- Panels of dots, one per metric, in bands that repeat the rows.
---@param labels string[]   of the rows
---@param panels { label: string, means: (number|nil)[], errors: (number|nil)[], colours: integer[]|nil,
---  shown: string[]|nil }[]
---@return string svg
function M.dots(labels, panels)
  local widest = 0
  for _, label in ipairs(labels) do widest = math.max(widest, text.width(label)) end
  local left, width, gap, head, step = 16 + widest * 6.6, 128, 14, 40, 20
  local total, band = left + math.min(BAND, #panels) * (width + gap), head + #labels * step + 30
  local out = {}
  for p, panel in ipairs(panels) do
    local column, top = (p - 1) % BAND, math.floor((p - 1) / BAND) * band + head
    if column == 0 then
      for i, label in ipairs(labels) do
        local y = top + (i - 0.5) * step
        out[#out + 1] = ('<line class="row" x1="8" x2="%.1f" y1="%.1f" y2="%.1f"/><text x="8" y="%.1f">%s</text>')
          :format(total - gap, y + step / 2, y + step / 2, y + 4, page.escape(label))
      end
    end
    dots_panel(out, panel, labels, left + column * (width + gap), width, top, step)
  end
  return svg(math.ceil(total), math.ceil(#panels / BAND) * band, out)
end

local function bounds(series)
  local x1, y0, y1 = 0, math.huge, -math.huge
  for _, one in ipairs(series) do
    for _, p in ipairs(one.points) do x1, y0, y1 = math.max(x1, p[1]), math.min(y0, p[2]), math.max(y1, p[2]) end
  end
  if y0 > y1 then y0, y1 = 0, 1 end
  local margin = y1 > y0 and (y1 - y0) * 0.06 or math.abs(y1) * 0.1 + 1e-9
  return x1 > 0 and x1 or 1, y0 - margin, y1 + margin
end

--- Curves in one frame, from x = 0, with a key to the right.
---@param series { name: string, points: number[][] }[]   { x, y }, by x
---@param options { x: string, y: string, level: number|nil, level_label: string|nil }
---@return string svg
function M.lines(series, options)
  local left, right, top, bottom, width, height = 52, 210, 28, 40, 720, 340
  local x1, y0, y1 = bounds(series)
  local function place(x, y)
    return left + x / x1 * (width - left - right), top + (y1 - y) / (y1 - y0) * (height - top - bottom)
  end
  local out = {}
  for _, y in ipairs(chart.ticks(y0, y1, 4)) do
    local _, at = place(0, y)
    out[#out + 1] = ('<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text class="soft" x="%d" y="%.1f" '
      .. 'text-anchor="end">%s</text>'):format(left, width - right, at, at, left - 6, at + 3.5, text.number(y))
  end
  for _, x in ipairs(chart.ticks(0, x1, 5)) do
    out[#out + 1] = ('<text class="soft" x="%.1f" y="%d" text-anchor="middle">%s</text>'):format(place(x, y0),
      height - bottom + 16, text.number(x))
  end
  if options.level and options.level > y0 and options.level < y1 then
    local _, at = place(0, options.level)
    out[#out + 1] = ('<line class="base" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>'
      .. '<text class="soft" x="%d" y="%.1f">%s</text>'):format(left, width - right, at, at, left + 4, at - 4,
      page.escape(options.level_label or ""))
  end
  for i, one in ipairs(series) do
    local colour, path = M.colours[(i - 1) % #M.colours + 1], {}
    for k, p in ipairs(one.points) do path[k] = ("%s%.1f %.1f"):format(k == 1 and "M" or "L", place(p[1], p[2])) end
    out[#out + 1] = ('<path d="%s" fill="none" stroke="%s" stroke-width="1.8"/>'):format(table.concat(path), colour)
    for _, p in ipairs(one.points) do
      local px, py = place(p[1], p[2])
      out[#out + 1] = ('<circle cx="%.1f" cy="%.1f" r="2.4" fill="%s"/>'):format(px, py, colour)
    end
    local y = top + (i - 1) * 18 + 4
    out[#out + 1] = ('<rect x="%d" y="%d" width="14" height="4" fill="%s"/><text x="%d" y="%d">%s</text>'):format(
      width - right + 16, y, colour, width - right + 36, y + 6, page.escape(one.name))
  end
  out[#out + 1] = ('<text class="head" x="%d" y="16">%s</text>'
    .. '<text class="soft" x="%d" y="%d" text-anchor="end">%s</text>'):format(left - 36, page.escape(options.y),
    width - right, height - 6, page.escape(options.x))
  return svg(width, height, out)
end

return M
