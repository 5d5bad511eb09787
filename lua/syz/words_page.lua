--- The lab of control words as one self-contained page: a map of all pairs, and what the best one likes and dislikes.
local core = require "syz.core"
local chart = require "syz.chart"
local images = require "syz.images"
local page = require "syz.report_page"
local pictures = require "syz.report_images"
local rank = require "syz.rank"
local text = require "syz.text"
local words = require "syz.words"

local M = {}

local escape = page.escape
local SHOWN = 12

M.style = [[
.heat{border-collapse:separate;border-spacing:4px;margin:-4px;font-variant-numeric:tabular-nums}
.heat th{font-weight:550;font-size:13px;color:var(--soft);text-align:left;padding:4px 10px 4px 0}
.heat thead th{text-align:center;padding:0 6px 4px}
.heat td{min-width:86px;height:48px;text-align:center;border-radius:8px;border:1px solid var(--line);font-size:15px}
.heat td.best{outline:2px solid var(--ink);outline-offset:1px;font-weight:650}
.key i.cold{background:#2f6fb5}
.strips{width:100%;height:auto;display:block}.strips text{font-size:12px;fill:var(--soft)}
.strips .range{stroke:var(--before);stroke-width:3;stroke-linecap:round}
.strips .middle{stroke:var(--before);stroke-width:9;stroke-linecap:round}
.strips .wanted.range,.strips .wanted.middle{stroke:var(--accent)}
.strips circle{fill:var(--card);stroke:var(--ink);stroke-width:1.5}
.strips .zero{stroke:var(--line);stroke-width:1}
.strips .curve{fill:none;stroke:var(--accent);stroke-width:2;stroke-linejoin:round}
.strips .chance{stroke:var(--line);stroke-width:1.5;stroke-dasharray:4 4}
.shown{display:grid;grid-template-columns:repeat(6,minmax(0,1fr));gap:12px 10px}
.shown figure{margin:0;min-width:0}.shown figcaption{font-size:12px}
.box{background:var(--card);border:1px solid var(--line);border-radius:var(--radius);padding:12px;min-width:0}
.box header{display:flex;justify-content:space-between;gap:10px;font-size:13px;margin-bottom:8px}
.box header b{font-weight:600}.box header span{color:var(--soft)}
.warn{color:var(--accent)}
.half{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:14px 28px}
.half h2{margin-top:28px}
@media(max-width:760px){.half{grid-template-columns:1fr}.shown{grid-template-columns:repeat(4,minmax(0,1fr))}}
]]

local function places(list, field)
  local names, seen = {}, {}
  local ordered = {}
  for i, pair in ipairs(list) do ordered[i] = pair end
  table.sort(ordered, function(a, b) return a.place < b.place end)
  for _, pair in ipairs(ordered) do
    if not seen[pair[field]] then names[#names + 1], seen[pair[field]] = pair[field], true end
  end
  return names
end

-- .5 is the colour of the page; orange above, blue below.
local function cell(pair, best)
  local strength = math.min(1, math.abs(pair.auc - 0.5) * 2)
  local colour = pair.auc >= 0.5 and "194,87,26" or "47,111,181"
  local class, ink = pair == best and ' class="best"' or "", strength > 0.65 and ";color:#fff" or ""
  return ('<td%s title="%s" style="background:rgba(%s,%.2f)%s">%.3f</td>'):format(class,
    escape(pair.positive .. " − " .. pair.negative), colour, strength * 0.9, ink, pair.auc)
end

--- The map of AUC: positive words down, negative words across.
---@param pairs_ syz.WordPair[]
---@return string html
function M.heat_map(pairs_)
  local by_pair = {}
  for _, pair in ipairs(pairs_) do by_pair[pair.positive .. "\0" .. pair.negative] = pair end
  local rows, columns = places(pairs_, "positive"), places(pairs_, "negative")
  local out = { '<div class="strip"><table class="heat"><thead><tr><th></th>' }
  for _, name in ipairs(columns) do out[#out + 1] = "<th>− " .. escape(name) .. "</th>" end
  out[#out + 1] = "</tr></thead><tbody>"
  for _, positive in ipairs(rows) do
    out[#out + 1] = ('<tr><th scope="row">+ %s</th>'):format(escape(positive))
    for _, negative in ipairs(columns) do out[#out + 1] = cell(by_pair[positive .. "\0" .. negative], pairs_[1]) end
    out[#out + 1] = "</tr>"
  end
  return table.concat(out) .. "</tbody></table></div>"
end

local function groups_of(found, pair, by)
  local list, by_value = {}, {}
  for i, meta in ipairs(found.images.meta) do
    local value = tostring(meta[by])
    if not by_value[value] then
      by_value[value] = { name = value, wanted = found.positive[i], srp = {} }
      list[#list + 1] = by_value[value]
    end
    table.insert(by_value[value].srp, pair.srp[i])
  end
  for _, group in ipairs(list) do
    group.q = {}
    for k, share in ipairs { 0.05, 0.25, 0.5, 0.75, 0.95 } do group.q[k] = rank.quantile(group.srp, share) end
  end
  table.sort(list, function(a, b) return a.q[3] > b.q[3] end)
  return list
end

-- One line per value of `by`: 5-95 %, the middle half, the median.
local function strips(found, pair, by)
  local groups, left, wide, high = groups_of(found, pair, by), 150, 520, 30
  local low, top = 0, 0
  for _, group in ipairs(groups) do low, top = math.min(low, group.q[1]), math.max(top, group.q[5]) end
  local function x(value) return left + (value - low) / math.max(top - low, 1e-12) * (wide - left - 16) end
  local total = #groups * high + 22
  local out = { ('<svg viewBox="0 0 %d %d" class="strips" role="img" aria-label="SRP by %s">'):format(wide, total,
    escape(by)) }
  out[#out + 1] = ('<line class="zero" x1="%.1f" x2="%.1f" y1="0" y2="%d"/><text x="%.1f" y="%d" text-anchor="middle">'
    .. "0</text>"):format(x(0), x(0), total - 18, x(0), total - 4)
  for _, tick in ipairs(chart.ticks(low, top, 4)) do
    if math.abs(tick) > 1e-9 then
      out[#out + 1] = ('<text x="%.1f" y="%d" text-anchor="middle">%s</text>'):format(x(tick), total - 4,
        text.number(tick))
    end
  end
  for k, group in ipairs(groups) do
    local y, class = (k - 0.5) * high, group.wanted and "wanted " or ""
    out[#out + 1] = ('<text x="0" y="%.1f">%s</text>'):format(y + 4, escape(text.clip(group.name, 22)))
    for _, line in ipairs { { "range", 1, 5 }, { "middle", 2, 4 } } do
      out[#out + 1] = ('<line class="%s%s" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>'):format(class, line[1],
        x(group.q[line[2]]), x(group.q[line[3]]), y, y)
    end
    out[#out + 1] = ('<circle cx="%.1f" cy="%.1f" r="4"/>'):format(x(group.q[3]), y)
  end
  return table.concat(out) .. "</svg>"
end

-- The curve itself, unsmoothed: its area is the AUC.
local function roc_curve(found, pair)
  local left, bottom, wide, high = 150, 18, 220, 150
  local parts = {}
  for i, point in ipairs(rank.roc(pair.srp, found.positive)) do
    parts[i] = ("%s%.1f %.1f"):format(i == 1 and "M" or "L", left + point[1] * wide, 4 + (1 - point[2]) * high)
  end
  local below = 4 + high
  return table.concat {
    ('<svg viewBox="0 0 520 %d" class="strips" role="img" aria-label="ROC curve">'):format(below + bottom + 8),
    ('<line class="chance" x1="%d" x2="%d" y1="%d" y2="4"/>'):format(left, left + wide, below),
    ('<line class="zero" x1="%d" x2="%d" y1="%d" y2="%d"/>'):format(left, left + wide, below, below),
    ('<line class="zero" x1="%d" x2="%d" y1="4" y2="%d"/>'):format(left, left, below),
    ('<path class="curve" d="%s"/>'):format(table.concat(parts)),
    ('<text x="%d" y="%d" text-anchor="middle">others taken for wanted</text>'):format(left + wide / 2, below + bottom),
    ('<text x="%d" y="%d" text-anchor="end">wanted found</text></svg>'):format(left - 8, 4 + high / 2),
  }
end

-- The images at some positions, as a picture that the style sheet holds once.
local function gallery(found, pair, positions, class, by)
  local batch = found.images:batch(positions)
  local picture, layout = images.grid(batch, 6)
  local css = (".%s{background-image:url(data:image/png;base64,%s)}\n"):format(class,
    core.base64(core.image.png(picture)))
  local out = { '<div class="shown">' }
  for k, index in ipairs(positions) do
    local meta = found.images.meta[index]
    local label = ("%s, %s"):format(words.prompt(meta), tostring(meta[by]))
    out[#out + 1] = ('<figure>%s<figcaption>%s<br><span class="mono">%+.3f</span></figcaption></figure>'):format(
      pictures.cell({ class = class, layout = layout }, k - 1, label), escape(label), pair.srp[index])
  end
  return table.concat(out) .. "</div>", css
end

local function extremes(pair)
  local order, highest, lowest = {}, {}, {}
  for i = 1, #pair.srp do order[i] = i end
  table.sort(order, function(a, b)
    if pair.srp[a] ~= pair.srp[b] then return pair.srp[a] > pair.srp[b] end
    return a < b
  end)
  for k = 1, math.min(SHOWN, #order) do
    highest[k], lowest[k] = order[k], order[#order + 1 - k]
  end
  return highest, lowest
end

local function tiles(best, found)
  local out = { '<div class="tiles">' }
  local function tile(name, value, below)
    if not value then return end
    out[#out + 1] = ('<div class="tile"><span class="name">%s</span><b>%s</b><span class="delta">%s</span></div>')
      :format(escape(name), escape(value), escape(below))
  end
  tile("best pair", best.positive .. " − " .. best.negative, "of " .. #found.pairs)
  tile("separates the wanted style", ("%.3f"):format(best.auc), ("AUC; the plain reward %.3f"):format(found.plain.auc))
  if best.cosine then
    tile("between the texts", ("%.1f°"):format(M.angle(best.cosine)),
      ("length of the difference %.3f"):format(best.length))
  end
  tile("gradient in one colour", ("%.1f %%"):format(best.uniform * 100),
    ("the plain reward %.1f %%"):format(found.plain.uniform * 100))
  return table.concat(out) .. "</div>"
end

--- The angle whose cosine this is, in degrees.
---@param cosine number
---@return number
function M.angle(cosine)
  return math.deg(math.acos(math.max(-1, math.min(1, cosine))))
end

local function full_table(columns, pairs_)
  local out = { '<div class="scroll"><table><tr>' }
  for _, column in ipairs(columns) do
    out[#out + 1] = ('<th%s title="%s">%s</th>'):format(column.number and ' class="n"' or "", escape(column.help),
      escape(column.name))
  end
  out[#out + 1] = "</tr>"
  for _, pair in ipairs(pairs_) do
    out[#out + 1] = "<tr>"
    for _, column in ipairs(columns) do
      out[#out + 1] = ('<td class="%s">%s</td>'):format(column.number and "n" or "wrap", escape(column.show(pair)))
    end
    out[#out + 1] = "</tr>"
  end
  return table.concat(out) .. "</table></div>"
end

--- The whole page.
---@param found table       what syz.words.lab returned
---@param about { reward: string, by: string, wanted: string, columns: table[], warnings: string[] }
---@return string html
function M.render(found, about)
  return core.no_grad(core.scope, function()
    local best = found.pairs[1]
    local highest, lowest = extremes(best)
    local high, high_css = gallery(found, best, highest, "g-high", about.by)
    local low, low_css = gallery(found, best, lowest, "g-low", about.by)
    local name = escape(best.positive .. " − " .. best.negative)
    local notes = {}
    for i, line in ipairs(about.warnings) do notes[i] = '<p class="warn">' .. escape(line) .. "</p>" end
    local body = table.concat({
      ('<header><h1>Control words</h1><p class="soft">%s · %d images, wanted: %s %s</p></header>'):format(
        escape(about.reward), #found.images.meta, escape(about.by), escape(about.wanted)),
      tiles(best, found),
      "<h2>How well each pair separates the wanted style</h2>",
      '<p class="key"><i class="cold"></i>AUC 0: the reverse<i class="after"></i>AUC 1: perfectly; 0.5 is chance</p>',
      M.heat_map(found.pairs), table.concat(notes),
      "<h2>" .. name .. "</h2>",
      ('<div class="half"><div class="box"><header><b>SRP by %s</b><span>5–95 %%, middle half, median</span>'
        .. "</header>%s</div>"):format(escape(about.by), strips(found, best, about.by)),
      ('<div class="box"><header><b>ROC</b><span>AUC %.3f</span></header>%s</div></div>'):format(best.auc,
        roc_curve(found, best)),
      '<div class="half"><section><h2>Highest SRP</h2>', high, "</section><section><h2>Lowest SRP</h2>", low,
      "</section></div>",
      "<h2>All pairs</h2>", full_table(about.columns, found.pairs),
      "<footer>Made by Syzygy " .. escape(core.version()) .. ".</footer>",
    }, "\n")
    return page.document("Control words · Syzygy", M.style .. high_css .. low_css, body)
  end)
end

return M
