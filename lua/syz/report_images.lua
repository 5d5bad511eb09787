--- The pictures of a report: before and after side by side, and the way from one to the other.
--
-- A grid is embedded once, as the background of a style class; each cell shows its part of it.

local core = require "syz.core"
local fields = require "syz.fields"
local files = require "syz.files"
local images = require "syz.images"
local page = require "syz.report_page"

local pictures = {}

-- A strip shows at most this many steps and prompts, so that the page stays small.
local strip_steps, strip_prompts = 8, 6

---@class syz.Picture
---@field name string
---@field class string
---@field layout syz.Layout

--- The sample grids of a run, by name, and the captions of their cells.
---@param folder string
---@return table<string, syz.Picture> found
---@return string[] prompts
function pictures.find(folder)
  local found, layouts = {}, files.read_json(folder .. "/samples/layout.json") or {}
  for name, layout in pairs(layouts) do
    if core.file.exists(("%s/samples/%s.png"):format(folder, name)) == "file" then
      found[name] = { name = name, class = "g-" .. name:gsub("[^%w]", "-"), layout = layout }
    end
  end
  return found, files.read_json(folder .. "/samples/prompts.json") or {}
end

--- Write RUN/before-after.png, to paste where a page cannot go: rows of pictures before, each with the row after below.
---@param folder string
function pictures.compare(folder)
  local found = pictures.find(folder)
  if not (found.before and found.after) then return end
  core.scope(function()
    local function read(name)
      return { picture = core.image.read(("%s/samples/%s.png"):format(folder, name)), layout = found[name].layout }
    end
    core.image.write(folder .. "/before-after.png", images.compare(read "before", read "after"))
  end)
end

--- Style rules that hold the pictures themselves.
---@param folder string
---@param used table<string, syz.Picture>
---@return string css
function pictures.style(folder, used)
  local rules = {}
  for i, name in ipairs(fields.names(used)) do
    local bytes = assert(core.file.read(("%s/samples/%s.png"):format(folder, name)))
    rules[i] = (".%s{background-image:url(data:image/png;base64,%s)}\n"):format(used[name].class, core.base64(bytes))
  end
  return table.concat(rules)
end

--- One cell of a picture as an element.
---@param picture syz.Picture
---@param index integer   from 0
---@param label string    for people who cannot see it
---@param class string|nil
---@return string html
function pictures.cell(picture, index, label, class)
  local l = picture.layout
  local rows = math.ceil(l.count / l.columns)
  local whole_w = l.columns * (l.width + l.gap) - l.gap
  local whole_h = rows * (l.height + l.gap) - l.gap
  local column, row = index % l.columns, math.floor(index / l.columns)
  -- a background position in percent is relative to what is left beside the cell
  local x = whole_w > l.width and column * (l.width + l.gap) / (whole_w - l.width) * 100 or 0
  local y = whole_h > l.height and row * (l.height + l.gap) / (whole_h - l.height) * 100 or 0
  return ('<div class="cell %s%s%s" role="img" aria-label="%s" style="aspect-ratio:%d/%d;background-size:%.4f%% %.4f%%;'
    .. 'background-position:%.4f%% %.4f%%"></div>'):format(picture.class, l.width < 48 and " pixel" or "",
    class and " " .. class or "", page.escape(label), l.width, l.height, whole_w / l.width * 100,
    whole_h / l.height * 100, x, y)
end

local function pairs_of(before, after, prompts)
  local out = { '<div class="compare"><div class="bar"><span class="seg">',
    '<button data-mode="pair" aria-pressed="true">Side by side</button>',
    '<button data-mode="wipe" aria-pressed="false">Overlay</button></span>',
    '<input type="range" min="0" max="100" value="50" aria-label="how much of each" hidden>',
    '<span class="key"><i></i>before<i class="after"></i>after</span></div><div class="pairs">' }
  for i = 0, math.min(before.layout.count, after.layout.count) - 1 do
    local prompt = prompts[i + 1] or ""
    out[#out + 1] = ('<figure><div class="pair">%s%s<div class="edge"></div><div class="edge after"></div></div>'
      .. "%s</figure>"):format(pictures.cell(before, i, "before: " .. prompt, "before"),
        pictures.cell(after, i, "after: " .. prompt, "after"),
        prompt ~= "" and "<figcaption>" .. page.escape(prompt) .. "</figcaption>" or "")
  end
  out[#out + 1] = "</div></div>"
  return table.concat(out)
end

local function single(picture, prompts)
  local out = { '<div class="single">' }
  for i = 0, picture.layout.count - 1 do
    local prompt = prompts[i + 1] or ""
    out[#out + 1] = ("<figure>%s<figcaption>%s</figcaption></figure>"):format(pictures.cell(picture, i, prompt),
      page.escape(prompt))
  end
  return table.concat(out) .. "</div>"
end

-- At most `strip_steps` pictures in the order of their steps: the first, the last, and the kept one among them.
local function chosen_steps(found, kept)
  local all = {}
  for _, picture in pairs(found) do all[#all + 1] = picture end
  table.sort(all, function(a, b)
    if a.layout.step ~= b.layout.step then return a.layout.step < b.layout.step end
    return a.name < b.name
  end)
  local distinct = {}
  for _, picture in ipairs(all) do
    local last = distinct[#distinct]
    if not last or last.layout.step ~= picture.layout.step then distinct[#distinct + 1] = picture end
  end
  if #distinct <= strip_steps then return distinct end
  local out, nearest, least = {}, nil, math.huge
  for i = 0, strip_steps - 1 do
    out[i + 1] = distinct[1 + math.floor(i * (#distinct - 1) / (strip_steps - 1) + 0.5)]
    local away = kept and math.abs(out[i + 1].layout.step - kept) or math.huge
    if i > 0 and i < strip_steps - 1 and away < least then nearest, least = i + 1, away end
  end
  for _, picture in ipairs(distinct) do
    if picture.layout.step == kept and nearest and picture ~= out[1] and picture ~= out[strip_steps] then
      out[nearest] = picture
    end
  end
  return out
end

-- One cell for each prompt: several images of one say less about the way. With one or two prompts, all their images.
local function chosen_cells(count, prompts)
  local first, rest, seen = {}, {}, {}
  for i = 0, count - 1 do
    local prompt = prompts[i + 1] or i
    table.insert(seen[prompt] and rest or first, i)
    seen[prompt] = true
  end
  for _, i in ipairs(#first < 3 and rest or {}) do first[#first + 1] = i end
  local cells = { unpack(first, 1, math.min(strip_prompts, #first)) }
  table.sort(cells)
  return cells
end

local function strip(steps, prompts, kept)
  local out, count = { '<div class="strip"><table><tr><th></th>' }, math.huge
  for _, picture in ipairs(steps) do
    local is_kept = picture.layout.step == kept
    out[#out + 1] = ("<th%s>step %d%s</th>"):format(is_kept and ' class="kept"' or "", picture.layout.step,
      is_kept and ", kept" or "")
    count = math.min(count, picture.layout.count)
  end
  out[#out + 1] = "</tr>"
  for _, i in ipairs(chosen_cells(count, prompts)) do
    out[#out + 1] = ('<tr><th scope="row">%s</th>'):format(page.escape(prompts[i + 1] or ""))
    for _, picture in ipairs(steps) do
      out[#out + 1] = "<td>" .. pictures.cell(picture, i, "step " .. picture.layout.step) .. "</td>"
    end
    out[#out + 1] = "</tr>"
  end
  return table.concat(out) .. "</table></div>"
end

--- The sections with pictures.
---@param folder string
---@param record table  run.json
---@return string compared  before and after, or the newest samples
---@return string along     every evaluation
---@return string css
function pictures.sections(folder, record)
  local kept = tonumber(record.kept_step)
  local found, prompts = pictures.find(folder)
  local used, compared, along = {}, "", ""
  local steps = chosen_steps(found, kept)
  local before, after = found.before, found.after
  if before and after then
    used.before, used.after = before, after
    compared = ("<h2>Before and after%s, same seeds</h2>%s"):format(
      kept and (" (step %d)"):format(after.layout.step) or "", pairs_of(before, after, prompts))
  elseif #steps > 0 then
    local last = steps[#steps]
    used[last.name] = last
    compared = ("<h2>Samples at step %d</h2>%s"):format(last.layout.step, single(last, prompts))
  end
  if #steps > 2 or (#steps == 2 and not (before and after)) then
    for _, picture in ipairs(steps) do used[picture.name] = picture end
    along = "<h2>Along the way</h2>" .. strip(steps, prompts, kept)
  end
  return compared, along, pictures.style(folder, used)
end

return pictures
