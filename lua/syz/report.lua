--- A run as one self-contained page: RUN/report.html, made from the files of its folder and from nothing else.

local core = require "syz.core"
local fields = require "syz.fields"
local curves = require "syz.report_curves"
local files = require "syz.files"
local page = require "syz.report_page"
local pictures = require "syz.report_images"
local text = require "syz.text"

local report = {}

local escape = page.escape

local function show(value)
  if value == core.null then return "-" end
  if type(value) == "number" then return text.number(value) end
  if type(value) ~= "table" then return tostring(value) end
  if #value == 0 and next(value) ~= nil then return core.json.encode(value) end
  local parts = {}
  for i, v in ipairs(value) do parts[i] = show(v) end
  return table.concat(parts, ", ")
end

local function html_table(head, rows)
  local out = { '<div class="scroll"><table>' }
  if head then
    out[#out + 1] = "<tr>"
    for i, name in ipairs(head) do
      local numeric = rows[1] and type(rows[1][i]) == "number"
      out[#out + 1] = ("<th%s>%s</th>"):format(numeric and ' class="n"' or "", escape(name))
    end
    out[#out + 1] = "</tr>"
  end
  for _, row in ipairs(rows) do
    out[#out + 1] = "<tr>"
    for _, value in ipairs(row) do
      local class = type(value) == "number" and "n" or "wrap"
      out[#out + 1] = ('<td class="%s">%s</td>'):format(class, escape(show(value)))
    end
    out[#out + 1] = "</tr>"
  end
  return table.concat(out) .. "</table></div>"
end

local function summary_rows(summary)
  local rows = {}
  for _, name in ipairs(curves.sort(fields.names(summary))) do
    local value = summary[name]
    if type(value) == "table" and tonumber(value.before) and tonumber(value.after) then
      rows[#rows + 1] = { name, value.before, value.after, value.after - value.before }
    end
  end
  return rows
end

local function short(n)
  return text.number(tonumber(("%.3g"):format(n)))
end

local function tiles(rows)
  if #rows == 0 then return "" end
  local out = { '<div class="tiles">' }
  for _, row in ipairs(rows) do
    out[#out + 1] = ('<div class="tile"><span class="name">%s</span><b><span class="from">%s →</span> %s</b>'
      .. '<span class="delta">%s</span></div>'):format(escape(curves.title(row[1])), short(row[2]),
      short(row[3]), (("%+.3g"):format(row[4]):gsub("^%-", "−")))
  end
  return table.concat(out) .. "</div>"
end

local function heading(record, summary)
  local parts = {}
  if record.started then parts[#parts + 1] = os.date("%-d %B %Y, %H:%M", record.started) end
  if record.step then parts[#parts + 1] = text.count(record.step) .. " steps" end
  local seconds = tonumber(summary.seconds) or record.seconds
  if seconds then parts[#parts + 1] = text.duration(seconds) .. " min" end
  if seconds and seconds >= 3600 then parts[#parts] = text.duration(seconds) .. " h" end
  return ('<header><h1>%s</h1><p class="soft"><span class="status %s">%s</span> &nbsp;%s</p></header>'):format(
    escape(record.name or "run"), escape(record.status or ""), escape(record.status or "unknown"),
    escape(table.concat(parts, " · ")))
end

-- How the run ended where a rule had a say: why it stopped, and whose step the model is.
local function verdict(record)
  local parts = {}
  if type(record.stopped) == "table" then
    parts[1] = ("<b>Stopped at step %s:</b> %s."):format(escape(record.stopped.step), escape(record.stopped.reason))
  end
  if tonumber(record.kept_step) then
    parts[#parts + 1] = record.kept_step == 0 and "<b>The model is the one before training:</b> no step was better."
      or ("<b>The model is that of step %d.</b>"):format(record.kept_step)
  end
  if #parts == 0 then return "" end
  return ('<p class="verdict%s">%s</p>'):format(record.stopped and "" or " kept", table.concat(parts, " "))
end

local function ledger(folder)
  local entries = files.read_lines(folder .. "/ledger.jsonl")
  if #entries == 0 then return "" end
  local columns, seen = {}, { step = true }
  for _, entry in ipairs(entries) do
    for _, name in ipairs(fields.names(entry.object)) do
      -- lists (every sample's numbers, in a detailed ledger) stay in the file
      if not seen[name] and type(entry.object[name]) ~= "table" then columns[#columns + 1] = name end
      seen[name] = true
    end
  end
  table.insert(columns, 1, "step")
  local rows, edge = {}, 6
  for i, entry in ipairs(entries) do
    if #entries <= 2 * edge or i <= edge or i > #entries - edge then
      local row = {}
      for c, name in ipairs(columns) do
        local value = entry.object[name]
        row[c] = value == nil and "" or value
      end
      rows[#rows + 1] = row
    elseif i == edge + 1 then
      local gap = {}
      for c in ipairs(columns) do gap[c] = "⋯" end
      rows[#rows + 1] = gap
    end
  end
  local heads = {}
  for i, name in ipairs(columns) do heads[i] = curves.title(name) end
  return ("<h2>Ledger</h2><details><summary>What happened inside the steps: %s rows, the first and the last shown"
    .. "</summary>%s</details>"):format(text.count(#entries), html_table(heads, rows))
end

-- config.yaml bears each option's help as a comment above it.
local function settings(folder)
  local yaml = core.file.exists(folder .. "/config.yaml") and core.file.read(folder .. "/config.yaml")
  local values = yaml and core.yaml.decode(yaml)
  if type(values) ~= "table" or next(values) == nil then return "" end
  local help, above = {}, ""
  for line in yaml:gmatch("[^\n]+") do
    local comment, key = line:match("^# (.*)"), line:match("^([%w_]+):")
    if key then help[key], above = above, "" end
    if comment then above = comment end
  end
  local rows = {}
  for _, name in ipairs(fields.names(values)) do rows[#rows + 1] = { name, show(values[name]), help[name] or "" } end
  return "<section><h2>Settings</h2>" .. html_table(nil, rows) .. "</section>"
end

local function environment(folder)
  local env = files.read_json(folder .. "/env.json")
  if not env then return "" end
  local rows = {}
  local function add(name, value)
    if type(value) == "table" then
      for _, key in ipairs(fields.names(value)) do add(key, value[key]) end
    elseif value == false or name == "luajit" then -- features that are absent, and what `lua` says already
      return
    elseif value == true then
      rows[#rows + 1] = { curves.title(name), "yes" }
    elseif name == "ram" then
      rows[#rows + 1] = { "memory", text.bytes(value) }
    elseif name:find("sha256") or name == "git_commit" then
      rows[#rows + 1] = { curves.title(name), tostring(value):sub(1, 12) }
    else
      rows[#rows + 1] = { curves.title(name), show(value) }
    end
  end
  for _, key in ipairs(fields.names(env)) do add(key, env[key]) end
  return "<section><h2>Environment</h2>" .. html_table(nil, rows) .. "</section>"
end

local function recipe_text(folder, record)
  local source = core.file.exists(folder .. "/recipe.lua") and core.file.read(folder .. "/recipe.lua")
  if not source then return "" end
  return ("<h2>Recipe</h2><details><summary>%s</summary><pre>%s</pre></details><p class=\"soft\">Again: <code>syz run "
    .. "%s/recipe.lua --config %s/config.yaml</code></p>"):format(escape(record.recipe or "recipe.lua"), escape(source),
    escape(text.shell(folder)), escape(text.shell(folder)))
end

local function warnings(record)
  if type(record.warnings) ~= "table" or #record.warnings == 0 then return "" end
  local items = {}
  for i, line in ipairs(record.warnings) do items[i] = "<li>" .. escape(line) .. "</li>" end
  return "<h2>Warnings</h2><ul>" .. table.concat(items) .. "</ul>"
end

--- Write a run's report.
---@param folder string
---@return string|nil path
---@return string|nil reason
function report.write(folder)
  folder = #folder > 1 and folder:gsub("/+$", "") or folder
  local record = core.file.exists(folder .. "/run.json") and files.read_json(folder .. "/run.json")
  if not record then return nil, folder .. " holds no run (no readable run.json)" end
  local summary = files.read_json(folder .. "/summary.json") or {}
  local rows = summary_rows(summary)
  local compared, along, style = pictures.sections(folder, record)
  local evaluations, training = curves.sections(folder, record)
  local body = table.concat({
    heading(record, summary), verdict(record), compared, tiles(rows), evaluations, along, training,
    ledger(folder), '<div class="two">' .. settings(folder) .. environment(folder) .. "</div>",
    warnings(record), recipe_text(folder, record),
    "<footer>Made by Syzygy " .. escape(core.version()) .. ".</footer>",
  }, "\n")
  local path = folder .. "/report.html"
  pictures.compare(folder)
  core.file.write(path, page.document((record.name or "run") .. " · Syzygy", style, body))
  return path
end

return report
