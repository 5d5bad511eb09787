--- `syz console`: try things at a prompt. Expressions print their values, tensors a short summary; Tab completes names,
--- fields, methods and paths; Ctrl-C stops a running operation and keeps the session; Ctrl-D leaves.
local core = require "syz.core"
local message = require "syz.message"

local M = {}

local KEYWORDS = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local",
  "nil", "not", "or", "repeat", "return", "then", "true", "until", "while" }

-- ---- showing values ----

local function one_line(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) == "function" then return "function" end
  if type(value) ~= "table" then return tostring(value) end
  local n = 0
  for _ in pairs(value) do n = n + 1 end
  return ("table of %d"):format(n)
end

--- What a value looks like at the prompt: a table shows one level of its fields, sorted, at most 40.
---@param value any
---@return string
function M.show_value(value)
  if type(value) ~= "table" then return one_line(value) end
  local keys, lines = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
    return type(a) == "number"
  end)
  for i, key in ipairs(keys) do
    if i > 40 then
      lines[#lines + 1] = ("  ... and %d more"):format(#keys - 40)
      break
    end
    lines[#lines + 1] = ("  %s = %s"):format(type(key) == "string" and key or "[" .. tostring(key) .. "]",
      one_line(value[key]))
  end
  return #lines == 0 and "{}" or "{\n" .. table.concat(lines, "\n") .. "\n}"
end

-- ---- reading ----

--- Compile what was typed: an expression (with or without a leading "=") or statements.
---@return function|nil chunk, string|nil message, boolean|nil incomplete  more lines are needed
function M.compile(text, env)
  local expression = text:gsub("^%s*=", "")
  local chunk, unfinished = load("return " .. expression, "=console", "t", env)
  if chunk then return chunk end
  local reason
  chunk, reason = load(text, "=console", "t", env)
  if chunk then return chunk end
  return nil, reason, (reason .. unfinished):find("near '<eof>'", 1, true) ~= nil
end

--- Names that may stand where `word` stands: globals and keywords, or the fields and methods behind "a.b:".
---@param env table
---@param word string
---@return string[]
function M.candidates(env, word)
  local path, dot, start = word:match("^(.-)([.:])([%w_]*)$")
  local list, seen = {}, {}
  local function offer(prefix, key)
    if type(key) == "string" and key:match("^[%a_][%w_]*$") and not seen[key] then
      seen[key] = true
      list[#list + 1] = prefix .. key
    end
  end
  local function matches(key, text) return type(key) == "string" and key:sub(1, #text) == text end
  if not dot then
    for key in pairs(env) do if matches(key, word) then offer("", key) end end
    for _, key in ipairs(KEYWORDS) do if matches(key, word) then offer("", key) end end
  else
    local chunk = path:match("^[%w_.]+$") and load("return " .. path, "=completion", "t", env)
    local ok, object = pcall(chunk or error)
    local fields = ok and type(object) == "table" and object or nil
    if ok and type(object) == "userdata" then
      local meta = debug.getmetatable(object)
      fields = type(meta.__index) == "table" and meta.__index or {}
      local has_methods, names = pcall(function() return object:methods() end)
      for _, name in ipairs(has_methods and names or {}) do
        if matches(name, start) then offer(path .. dot, name) end
      end
    elseif ok and type(object) == "string" then
      fields = string
    end
    local depth = 0
    while type(fields) == "table" and depth < 4 do
      for key in pairs(fields) do if matches(key, start) then offer(path .. dot, key) end end
      local meta = debug.getmetatable(fields)
      fields, depth = meta and meta.__index, depth + 1
    end
  end
  table.sort(list)
  return list
end

local function path_candidates(word)
  local folder, start = word:match("^(.*/)([^/]*)$")
  local list = {}
  local place = folder or "."
  if core.file.exists(place) ~= "folder" then return list end
  for _, name in ipairs(core.file.list(place)) do
    if name:sub(1, #(start or word)) == (start or word) then list[#list + 1] = (folder or "") .. name end
  end
  return list
end

local function completer(env)
  return function(before, word)
    local in_string = select(2, before:gsub('"', "")) % 2 == 1
    if in_string then return path_candidates(word) end
    local head = before:match("[%w_.:]*$")
    local list = M.candidates(env, head .. word)
    for i, name in ipairs(list) do list[i] = name:sub(#head + 1) end
    return list
  end
end

-- ---- the session ----

local function state_folder()
  local base = core.environment "XDG_STATE_HOME"
  if not base or base == "" then base = (core.environment "HOME" or ".") .. "/.local/state" end
  return base .. "/syzygy"
end

local HELP = [[
syz                the library: syz.<Tab> lists it; syz.pipeline("folder") loads a pipeline
x                  an expression prints its value, a tensor its summary
show(images)       writes a PNG of [H,W,3] or a grid of [N,H,W,3] and prints its path
ls(value)          one level of a table
time(f, ...)       runs f and prints how long it took
recipe             the recipe named on the command line; recipe.execute and its fields
Ctrl-C stops what runs, Ctrl-D leaves.]]

local function helpers(env, folder)
  local pictures = 0
  env.show = function(images, path)
    pictures = pictures + 1
    local target = path or ("%s/show-%03d.png"):format(folder, pictures)
    core.scope(function()
      core.image.write(target, images:rank() == 4 and (require("syz.images").grid(images)) or images)
    end)
    print(target)
  end
  env.ls = function(value) print(M.show_value(value)) end
  env.time = function(f, ...)
    local started = core.clock()
    local results = { f(...) }
    print(("%.3f s"):format(core.clock() - started))
    return unpack(results)
  end
  env.help = function() print(HELP) end
end

--- Run one chunk and print what it returns. Errors are one line.
---@return boolean ok
function M.evaluate(chunk)
  local results = { xpcall(chunk, function(raised) return (message.of(raised):gsub("^console:%d+: ", "")) end) }
  core.clear_interrupt()
  core.defer_interrupt(false)
  if not results[1] then
    io.stderr:write("error: ", message.of(results[2]), "\n")
    return false
  end
  for i = 2, #results do print(M.show_value(results[i])) end
  return true
end

--- The command: returns the exit code.
---@param given table  parsed command line; given[1] names a recipe to load first
function M.main(given)
  local host = require "syz.host"
  local env = require("syz.sandbox").environment "."
  local folder = state_folder()
  local remembers = pcall(core.file.mkdir, folder)
  env.syz = env.require "syz"
  helpers(env, folder)
  local path = given[1]
  if path then
    local cli = require "syz.cli"
    local loaded, reason, kind = require("syz.recipe").load(path, {})
    if not loaded then return cli.fail(reason, kind == "usage" and cli.misused or cli.failed) end
    env.recipe = loaded.experiment or loaded
  end
  local history = remembers and folder .. "/history" or nil
  if history then host.history(history) end
  print(("syzygy %s, LuaJIT; help() for help, Ctrl-D to leave"):format(core.version()))
  local complete, pending = completer(env), nil
  while true do
    local line = host.readline(pending and "...> " or "syz> ", complete)
    if not line then
      print ""
      return 0
    end
    if line:match "%S" then host.remember(line, history) end
    local text = pending and pending .. "\n" .. line or line
    if text:match "%S" then
      local chunk, reason, incomplete = M.compile(text, env)
      if chunk then
        pending = nil
        M.evaluate(chunk)
        if core.terminating() then return 143 end
      elseif incomplete and line ~= "" then
        pending = text
      else
        pending = nil
        io.stderr:write("error: ", message.of(reason), "\n")
      end
    end
  end
end

return M
