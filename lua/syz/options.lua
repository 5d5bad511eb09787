--- What a recipe lets its user turn: declarations, and values from defaults < YAML < command line.
--
-- A declaration is `name = { default, "help" [, choices | check] }`, or `name = default` alone. Defaults are numbers,
-- booleans, strings, or lists of numbers or strings; a default gives its option its type. `check(value)` returns true,
-- or nil and a reason.

local core = require "syz.core"
local nearest = require "syz.nearest"

local options = {}

---@class syz.Option
---@field name string
---@field default any
---@field help string
---@field kind "number"|"boolean"|"string"|"list"
---@field item "number"|"string"|nil      what a list holds
---@field choices any[]|nil
---@field check (fun(value: any): any, string|nil)|nil

--- A value as a person would type it.
---@param value any
---@return string
function options.show(value)
  if type(value) == "table" then
    local parts = {}
    for i, v in ipairs(value) do parts[i] = options.show(v) end
    return table.concat(parts, ",")
  end
  if type(value) == "number" then
    local short = ("%.6g"):format(value)
    return tonumber(short) == value and short or ("%.17g"):format(value)
  end
  return tostring(value)
end

local function declare_one(name, entry)
  local declared = type(entry) == "table" and entry or { entry }
  local option = { name = name, default = declared[1], help = declared[2] or "" }
  option.kind = type(option.default) == "table" and "list" or type(option.default)
  if option.kind == "list" then
    option.item = type(option.default[1]) == "number" and "number" or "string"
    for _, v in ipairs(option.default) do
      if type(v) ~= option.item then error(("option '%s': a list holds only %ss"):format(name, option.item), 0) end
    end
  elseif option.kind ~= "number" and option.kind ~= "boolean" and option.kind ~= "string" then
    error(("option '%s': its default is a number, boolean, string or list, not a %s"):format(name, option.kind), 0)
  end
  if type(option.help) ~= "string" then
    error(("option '%s': write { default, \"help\" }; a list as default goes in its own braces"):format(name), 0)
  end
  if type(declared[3]) == "function" then option.check = declared[3] else option.choices = declared[3] end
  return option
end

--- Read a recipe's declarations.
---@param spec table<string, any>
---@return syz.Option[] declared   sorted by name, and reachable by name too
function options.declare(spec)
  if type(spec) ~= "table" then error("options takes a table { name = { default, \"help\" } }", 0) end
  local declared = {}
  for name, entry in pairs(spec) do
    if type(name) ~= "string" or not name:match("^[%a_][%w_]*$") then
      error(("option names are words, not '%s'"):format(tostring(name)), 0)
    end
    declared[#declared + 1] = declare_one(name, entry)
  end
  table.sort(declared, function(a, b) return a.name < b.name end)
  for _, option in ipairs(declared) do declared[option.name] = option end
  return declared
end

local function wrong(option, value)
  local kind = option.kind == "list" and "list of " .. option.item .. "s (a,b,c)" or option.kind
  local article = "a "
  return nil, ('%s is %s%s such as %s, not "%s"'):format(option.name, article, kind,
    option.default ~= "" and options.show(option.default) or '""', options.show(value))
end

local function to_number(text)
  local n = tonumber(text)
  return n and n == n and math.abs(n) < math.huge and n or nil
end

local words = { ["true"] = true, yes = true, on = true, ["1"] = true,
                ["false"] = false, no = false, off = false, ["0"] = false }

local function split(text)
  if text:sub(1, 1) == "[" then
    local ok, list = pcall(core.yaml.decode, text)
    if ok and type(list) == "table" then return list end
  end
  local list = {}
  if text ~= "" then
    for part in (text .. ","):gmatch("%s*(.-)%s*,") do list[#list + 1] = part end
  end
  return list
end

local convert = {}

function convert.number(option, value)
  local n = type(value) == "number" and value or type(value) == "string" and to_number(value)
  if not n then return wrong(option, value) end
  return n
end

function convert.boolean(option, value)
  if type(value) == "boolean" then return value end
  local b = words[tostring(value):lower()]
  if b == nil then return wrong(option, value) end
  return b
end

function convert.string(option, value)
  if type(value) == "number" then return options.show(value) end
  if type(value) ~= "string" then return wrong(option, value) end
  return value
end

function convert.list(option, value)
  local list = type(value) == "string" and split(value) or value
  if type(list) ~= "table" then list = { list } end
  local out = {}
  for i, v in ipairs(list) do
    local item = convert[option.item](option, v)
    if item == nil then return wrong(option, value) end
    out[i] = item
  end
  return out
end

local function allowed(option, value)
  if not option.choices then return true end
  for _, item in ipairs(option.kind == "list" and value or { value }) do
    local found, names = false, {}
    for i, choice in ipairs(option.choices) do
      names[i] = options.show(choice)
      found = found or choice == item
    end
    if not found then
      return nil, ('%s cannot be "%s"%s'):format(option.name, options.show(item),
        nearest.hint(options.show(item), names))
    end
  end
  return true
end

--- Bring `value` (a string from the command line, or any YAML value) to the option's type and check it.
---@param option syz.Option
---@param value any
---@return any value
---@return string|nil reason   when the value is nil
function options.convert(option, value)
  local out, reason = convert[option.kind](option, value)
  if out == nil then return nil, reason end
  local ok
  ok, reason = allowed(option, out)
  if not ok then return nil, reason end
  if option.check then
    ok, reason = option.check(out)
    if not ok then return nil, ("%s = %s: %s"):format(option.name, options.show(out), reason or "not allowed") end
  end
  return out
end

local function names_of(declared)
  local names = {}
  for i, option in ipairs(declared) do names[i] = option.name end
  return names
end

local function unknown_key(names, level)
  return function(_, key)
    error(('this recipe declares no option "%s"%s'):format(tostring(key), nearest.hint(tostring(key), names)), level)
  end
end

--- The values of all options: defaults, then `config`, then `sets`, each overriding the one before.
---@param declared syz.Option[]
---@param config table<string, any>|nil
---@param sets { key: string, value: any }[]|nil
---@param config_path string|nil   the file that `config` was read from
---@return table|nil values        reading or writing an undeclared name is an error
---@return string|nil reason
function options.resolve(declared, config, sets, config_path)
  local names, values = names_of(declared), {}
  for _, option in ipairs(declared) do
    local value, reason = options.convert(option, option.default)
    if value == nil then return nil, "default of " .. reason end
    values[option.name] = value
  end
  local function assign(origin, key, value)
    local option = type(key) == "string" and declared[key]
    if not option then
      return nil, ('%s: no option "%s"%s'):format(origin, tostring(key), nearest.hint(tostring(key), names))
    end
    local out, reason = options.convert(option, value)
    if out == nil then return nil, origin .. ": " .. reason end
    values[key] = out
    return true
  end
  for key, value in pairs(config or {}) do
    local ok, reason = assign(config_path or "--config", key, value)
    if not ok then return nil, reason end
  end
  for _, set in ipairs(sets or {}) do
    local ok, reason = assign("--set " .. set.key .. "=" .. options.show(set.value), set.key, set.value)
    if not ok then return nil, reason end
  end
  return setmetatable(values, { __index = unknown_key(names, 2), __newindex = unknown_key(names, 2) })
end

--- What differs from the defaults, as NAME=VALUE a person would type.
---@param declared syz.Option[]
---@param values table
---@return string[]
function options.changed(declared, values)
  local list = {}
  for _, option in ipairs(declared) do
    local shown = options.show(values[option.name])
    if shown ~= options.show(option.default) then list[#list + 1] = option.name .. "=" .. shown end
  end
  return list
end

--- Resolved values as YAML with each option's help above it; reading it back gives the same values.
---@param declared syz.Option[]
---@param values table
---@return string
function options.to_yaml(declared, values)
  local lines = {}
  for _, option in ipairs(declared) do
    local value = values[option.name]
    if type(value) == "table" then value = core.array(value) end
    if option.help ~= "" then lines[#lines + 1] = "# " .. option.help:gsub("%s+", " ") .. "\n" end
    lines[#lines + 1] = core.yaml.encode({ [option.name] = value }):gsub("%s*$", "") .. "\n"
  end
  return table.concat(lines)
end

return options
