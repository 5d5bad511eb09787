--- Fields of methods and other declared tables: which there are, what they may hold, and settings that are a value or a
--- Lua function. A wrong field is one line that names it, and the nearest name when it was mistyped.
local nearest = require "syz.nearest"

local M = {}

local function is(kind, value)
  if kind == "any" then return true end
  if kind == "integer" then return type(value) == "number" and value == math.floor(value) end
  return type(value) == kind
end

local function article(kind)
  return (kind:match("^[aeio]") and "an " or "a ") .. kind
end

local function described(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) == "number" then return tostring(value) end
  return article(type(value))
end

--- The keys of a table, sorted.
---@param t table<string, any>
---@return string[]
function M.names(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- Check that every key of `options` is known and holds one of the kinds it may.
---@param owner string                  for the message: "srpo"
---@param options table
---@param spec table<string, string>    field to kinds: "number|function"; "integer" is a whole number, "any" anything
---@param level integer|nil             of the error, as error() counts it from here (2)
function M.check(owner, options, spec, level)
  level = (level or 2) + 1
  if type(options) ~= "table" then
    error(("%s takes a table of fields, not %s"):format(owner, described(options)), level)
  end
  local known = M.names(spec)
  for key, value in pairs(options) do
    local kinds = spec[key]
    if not kinds then
      error(("%s has no field %q%s"):format(owner, tostring(key), nearest.hint(tostring(key), known)), level)
    end
    local fits, names = false, {}
    for kind in kinds:gmatch("[^|]+") do
      fits = fits or is(kind, value)
      names[#names + 1] = article(kind)
    end
    if not fits then
      error(("%s: %s must be %s, not %s"):format(owner, key, table.concat(names, " or "), described(value)), level)
    end
  end
end

--- Raise the line about a value that is none of `choices`.
---@param owner string
---@param name string
---@param value any
---@param choices string[]
---@param level integer|nil
function M.choice(owner, name, value, choices, level)
  for _, choice in ipairs(choices) do
    if value == choice then return value end
  end
  local quoted = {}
  for i, choice in ipairs(choices) do quoted[i] = ("%q"):format(choice) end
  local list = table.concat(quoted, ", ", 1, #quoted - 1)
  if #quoted > 1 then list = list .. " or " end
  local close = type(value) == "string" and nearest.nearest(value, choices)
  error(("%s: %s must be %s, not %s%s"):format(owner, name, list .. quoted[#quoted], described(value),
    close and ('; did you mean "%s"?'):format(close) or ""), (level or 2) + 1)
end

--- A setting that is a number or a function of some numbers, as a function that checks what comes out.
---@param value number|function
---@param name string       for the message
---@param check nil|fun(n: number): boolean, string   what else must hold, and how to say it
---@return fun(...): number
function M.setting(value, name, check)
  return function(...)
    local result = value
    if type(value) == "function" then result = value(...) end
    local ok, reason = type(result) == "number" and result == result, "a number is needed"
    if ok and check then ok, reason = check(result) end
    if not ok then
      local where = " is"
      if type(value) == "function" then
        local arguments = { ... }
        for i, argument in ipairs(arguments) do arguments[i] = tostring(argument) end
        where = ("(%s) returned"):format(table.concat(arguments, ", "))
      end
      error(("%s%s %s: %s"):format(name, where, described(result), reason), 0)
    end
    return result
  end
end

--- Values the user gave over those of a named preset over nothing.
---@param owner string
---@param options table
---@param presets table<string, table>
---@return table
function M.preset(owner, options, presets)
  local merged = {}
  if options.preset ~= nil then
    M.choice(owner, "preset", options.preset, M.names(presets), 3)
    for key, value in pairs(presets[options.preset]) do merged[key] = value end
  end
  for key, value in pairs(options) do merged[key] = value end
  return merged
end

return M
