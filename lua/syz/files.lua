--- Small helpers over syz.core's files that several modules share.

local core = require "syz.core"

local files = {}

--- The table in a JSON file, or nil and why not.
---@param path string
---@return table|nil
---@return string|nil reason
function files.read_json(path)
  local bytes, reason = core.file.read(path)
  if not bytes then return nil, reason end
  local value
  value, reason = core.json.decode(bytes)
  if type(value) ~= "table" then return nil, path .. ": " .. (reason or "expected an object") end
  return value
end

--- The table in a JSON file that has to be there.
---@param path string
---@return table
function files.need_json(path)
  local value, reason = files.read_json(path)
  if not value then error(reason, 0) end
  return value
end

--- Write a table as indented JSON, whole or not at all.
---@param path string
---@param value table
function files.write_json(path, value)
  core.file.write(path, core.json.encode(value, true) .. "\n")
end

--- Whether a picture can be written there: asked before the work that makes it.
---@param path string
---@return boolean|nil ok
---@return string|nil reason
function files.picture(path)
  local extension = (path:match("%.(%w+)$") or ""):lower()
  if extension ~= "png" and extension ~= "jpg" and extension ~= "jpeg" then
    return nil, path .. ": images are saved as .png, .jpg or .jpeg"
  end
  local folder = path:match("^(.+)/[^/]*$") or path:sub(1, 1) == "/" and "/" or "."
  if core.file.exists(folder) ~= "folder" then return nil, ("%s: there is no folder %s"):format(path, folder) end
  return true
end

--- Remove a folder if it is there.
---@param path string
function files.remove_folder(path)
  if core.file.exists(path) then core.file.remove_tree(path) end
end

--- Remove a file if it is there.
---@param path string
function files.remove_file(path)
  if core.file.exists(path) then core.file.remove(path) end
end

--- The objects of a JSON-lines file, each with its line; a line that is not JSON (a torn last one) is left out.
---@param path string
---@return { object: table, line: string }[]   empty when there is no such file
function files.read_lines(path)
  local found = {}
  if core.file.exists(path) ~= "file" then return found end
  for line in assert(core.file.read(path, 2 ^ 40)):gmatch("([^\n]*)\n") do
    local object = core.json.decode(line)
    if type(object) == "table" then found[#found + 1] = { object = object, line = line } end
  end
  return found
end

return files
