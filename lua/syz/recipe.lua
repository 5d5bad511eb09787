--- Recipes: Lua chunks that declare options and return an experiment.
--
-- An experiment is a table with a method `execute(run)`. A recipe is loaded in the allow-list environment of
-- syz.sandbox; what it may turn is declared by `syz.options`, which answers with the values for this run.

local core = require "syz.core"
local device = require "syz.device"
local files = require "syz.files"
local identity = require "syz.identity"
local message = require "syz.message"
local options = require "syz.options"
local sandbox = require "syz.sandbox"

local recipe = {}

-- The recipe that is being loaded: its overrides on the way in, its declarations on the way out.
local loading

-- Raised by options() to leave a recipe early; told apart by identity.
local help_wanted = {}

-- Every recipe has the option `device`, which recipe.load() reads, whether or not it declares it.
local function device_set(sets, declared)
  local kept = {}
  for _, set in ipairs(sets or {}) do
    if set.key ~= "device" or declared then kept[#kept + 1] = set end
  end
  if declared and device.chosen() then kept[#kept + 1] = { key = "device", value = device.chosen() } end
  return kept
end

--- Declare what can be turned. Exposed as `syz.options`.
---@param spec table<string, any>   name = { default, "help" [, choices | check] }, or name = default
---@return table values             the resolved values; an undeclared name is an error
function recipe.options(spec)
  local context = loading or {}
  if context.declared then error("a recipe declares its options once", 2) end
  local ok, declared = pcall(options.declare, spec)
  if not ok then error(declared, 2) end
  context.declared = declared
  if context.help then error(help_wanted, 0) end
  local values, reason = options.resolve(declared, context.config, device_set(context.sets, declared.device),
    context.config_path)
  if values and declared.device then
    ok, reason = pcall(device.use, values.device)
    values = ok and values or nil
  end
  if not values then
    context.misuse = reason
    error(reason, 2)
  end
  context.values = values
  return values
end

-- The line of the only `return` that begins a line. A call that is returned leaves no frame of the recipe on the stack,
-- so an error that finds none while the recipe is loaded came from there.
local function return_line(path)
  local found, number = nil, 0
  for line in ((core.file.read(path) or "") .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    if line:match "^return%f[^%w_]" then
      if found then return nil end
      found = number
    end
  end
  return found
end

--- One line that says what failed and, where a line of the recipe is on the stack, which.
---@param path string
---@param loading_now boolean|nil   the recipe itself is running, not what it returned
---@return fun(raised: any): any
function recipe.located(path, loading_now)
  return function(raised)
    if raised == help_wanted or type(raised) == "table" and raised.resumable then return raised end
    local line = message.of(raised)
    if line:sub(1, #path + 1) == path .. ":" or line == "interrupted" then return line end
    for level = 2, 60 do
      local frame = debug.getinfo(level, "Sl")
      if not frame then break end
      if frame.source == "@" .. path and frame.currentline > 0 then
        return ("%s:%d: %s"):format(path, frame.currentline, line)
      end
    end
    local number = loading_now and return_line(path)
    return number and ("%s:%d: %s"):format(path, number, line) or loading_now and path .. ": " .. line or line
  end
end

local function read_config(path)
  local bytes, reason = core.file.read(path)
  if not bytes then return nil, reason end
  local ok, config = pcall(core.yaml.decode, bytes, path)
  if not ok then return nil, message.of(config) end
  if config == core.null then config = {} end
  if type(config) ~= "table" or config[1] ~= nil then return nil, path .. ": expected `name: value` lines" end
  return config
end

--- The recipe's name: its file's, without folder and extension; a copy in a run's folder bears that run's recipe name.
---@param path string
---@return string
function recipe.name(path)
  local folder = path:match("^(.*)/recipe%.lua$")
  local record = folder and files.read_json(folder .. "/run.json")
  if record and type(record.name) == "string" then return record.name end
  return (path:match("([^/]+)%.lua$") or path:match("([^/]+)$") or path)
end

---@class syz.Recipe
---@field path string
---@field name string
---@field source string
---@field required table<string, string>   files beside it that it required, name to path
---@field declared syz.Option[]     empty when the recipe declares nothing
---@field values table              resolved options
---@field inputs table            models and prompt files it read, with fingerprints (syz.identity)
---@field experiment table|nil      absent when only help was asked for

--- Load and run a recipe's chunk.
---@param path string
---@param overrides { sets: table[]|nil, config: string|nil, help: boolean|nil }|nil
---@return syz.Recipe|nil
---@return string|nil reason
---@return "usage"|"recipe"|nil kind   whose mistake it is: the command line's or the recipe's
function recipe.load(path, overrides)
  overrides = overrides or {}
  if core.file.exists(path) == "folder" then
    local inside = core.file.exists(path .. "/recipe.lua") and (": its recipe is %s/recipe.lua"):format(path) or ""
    return nil, ("%s is a folder, a recipe is a .lua file%s"):format(path, inside), "usage"
  end
  if core.file.exists(path) ~= "file" then return nil, path .. ": no such recipe", "usage" end
  local config, reason
  if overrides.config then
    config, reason = read_config(overrides.config)
    if not config then return nil, reason, "usage" end
  end
  local sets = overrides.sets or {}
  for _, set in ipairs(sets) do
    if set.key == "device" then
      local ok, raised = pcall(device.choose, tostring(set.value))
      if not ok then return nil, message.of(raised), "usage" end
    end
  end
  local chunk, required = sandbox.load(path)
  if not chunk then return nil, required, "recipe" end
  local context = { help = overrides.help, config = config, config_path = overrides.config,
                    sets = overrides.sets }
  loading = context
  identity.forget()
  local ok, result = xpcall(chunk, recipe.located(path, true))
  loading = nil
  local loaded = { path = path, name = recipe.name(path), source = assert(core.file.read(path)), required = required,
                   declared = context.declared or {}, values = context.values or {} }
  if not ok and result == help_wanted then return loaded end
  if context.misuse then return nil, context.misuse, "usage" end
  if not ok then
    -- a full stack and an empty heap come without the handler's help
    local line = message.of(result)
    if line:sub(1, #path + 1) ~= path .. ":" and line ~= "interrupted" then line = path .. ": " .. line end
    return nil, line, "recipe"
  end
  local given = device_set(sets)[1]
  if not context.declared and (given or config and next(config) ~= nil) then
    return nil, ("%s declares no options; nothing can be set"):format(path), "usage"
  end
  if overrides.help then return loaded end
  if type(result) ~= "table" or type(result.execute) ~= "function" then
    return nil, path .. ": a recipe ends with `return syz.train { ... }` or another experiment", "recipe"
  end
  loaded.experiment, loaded.inputs = result, identity.taken()
  return loaded
end

return recipe
