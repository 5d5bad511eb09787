--- The environment that recipes run in: an allow-list. It keeps honest recipes honest and strangers' mistakes harmless;
--- the boundary against malice is the operating system (docs/architecture.md).
--
-- A recipe sees copies of the pure libraries, `require` for "syz" and for files beside it, and nothing that reaches
-- files, processes, bytecode, other environments or the host's own tables.
local core = require "syz.core"
local nearest = require "syz.nearest"

local M = {}

local MAX_REPEAT = 64 * 1024 * 1024

local PLAIN = { "assert", "error", "ipairs", "next", "pairs", "pcall", "xpcall", "select", "tonumber", "tostring",
  "type", "unpack", "rawequal", "rawget", "rawset", "setmetatable", "print", "_VERSION" }

local function copy(from, names)
  local to = {}
  if names then
    for _, name in ipairs(names) do to[name] = from[name] end
  else
    for name, value in pairs(from) do to[name] = value end
  end
  return to
end

local function safe_string()
  local s = copy(string)
  s.dump = nil
  s.rep = function(text, n, separator)
    if type(text) ~= "string" and type(text) ~= "number" or type(tonumber(n)) ~= "number" then
      error("string.rep takes a text and how often it is repeated", 2)
    end
    text, n = tostring(text), tonumber(n)
    if n * (#text + #(separator or "")) > MAX_REPEAT then error("string.rep: the result would exceed 64 MiB", 2) end
    return string.rep(text, n, separator)
  end
  return s
end

-- A metatable in which a misspelt name of the library is an error that offers the nearest one, not a nil to be called.
local function spelling(name, value)
  local meta = copy(getmetatable(value) or {})
  meta.__index = meta.__index or function(_, key)
    local names = {}
    for known in pairs(value) do names[#names + 1] = tostring(known) end
    error(("there is no %s.%s%s"):format(name, tostring(key), nearest.hint(tostring(key), names)), 2)
  end
  return meta
end

-- A copy of the public module, tables and all, so that a recipe that overwrites a function harms only itself. Callable
-- tables keep their metatable.
local function detached(value, depth, name)
  if type(value) ~= "table" or depth == 0 then return value end
  local to = {}
  for key, item in pairs(value) do
    local inner = name == "syz" and type(key) == "string" and "syz." .. key or nil
    to[key] = detached(item, depth - 1, inner)
  end
  return setmetatable(to, name and spelling(name, value) or getmetatable(value))
end

local function loader(env)
  return function(chunk, name)
    if type(chunk) == "function" then
      local pieces = {}
      for piece in chunk do
        if piece == "" then break end
        pieces[#pieces + 1] = piece
      end
      chunk = table.concat(pieces)
    end
    if type(chunk) ~= "string" then error("load: a string is needed", 2) end
    return load(chunk, name or "=(load)", "t", env)
  end
end

local function read_chunk(path, env)
  if core.file.exists(path) ~= "file" then return nil, ("there is no recipe %q"):format(path) end
  local source, reason = core.file.read(path, 1024 * 1024)
  if not source then return nil, reason end
  if source:find("[%z\1-\8\27]") then return nil, path .. ": not Lua text (a recipe is a text file)" end
  return load(source, "@" .. path, "t", env)
end

local function requirer(env, folder, files)
  local loaded = {}
  return function(name)
    if type(name) ~= "string" then error("require: a name is needed", 2) end
    if loaded[name] ~= nil then return loaded[name] end
    if name == "syz" then
      loaded[name] = detached(require "syz", 4, "syz")
      return loaded[name]
    end
    if not name:match("^[%w_]+$") then
      error(("require %q: a recipe may require \"syz\" and files in its own folder"):format(name), 2)
    end
    local path = ("%s/%s.lua"):format(folder, name)
    if core.file.exists(path) ~= "file" then
      error(("require %q: there is no %s (a recipe sees \"syz\" and files in its own folder)"):format(name, path), 2)
    end
    local chunk, message = read_chunk(path, env)
    if not chunk then error(message, 2) end
    files[name .. ".lua"] = path
    local value = chunk()
    loaded[name] = value == nil and true or value
    return loaded[name]
  end
end

--- A fresh environment for a recipe that lies in `folder`.
---@param folder string
---@return table environment, table<string, string> files
---  files it has required so far, name to path: what must go along when the recipe is copied
function M.environment(folder)
  local env, files = copy(_G, PLAIN), {}
  env.string, env.math, env.table = safe_string(), copy(math), copy(table)
  env.coroutine, env.bit = copy(coroutine), copy(require "bit")
  env.os = copy(os, { "time", "clock", "date", "difftime" })
  -- strings share one metatable with the host: it shows its name only, and its methods are the safe ones
  local strings = getmetatable("")
  if type(strings) == "table" then
    strings.__index = safe_string()
    strings.__metatable = "string"
  end
  env.getmetatable = function(value)
    return type(value) == "table" and getmetatable(value) or nil
  end
  env.collectgarbage = function(what)
    if what ~= nil and what ~= "count" then error('collectgarbage: only "count" is allowed here', 2) end
    return collectgarbage "count"
  end
  env.load = loader(env)
  env.loadstring = env.load
  env.require = requirer(env, folder, files)
  env._G = env
  return env, files
end

--- Load a recipe file into an environment of its own.
---@param path string
---@return function|nil chunk
---@return table<string, string>|string files   as of environment(); the message when there is no chunk
function M.load(path)
  local env, files = M.environment(path:match("^(.*)/[^/]*$") or ".")
  local chunk, message = read_chunk(path, env)
  if not chunk then return nil, message end
  return chunk, files
end

return M
