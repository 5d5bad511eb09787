--- Progress of a run on stderr: a bar on a terminal, plain lines elsewhere, JSON objects on stdout with --json.
--
--   local bar = progress.new(20, "training")     bar:update(step, "loss 0.1")     bar:done()
--
-- A note is a line of its own that leaves the bar intact. Nothing here influences a run.

local core = require "syz.core"
local text = require "syz.text"

local progress = {}

---@class syz.Bar
---@field total integer|nil   may change while the bar lives
local Bar = {}
Bar.__index = Bar

-- Set once by the command line; the tests put their own streams and clock here.
local settings = {}

-- The bar that is on the screen, if one is.
local active

local eighths = { "▏", "▎", "▍", "▌", "▋", "▊", "▉" }

-- A terminal is redrawn at most this often; plain lines come rarer, so that a log of a long run stays short.
local redraw_seconds, line_seconds = 0.1, 10

local function meter(width, fraction, utf8)
  local filled = width * fraction
  local whole = math.floor(filled)
  if not utf8 then return ("#"):rep(whole) .. ("."):rep(width - whole) end
  local part = whole < width and eighths[math.floor((filled - whole) * 8)] or ""
  return ("█"):rep(whole) .. part .. (" "):rep(width - whole - (part == "" and 0 or 1))
end

local function describe(fields)
  local names, parts = {}, {}
  for name, value in pairs(fields) do
    if type(value) == "number" then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do parts[i] = name .. " " .. text.number(fields[name]) end
  return table.concat(parts, "  ")
end

--- Say how progress is shown, for all bars to come.
---@param opts { quiet: boolean|nil, json: boolean|nil, err: fun(s: string)|nil, out: fun(s: string)|nil,
---  terminal: { tty: boolean, width: integer }|nil, clock: (fun(): number)|nil }|nil
function progress.configure(opts)
  opts = opts or {}
  active = nil
  settings = {
    quiet = opts.quiet, json = opts.json, clock = opts.clock or core.clock,
    terminal = opts.terminal or core.terminal(),
    paint = opts.terminal and function(_, s) return s end or text.painter("stderr"),
    err = opts.err or function(s) io.stderr:write(s) io.stderr:flush() end,
    out = opts.out or function(s) io.stdout:write(s) io.stdout:flush() end,
    utf8 = text.utf8(),
  }
end

--- With --json, print an object as a line on stdout; otherwise nothing.
---@param object table
function progress.object(object)
  if not settings.err then progress.configure() end
  if settings.json then settings.out(core.json.encode(object) .. "\n") end
end

--- A line that stays, such as a warning or where a file went.
---@param line string
---@param style string|nil   a colour of syz.text; "yellow" marks a warning, which --quiet lets through
function progress.note(line, style)
  if not settings.err then progress.configure() end
  if settings.json then
    progress.object { note = line, level = style == "yellow" and "warning" or "info" }
    return
  end
  if settings.quiet and style ~= "yellow" then return end
  local bar = active and active.drawn and active
  settings.err(("%s%s\n"):format(bar and "\r\27[2K" or "", style and settings.paint(style, line) or line))
  if bar then bar:draw(true) end
end

--- Open a phase; a bar that is still open is closed.
---@param total integer|nil   steps, when they are known
---@param label string
---@return syz.Bar
function progress.new(total, label)
  if not settings.err then progress.configure() end
  if active then active:done() end
  local bar = setmetatable({ total = total, label = label, step = 0, text = "", started = settings.clock(),
                             last_drawn = -math.huge }, Bar)
  active = bar
  progress.object { phase = label, total = total }
  if not settings.terminal.tty and not settings.quiet and not settings.json then settings.err(label .. "\n") end
  bar:draw()
  return bar
end

--- Report that `step` is done, with what was measured there: a text, or a table whose numbers are shown.
---@param step integer
---@param what string|table<string, any>|nil
function Bar:update(step, what)
  -- a resumed phase starts late; its speed counts from there
  self.first = self.first or step - 1
  self.step = step
  if what then self.text = type(what) == "table" and describe(what) or what end
  self:draw(self.total and step >= self.total)
end

local function timing(bar)
  local elapsed = settings.clock() - bar.started
  local gone, left = bar.step - (bar.first or 0), (bar.total or 0) - bar.step
  local shown = text.duration(elapsed)
  if gone > 0 and left > 0 then shown = shown .. " <" .. text.duration(elapsed / gone * left) end
  return shown
end

function Bar:draw_terminal(count, time)
  local columns = math.max(12, (settings.terminal.width or 80) - 1)
  local head = text.clip(self.label, columns - 1) .. " "
  local tail = (" %s  %s  "):format(count, time)
  local room = columns - text.width(head) - text.width(tail)
  local length = self.total and math.min(24, room - math.min(text.width(self.text), 40)) or 0
  local drawn = ""
  if length >= 6 then drawn = meter(length, math.min(1, self.step / math.max(1, self.total)), settings.utf8) end
  room = room - text.width(drawn)
  if room < 0 then tail = text.clip(tail, math.max(1, columns - text.width(head))) end
  local measured = room > 1 and text.clip(self.text, room) or ""
  settings.err(("\r\27[2K%s%s%s%s"):format(head, settings.paint("cyan", drawn), tail,
    settings.paint("dim", measured)))
  self.drawn = true
end

function Bar:draw(force)
  if settings.quiet or settings.json then return end
  local now, tty = settings.clock(), settings.terminal.tty
  if not force and now - self.last_drawn < (tty and redraw_seconds or line_seconds) then return end
  local first = self.last_drawn == -math.huge
  self.last_drawn = now
  local count = self.total and ("%d/%d"):format(self.step, self.total) or tostring(self.step)
  if tty then
    self:draw_terminal(count, timing(self))
  elseif not first or force then -- the label is already there; the first line comes after a pause
    settings.err(("  %s  %s  %s"):format(count, timing(self), self.text):gsub("%s+$", "") .. "\n")
  end
end

--- Close the phase; its last state stays on the screen.
function Bar:done()
  if active == self then
    if self.drawn then
      self:draw(true)
      settings.err("\n")
    end
    active = nil
  end
end

return progress
