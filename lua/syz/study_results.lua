--- What a study found, for people: a table on the terminal, and a page with stacked bars like the paper's figure.

local page = require "syz.report_page"
local study = require "syz.study"
local text = require "syz.text"

local results = {}

local escape = page.escape
local measure_names = { excellent = "Excellent", good_or_better = "Excellent or Good" }

local function percent(rate)
  return ("%.0f"):format(100 * rate)
end

-- "+12 [+3, +20]", in percentage points, with a real minus sign where that can be shown.
local function points(d, minus)
  local function signed(x) return (("%+.0f"):format(100 * x):gsub("^[+-]0$", "0"):gsub("^%-", minus)) end
  -- when no draw differs there is no interval to speak of, as with nothing Excellent anywhere
  if d.low == d.high then return signed(d.difference) .. " [no spread]" end
  return ("%s [%s, %s]"):format(signed(d.difference), signed(d.low), signed(d.high))
end

local function clear_of_zero(d)
  return d.low > 0 or d.high < 0
end

local function interval(rate)
  return ("%s %% [%s, %s]"):format(percent(rate.rate), percent(rate.low), percent(rate.high))
end

-- "0.62", or why there is no number.
local function alpha_text(entry)
  return entry.alpha and ("%.2f"):format(entry.alpha) or "- (" .. entry.reason .. ")"
end

-- One line each: what the reader must know before believing a number.
local function cautions(r)
  local lines = {}
  for _, rater in ipairs(r.raters) do
    if rater.rated < r.items then
      lines[#lines + 1] = ("%s rated %d of %d images; only what was answered counts"):format(rater.name, rater.rated,
        r.items)
    end
  end
  if #r.raters == 1 then lines[#lines + 1] = "one rater: there is no agreement to measure" end
  if r.prompts < 20 then
    lines[#lines + 1] = ("%d %s: few, so the intervals of differences are rough, and too narrow if anything"):format(
      r.prompts, r.prompts == 1 and "prompt" or "prompts")
  end
  return lines
end

-- ---- terminal ----

local function text_bar(counts, n, width)
  local marks = text.utf8() and { "█", "▓", "▒", "░" } or { "#", "+", "-", "." }
  local parts, sum, drawn = {}, 0, 0
  for grade = 1, 4 do
    sum = sum + counts[grade]
    local upto = math.floor(sum / n * width + 0.5)
    parts[grade] = marks[grade]:rep(upto - drawn)
    drawn = upto
  end
  return table.concat(parts)
end

local function share_rows(r)
  local rows = { { "", "", "Excellent", "Good", "Pass", "Fail", "Excellent, 95 %" } }
  for _, dimension in ipairs(r.dimensions) do
    for m, share in ipairs(r.shares[dimension.key]) do
      local row = { m == 1 and dimension.name or "", text.clip(share.model, 28) }
      for grade = 1, 4 do
        row[2 + grade] = share.ratings > 0 and percent(share.counts[grade] / share.ratings) .. " %" or "-"
      end
      row[7] = share.excellent and interval(share.excellent) or "not rated"
      row[8] = share.excellent and text_bar(share.counts, share.ratings, 24) or ""
      rows[#rows + 1] = row
    end
  end
  for _, row in ipairs(rows) do
    for i = 3, 6 do row[i] = text.pad(row[i], -9) end
  end
  return rows
end

-- Every model against the first one.
local function difference_rows(r)
  local rows = { { "", "", "Excellent", "Excellent or Good" } }
  for _, dimension in ipairs(r.dimensions) do
    local first = true
    for m = 2, #r.models do
      local cells = {}
      for _, d in ipairs(r.differences) do
        if d.dimension == dimension.key and d.model == r.models[m] and d.against == r.models[1] then
          cells[d.measure] = points(d, "-") .. (clear_of_zero(d) and " *" or "")
        end
      end
      rows[#rows + 1] = { first and dimension.name or "", text.clip(r.models[m], 28), cells.excellent or "-",
                          cells.good_or_better or "-" }
      first = false
    end
  end
  return rows
end

--- The results as text.
---@param r table
---@return string
function results.terminal(r)
  local paint = text.painter("stdout")
  local out = { ("%s: %d images, %d models, %d prompts, %d %s"):format(paint("bold", r.title), r.items, #r.models,
    r.prompts, #r.raters, #r.raters == 1 and "rater" or "raters"), "\n\n", text.columns(share_rows(r)) }
  if #r.models > 1 then
    out[#out + 1] = ("\n%s\n"):format(paint("bold", ("Difference to %s in percentage points, 95 %%; * does not hold 0")
      :format(r.models[1])))
    out[#out + 1] = text.columns(difference_rows(r))
  end
  if #r.raters > 1 then
    local rows = {}
    for i, d in ipairs(r.dimensions) do rows[i] = { d.name, alpha_text(r.agreement[d.key]) } end
    local title = paint("bold", "Agreement of raters: " .. r.agreement.method)
    out[#out + 1] = ("\n%s\n%s"):format(title, text.columns(rows))
  end
  for _, line in ipairs(cautions(r)) do out[#out + 1] = "\n" .. paint("yellow", "note: ") .. line end
  return table.concat(out) .. (#cautions(r) > 0 and "\n" or "")
end

-- ---- page ----

results.style = [[
:root{--g1:#14664a;--g2:#7cc4a6;--g3:#f0c27a;--g4:#b5481b;--l1:#fff;--l2:#0d2b20;--l3:#3a2705;--l4:#fff}
@media(prefers-color-scheme:dark){:root{--g1:#1f8a65;--g4:#c75a2a}}
.legend{display:flex;flex-wrap:wrap;gap:6px 18px;font-size:14px;margin:0 0 14px}
.legend i{display:inline-block;width:14px;height:14px;border-radius:3px;margin-right:6px;vertical-align:-2px}
.bars{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr));gap:14px}
.bars>div{background:var(--card);border:1px solid var(--line);border-radius:var(--radius);padding:14px 16px;min-width:0}
.bars h3{font-size:15px;margin:0}
.bars svg{width:100%;height:auto;display:block;margin-top:6px}
.bars text{font-size:13px;fill:var(--ink)}.bars .in{font-size:12.5px;font-weight:600;text-anchor:middle}
.bars .at{text-anchor:end;fill:var(--soft);font-size:12px}
.bars .whisker{stroke:var(--ink);stroke-width:1.5;fill:none}
.g1{fill:var(--g1);background:var(--g1)}.g2{fill:var(--g2);background:var(--g2)}
.g3{fill:var(--g3);background:var(--g3)}.g4{fill:var(--g4);background:var(--g4)}
.bars .l1{fill:var(--l1)}.bars .l2{fill:var(--l2)}.bars .l3{fill:var(--l3)}.bars .l4{fill:var(--l4)}
.gap td{border-bottom-color:var(--soft)}
.range{width:150px;height:16px;display:block}.range line{stroke:var(--soft)}.range .zero{stroke-dasharray:2 2}
.range .ci{stroke:var(--ink);stroke-width:2}.range circle{fill:var(--accent)}
td.clear{font-weight:650}
]]

local wide, row_high = 440, 58

local function bar_svg(share, y)
  local out = { ('<text x="0" y="%d">%s</text>'):format(y + 14, escape(text.clip(share.model, 34))) }
  if share.ratings == 0 then
    return out[1] .. ('<text x="%d" y="%d" class="at">not rated</text>'):format(wide, y + 14)
  end
  out[2] = ('<text x="%d" y="%d" class="at">%d ratings</text>'):format(wide, y + 14, share.ratings)
  local x = 0
  for grade = 1, 4 do
    local part = share.counts[grade] / share.ratings
    local width = part * wide
    if width > 0 then
      out[#out + 1] = ('<rect class="g%d" x="%.1f" y="%d" width="%.1f" height="24"/>'):format(grade, x, y + 20,
        math.max(0.5, width - (x + width < wide - 0.5 and 1.5 or 0)))
      if width > 34 then
        out[#out + 1] = ('<text class="in l%d" x="%.1f" y="%d">%s %%</text>'):format(grade, x + width / 2, y + 36.5,
          percent(part))
      end
    end
    x = x + width
  end
  local low, high = share.excellent.low * wide, share.excellent.high * wide
  out[#out + 1] = ('<path class="whisker" d="M%.1f %dV%dM%.1f %dH%.1fM%.1f %dV%d"/>'):format(low, y + 46, y + 52, low,
    y + 49, high, high, y + 46, y + 52)
  return table.concat(out)
end

local function panel(r, dimension)
  local rows, said = {}, {}
  for m, share in ipairs(r.shares[dimension.key]) do
    rows[m] = bar_svg(share, (m - 1) * row_high)
    said[m] = share.excellent and ("%s: Excellent %s"):format(share.model, interval(share.excellent))
      or share.model .. ": not rated"
  end
  return ('<div><h3>%s</h3>'
    .. '<svg viewBox="0 0 %d %d" role="img" aria-label="%s">%s</svg></div>'):format(escape(dimension.name), wide,
    #rows * row_high, escape(table.concat(said, "; ")), table.concat(rows))
end

local function table_of(head, rows)
  local out = { '<div class="scroll"><table><tr>' }
  for _, name in ipairs(head) do
    -- "#Alpha": a column of numbers
    local numeric, label = name:match("^(#?)(.*)$")
    out[#out + 1] = ('<th scope="col"%s>%s</th>'):format(numeric == "#" and ' class="n"' or "", escape(label))
  end
  out[#out + 1] = "</tr>" .. table.concat(rows) .. "</table></div>"
  return table.concat(out)
end

local function shares_table(r)
  local rows, head = {}, { "Question", "Model" }
  for _, grade in ipairs(study.grades) do head[#head + 1] = "#" .. grade.name end
  head[#head + 1], head[#head + 2] = "#Excellent, 95 %", "#Excellent or Good, 95 %"
  for _, dimension in ipairs(r.dimensions) do
    local list = r.shares[dimension.key]
    for m, share in ipairs(list) do
      rows[#rows + 1] = ('<tr%s><td>%s</td><td class="wrap">%s</td>%s<td class="n">%s</td><td class="n">%s</td></tr>')
        :format(m == #list and ' class="gap"' or "", m == 1 and escape(dimension.name) or "", escape(share.model),
          ('<td class="n">%d</td><td class="n">%d</td><td class="n">%d</td><td class="n">%d</td>'):format(
            unpack(share.counts)),
          share.excellent and interval(share.excellent) or "-", share.good_or_better and interval(share.good_or_better)
          or "-")
    end
  end
  return table_of(head, rows)
end

local function range_svg(d)
  local function x(value) return 75 + value * 74 end
  return ('<svg class="range" viewBox="0 0 150 16" aria-hidden="true">'
    .. '<line class="zero" x1="75" x2="75" y1="0" y2="16"/><line class="ci" x1="%.1f" x2="%.1f" y1="8" y2="8"/>'
    .. '<circle cx="%.1f" cy="8" r="3.5"/></svg>'):format(x(d.low), x(d.high), x(d.difference))
end

-- Each pair once, the later model against the earlier one: the baseline comes first in a key.
local function differences_table(r)
  local place, rows = {}, {}
  local form = '<tr><td>%s</td><td class="wrap">%s − %s<br><span class="soft">%s</span></td>'
    .. '<td class="n%s">%s</td><td>%s</td></tr>'
  for m, name in ipairs(r.models) do place[name] = m end
  for _, dimension in ipairs(r.dimensions) do
    local first = true
    for _, d in ipairs(r.differences) do
      if d.dimension == dimension.key and place[d.model] > place[d.against] then
        rows[#rows + 1] = form:format(first and escape(dimension.name) or "", escape(d.model), escape(d.against),
          measure_names[d.measure], clear_of_zero(d) and " clear" or "", points(d, "−"), range_svg(d))
        first = false
      end
    end
  end
  return table_of({ "Question", "Models, rate", "#Points, 95 %", "−100 … +100" }, rows)
end

local function raters_section(r)
  local rows, agree = {}, {}
  for _, rater in ipairs(r.raters) do
    rows[#rows + 1] = ('<tr><td class="wrap">%s</td><td class="n">%d of %d</td></tr>'):format(escape(rater.name),
      rater.rated, r.items)
  end
  for _, d in ipairs(r.dimensions) do
    agree[#agree + 1] = ('<tr><td>%s</td><td class="n">%s</td></tr>'):format(escape(d.name),
      escape(alpha_text(r.agreement[d.key])))
  end
  return ('<div class="two"><section><h2>Agreement</h2>%s<p class="soft">%s: 1 is perfect, 0 is chance.</p></section>'
    .. "<section><h2>Raters</h2>%s</section></div>"):format(table_of({ "Question", "#Alpha" }, agree),
    escape(r.agreement.method), table_of({ "Rater", "#Images rated in full" }, rows))
end

--- The results as one self-contained page.
---@param r table
---@return string html
function results.html(r)
  local body = { ('<header><h1>%s</h1><p class="soft">%d images · %d models · %d prompts · %d %s</p></header>'):format(
    escape(r.title), r.items, #r.models, r.prompts, #r.raters, #r.raters == 1 and "rater" or "raters") }
  for _, line in ipairs(cautions(r)) do body[#body + 1] = ('<p class="soft">Note: %s.</p>'):format(escape(line)) end
  body[#body + 1] = '<h2>Grades</h2><div class="legend">'
  for i, grade in ipairs(study.grades) do
    body[#body + 1] = ('<span><i class="g%d"></i>%s</span>'):format(i, grade.name)
  end
  body[#body + 1] = '<span class="soft">The line under a bar is the 95 % interval of its Excellent rate.</span></div>'
  body[#body + 1] = '<div class="bars">'
  for _, dimension in ipairs(r.dimensions) do body[#body + 1] = panel(r, dimension) end
  body[#body + 1] = '</div><p class="soft">Overall is the lowest of the four grades that a rater gave an image.</p>'
  if #r.models > 1 then body[#body + 1] = "<h2>Differences in percentage points</h2>" .. differences_table(r) end
  body[#body + 1] = raters_section(r)
  body[#body + 1] = "<h2>Counts and intervals</h2>" .. shares_table(r)
  body[#body + 1] = ("<footer>Study %s. Rates: Wilson intervals over ratings. Differences: percentile bootstrap "
    .. "over prompts, %d draws, seed %d; a prompt is drawn with all its ratings of all models.</footer>"):format(
    escape(r.study), r.intervals.resamples, r.intervals.seed)
  return page.document(r.title .. ": results", results.style, table.concat(body, "\n"))
end

return results
