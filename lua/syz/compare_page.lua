--- A comparison as one self-contained page: table, verdicts, figure, images, settings.
local core = require "syz.core"
local page = require "syz.report_page"
local settings = require "syz.compare_settings"
local tables = require "syz.compare_table"

local M = {}

local escape = page.escape

local function html_table(head, body)
  local out = { '<div class="scroll"><table><tr>' }
  for c, name in ipairs(head) do
    out[#out + 1] = ("<th%s>%s</th>"):format(c > 1 and ' class="n"' or "", escape(name))
  end
  out[#out + 1] = "</tr>"
  for _, row in ipairs(body) do
    out[#out + 1] = "<tr>"
    for c, cell in ipairs(row) do
      out[#out + 1] = ("<td%s>%s</td>"):format(c > 1 and ' class="n"' or ' style="white-space:nowrap"', escape(cell))
    end
    out[#out + 1] = "</tr>"
  end
  return table.concat(out) .. "</table></div>"
end

-- Each variant's images beside its name.
local function gallery(comparison, run, rows)
  local out = {}
  for _, variant in ipairs(comparison.variants) do
    for _, row in ipairs(rows) do
      local path = row.picture and run.folder .. "/" .. row.picture
      if row.variant == variant.name and row.seed == comparison.seeds[1] and path and core.file.exists(path) then
        out[#out + 1] = ('<figure style="margin:0 0 10px"><figcaption>%s</figcaption><img style="max-width:100%%" '
          .. 'alt="%s" src="data:image/png;base64,%s"></figure>'):format(escape(variant.name), escape(variant.name),
          core.base64(assert(core.file.read(path))))
      end
    end
  end
  return table.concat(out, "\n")
end

--- The whole page.
---@param results table       syz.compare_results, for verdicts and facts
---@param comparison syz.Comparison
---@param run syz.Run
---@param rows table[]
---@param figure string        SVG
---@return string html
function M.render(results, comparison, run, rows, figure)
  local head, body = tables.cells(rows, comparison.variants, comparison.columns)
  local parts = { ("<header><h1>%s</h1></header>"):format(escape(comparison.title or run.state.name)) }
  local function add(...) parts[#parts + 1] = (...):format(select(2, ...)) end
  if comparison.about then add("<p>%s</p>", escape(comparison.about)) end
  add("<h2>%s</h2>%s", results.spread(comparison), html_table(head, body))
  local items = {}
  for i, v in ipairs(results.verdicts(comparison, rows)) do
    items[i] = ("<li><b>%s</b>: %s. <span class=\"soft\">%s</span></li>"):format(escape(v[1]), escape(v[2]),
      escape(v[3]))
  end
  if #items > 0 then add("<h2>Against %s</h2><ul>%s</ul>", escape(comparison.against), table.concat(items)) end
  if comparison.conclude then add("<p>%s</p>", escape(comparison.conclude(rows, tables))) end
  add('<div style="overflow-x:auto;margin-top:24px">%s</div>', figure)
  add('<h2>Images of seed %d, same noise in each column</h2><p class="soft">%s</p>%s', comparison.seeds[1],
    escape(results.prompts(comparison)), gallery(comparison, run, rows))
  add("<h2>How</h2>%s", html_table({ "", "" }, results.facts(comparison, run, rows)):gsub(' class="n"', ""))
  local lines = {}
  for i, variant in ipairs(comparison.variants) do
    lines[i] = { variant.name, settings.line(comparison, variant) }
  end
  add("%s", (html_table({ "variant", "settings" }, lines):gsub(' class="n"', ' class="wrap"')))
  add("<footer>Made by Syzygy %s.</footer>", escape(core.version()))
  return page.document((comparison.title or run.state.name) .. " · Syzygy", "", table.concat(parts, "\n"))
end

return M
