--- What a raised value says to a person: one line, without the position inside this library, whatever was raised.

local message = {}

local OUTGROWN = "Lua data outgrew its memory in one piece (SYZ_LUA_MEMORY sets the limit; keep bulk data in tensors)"

--- One harmless line: what breaks lines or moves a cursor becomes a space.
---@param text string
---@return string
function message.line(text)
  return (text:gsub("[%z\1-\31\127]+", " "):gsub("%s+$", ""))
end

--- Without "…/lua/syz/file.lua:12: " in front.
---@param text string
---@return string
function message.bare(text)
  return (text:gsub("^%S-lua/syz/%S-%.lua:%d+: ", ""))
end

--- The line for anything that error() was given. A table is never asked for its text: it may be a stranger's.
---@param raised any
---@return string
function message.of(raised)
  if type(raised) == "number" then return tostring(raised) end
  if raised == nil then return "an error without a message" end
  if type(raised) ~= "string" then return ("a %s was raised as error; raise a text"):format(type(raised)) end
  if raised == "not enough memory" then return OUTGROWN end
  local line = message.line(message.bare(raised))
  if line:match "stack overflow$" then return line .. ": a function calls itself without end" end
  return line ~= "" and line or "an error with an empty message"
end

return message
