--- TensorBoard event files: dropping what was logged after a step, so that a resumed run does not tell things twice.
--
-- A file is a row of records: length u64, checksum u32, data, checksum u32, little-endian. The data is a protobuf
-- message whose field 2 is the step. Records are kept or dropped whole, so their checksums stay valid.

local core = require "syz.core"

local events = {}

local function u32(bytes, at)
  local a, b, c, d = bytes:byte(at, at + 3)
  return a + b * 256 + c * 65536 + d * 16777216
end

local function varint(data, at)
  local value, scale = 0, 1
  for i = at, math.min(at + 9, #data) do
    local b = data:byte(i)
    value = value + b % 128 * scale
    if b < 128 then return value, i + 1 end
    scale = scale * 128
  end
  return nil
end

--- The step of one event message; 0 when it has none, as protobuf leaves zeros out.
---@param data string
---@return number
function events.step(data)
  local at = 1
  while at and at <= #data do
    local tag
    tag, at = varint(data, at)
    if not tag then break end
    local field, wire = math.floor(tag / 8), tag % 8
    if wire == 0 then
      local value
      value, at = varint(data, at)
      if field == 2 then return value or 0 end
    elseif wire == 1 then at = at + 8
    elseif wire == 5 then at = at + 4
    elseif wire == 2 then
      local length
      length, at = varint(data, at)
      at = length and at + length
    else break end
  end
  return 0
end

--- The records of an event file up to and including `step`; a torn last record is dropped.
---@param bytes string
---@param step integer
---@return string
function events.keep(bytes, step)
  local kept, at = {}, 1
  while at + 15 <= #bytes do
    local length = u32(bytes, at)
    local last = at + 12 + length + 3
    if u32(bytes, at + 4) ~= 0 or last > #bytes then break end
    if events.step(bytes:sub(at + 12, at + 11 + length)) <= step then kept[#kept + 1] = bytes:sub(at, last) end
    at = last + 1
  end
  return table.concat(kept)
end

--- Drop the events after `step` from all event files of a folder.
---@param folder string
---@param step integer
function events.truncate(folder, step)
  for _, name in ipairs(core.file.list(folder)) do
    if name:match("^events%.out%.tfevents") then
      local path = folder .. "/" .. name
      local bytes = assert(core.file.read(path, 2 ^ 40))
      local kept = events.keep(bytes, step)
      if #kept < #bytes then core.file.write(path, kept) end
    end
  end
end

return events
