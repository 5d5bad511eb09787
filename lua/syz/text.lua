--- Text for people: colour where it is wanted, aligned tables, numbers and durations in few characters.

local core = require "syz.core"

local text = {}

local codes = { bold = "1", dim = "2", red = "31", green = "32", yellow = "33", blue = "34", cyan = "36" }

--- A function that colours text, or returns it as it is when the stream is no terminal or NO_COLOR is set.
---@param stream "stdout"|"stderr"
---@return fun(style: string, s: string): string
function text.painter(stream)
  local terminal = core.terminal()
  local colour = stream == "stdout" and terminal.stdout or stream == "stderr" and terminal.tty
  local no_color = core.environment("NO_COLOR")
  if (no_color and no_color ~= "") or core.environment("TERM") == "dumb" then colour = false end
  return function(style, s)
    if not colour then return s end
    return ("\27[%sm%s\27[0m"):format(codes[style], s)
  end
end

--- Whether the locale says that the terminal shows UTF-8.
---@return boolean
function text.utf8()
  local locale = core.environment("LC_ALL")
  if not locale or locale == "" then locale = core.environment("LC_CTYPE") end
  if not locale or locale == "" then locale = core.environment("LANG") end
  return locale ~= nil and locale:lower():find("utf%-?8") ~= nil
end

--- Whether bytes are UTF-8: no stray or missing continuation, nothing overlong, no surrogates, nothing past U+10FFFF.
---@param s string
---@return boolean
function text.valid_utf8(s)
  local at = s:find("[\128-\255]")
  while at do
    local a, b, c, d = s:byte(at, at + 3)
    local function tail(byte, low, high) return byte and byte >= (low or 0x80) and byte <= (high or 0xbf) end
    local length
    if a >= 0xc2 and a <= 0xdf and tail(b) then length = 2
    elseif a >= 0xe0 and a <= 0xef and tail(b, a == 0xe0 and 0xa0, a == 0xed and 0x9f) and tail(c) then length = 3
    elseif a >= 0xf0 and a <= 0xf4 and tail(b, a == 0xf0 and 0x90, a == 0xf4 and 0x8f) and tail(c) and tail(d) then
      length = 4
    else return false end
    at = s:find("[\128-\255]", at + length)
  end
  return true
end

--- Columns a string takes: escapes none, each UTF-8 sequence one.
---@param s string
---@return integer
function text.width(s)
  s = s:gsub("\27%[[%d;]*m", "")
  local _, continued = s:gsub("[\128-\191]", "")
  return #s - continued
end

--- Pad to `width` columns; a negative width pads on the left.
---@param s string
---@param width integer
---@return string
function text.pad(s, width)
  local space = (" "):rep(math.abs(width) - text.width(s))
  return width < 0 and space .. s or s .. space
end

--- Cut plain text to `width` columns, never inside a character.
---@param s string
---@param width integer
---@return string
function text.clip(s, width)
  if text.width(s) <= width then return s end
  local out, columns = {}, 0
  for character in s:gmatch("[%z\1-\127\192-\255][\128-\191]*") do
    if columns + 1 >= width then break end
    out[#out + 1], columns = character, columns + 1
  end
  return table.concat(out) .. (text.utf8() and "…" or "~")
end

--- Lines of aligned columns, two spaces apart; a cell that is a number is set to the right.
---@param rows any[][]
---@param indent integer|nil
---@return string
function text.columns(rows, indent)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, text.width(tostring(cell))) end
  end
  local lines = {}
  for r, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      local width = type(cell) == "number" and -widths[i] or widths[i]
      cells[i] = text.pad(tostring(cell), width)
    end
    lines[r] = ((" "):rep(indent or 0) .. table.concat(cells, "  ")):gsub("%s+$", "")
  end
  return table.concat(lines, "\n") .. "\n"
end

--- A number in at most about seven characters: 0.3217, 1.2e-05, 20.
---@param n number
---@return string
function text.number(n)
  if n ~= n then return "nan" end
  if n == math.floor(n) and math.abs(n) < 1e6 then return ("%d"):format(n) end
  return (("%.4g"):format(n):gsub("e([+-])0+", "e%1"))
end

--- Whole numbers with their thousands apart: 12,345,678.
---@param n number
---@return string
function text.count(n)
  local digits = ("%.0f"):format(n)
  return (digits:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

--- 1.5 KiB, 39.1 MiB.
---@param bytes number
---@return string
function text.bytes(bytes)
  local units = { "B", "KiB", "MiB", "GiB", "TiB" }
  local unit = 1
  while bytes >= 1024 and unit < #units do bytes, unit = bytes / 1024, unit + 1 end
  return (unit == 1 and "%.0f %s" or "%.1f %s"):format(bytes, units[unit])
end

--- 0:07, 12:40, 1:02:03.
---@param seconds number
---@return string
function text.duration(seconds)
  local s = math.floor(seconds + 0.5)
  if s >= 3600 then return ("%d:%02d:%02d"):format(s / 3600, s / 60 % 60, s % 60) end
  return ("%d:%02d"):format(s / 60, s % 60)
end

--- A path in single quotes where a shell would otherwise split or expand it.
---@param path string
---@return string
function text.shell(path)
  if path:match("^[%w%./_%-+=:,@]+$") then return path end
  return "'" .. path:gsub("'", "'\\''") .. "'"
end

return text
