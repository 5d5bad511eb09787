--- Reading a command line against a command's declaration, and printing that declaration as help.

local nearest = require "syz.nearest"
local text = require "syz.text"

local args = {}

---@class syz.Flag
---@field name string        without dashes
---@field short string|nil   one letter
---@field value string|nil   what its argument is called in help; nil: a switch
---@field optional boolean|nil   the argument may be left out; it is taken only when `accepts(word)` says so
---@field accepts (fun(word: string): boolean)|nil
---@field many boolean|nil   may be given several times; its value is then a list
---@field kind "integer"|"number"|nil
---@field help string

---@class syz.Command
---@field name string
---@field summary string
---@field positional { name: string, many: boolean|nil, optional: boolean|nil }[]|nil
---@field flags syz.Flag[]|nil
---@field examples string[]|nil
---@field complete "file"|"folder"|nil   what completion offers for its arguments
---@field switches (fun(positional: string[]): syz.Flag[]|nil)|nil   further switches, which its arguments bring along;
---   those that were typed come as `given.switches`, a list of names
---@field run fun(given: table): integer|nil

--- Flags every command takes.
---@type syz.Flag[]
args.global = {
  { name = "device", value = "NAME", help = "where to compute: cpu (default), cuda, cuda:1" },
  { name = "threads", value = "N", kind = "integer", help = "processor threads to use" },
  { name = "seed", value = "N", kind = "integer", help = "seed of all randomness" },
  { name = "quiet", short = "q", help = "no progress; warnings and results only" },
  { name = "json", help = "results and progress as JSON, one object a line" },
  { name = "trace", help = "show a Lua stack trace when something fails" },
  { name = "help", short = "h", help = "this text" },
}

--- All flags of a command, its own first.
---@param command syz.Command
---@return syz.Flag[]
function args.flags(command)
  local all = {}
  for _, flag in ipairs(command.flags or {}) do all[#all + 1] = flag end
  for _, flag in ipairs(args.global) do all[#all + 1] = flag end
  return all
end

local function index(command)
  local by_word, words = {}, {}
  for _, flag in ipairs(args.flags(command)) do
    by_word["--" .. flag.name] = flag
    words[#words + 1] = "--" .. flag.name
    if flag.short then by_word["-" .. flag.short] = flag end
  end
  return by_word, words
end

local function typed(flag, word)
  if not flag.kind then return word end
  local n = tonumber(word)
  if not n or n - n ~= 0 or (flag.kind == "integer" and (n ~= math.floor(n) or n < 0 or n > 2 ^ 53)) then
    return nil, ("--%s takes %s, not \"%s\""):format(flag.name,
      flag.kind == "integer" and "a whole number" or "a number", word)
  end
  return n
end

local function store(given, flag, value)
  if not flag.many then
    given[flag.name] = value
    return
  end
  given[flag.name] = given[flag.name] or {}
  table.insert(given[flag.name], value)
end

-- The value of `flag`, from "--flag=value" or the next word; returns it and how many further words were used.
local function argument(flag, inline, following)
  if inline then return inline, 0 end
  if flag.optional then
    local takes = following and following:sub(1, 1) ~= "-" and (not flag.accepts or flag.accepts(following))
    return takes and following or true, takes and 1 or 0
  end
  if not following then return nil, ("--%s needs a value: --%s %s"):format(flag.name, flag.name, flag.value) end
  return following, 1
end

local function check_count(command, given)
  local wanted = command.positional or {}
  for i, slot in ipairs(wanted) do
    if not given[i] and not slot.optional and not given.help then return nil, "needs " .. slot.name end
  end
  local last = wanted[#wanted]
  if #given > #wanted and not (last and last.many) then
    return nil, ('does not know what to do with "%s"'):format(given[#wanted + 1])
  end
  return given
end

local function unknown_flag(word, names)
  return nil, ("unknown flag %s%s"):format(word, nearest.hint(word, names))
end

-- Flags that the command does not know: switches that its arguments declare, or mistakes.
local function check_switches(command, given, unknown, names)
  if #unknown == 0 then return given end
  local known = {}
  for _, flag in ipairs(command.switches(given) or {}) do
    known["--" .. flag.name] = true
    names[#names + 1] = "--" .. flag.name
  end
  given.switches = {}
  for i, word in ipairs(unknown) do
    local name, inline = word:match("^(%-%-[^=]+)=(.*)$")
    if not known[name or word] then return unknown_flag(name or word, names) end
    if inline then return nil, ("%s takes no value; there is --set %s=%s"):format(name, name:sub(3), inline) end
    given.switches[i] = word:sub(3)
  end
  return given
end

--- Read the words after a command's name.
---@param command syz.Command
---@param words string[]
---@return table|nil given    positional arguments by number, flags by name
---@return string|nil reason
function args.parse(command, words)
  local by_word, names = index(command)
  local given, i, only_positional, unknown = {}, 1, false, {}
  while i <= #words do
    local word = words[i]
    if only_positional or word:sub(1, 1) ~= "-" or word == "-" then
      given[#given + 1] = word
    elseif word == "--" then
      only_positional = true
    else
      local name, inline = word:match("^(%-%-[^=]+)=(.*)$")
      local flag = by_word[name or word]
      if not flag and not (command.switches and word:match("^%-%-")) then return unknown_flag(name or word, names) end
      if not flag then
        unknown[#unknown + 1] = word
      elseif not flag.value then
        if inline then return nil, ("--%s takes no value"):format(flag.name) end
        given[flag.name] = true
      else
        local value, used = argument(flag, inline, words[i + 1])
        if value == nil then return nil, used end
        local reason
        if value ~= true then value, reason = typed(flag, value) end
        if value == nil then return nil, reason end
        store(given, flag, value)
        i = i + used
      end
    end
    i = i + 1
  end
  local ok, reason = check_switches(command, given, unknown, names)
  if not ok then return nil, reason end
  return check_count(command, given)
end

local function flag_label(flag)
  local label = (flag.short and "-" .. flag.short .. ", " or "") .. "--" .. flag.name
  if flag.value then label = label .. (flag.optional and " [" .. flag.value .. "]" or " " .. flag.value) end
  return label
end

--- "syz run RECIPE [flags]"
---@param command syz.Command
---@return string
function args.usage(command)
  local parts = { "syz", command.name }
  for _, slot in ipairs(command.positional or {}) do
    local name = slot.name .. (slot.many and "..." or "")
    parts[#parts + 1] = slot.optional and "[" .. name .. "]" or name
  end
  if command.flags then parts[#parts + 1] = "[flags]" end
  return table.concat(parts, " ")
end

--- A command's help.
---@param command syz.Command
---@param paint fun(style: string, s: string): string
---@return string
function args.help(command, paint)
  local out = { paint("bold", args.usage(command)), "", "  " .. command.summary }
  if command.details then out[#out + 1] = "\n  " .. command.details:gsub("\n", "\n  ") end
  local function section(title, flags)
    if not flags or #flags == 0 then return end
    local rows = {}
    for i, flag in ipairs(flags) do rows[i] = { paint("cyan", flag_label(flag)), flag.help } end
    out[#out + 1] = "\n" .. paint("bold", title) .. "\n" .. text.columns(rows, 2):gsub("\n$", "")
  end
  section("Flags", command.flags)
  section("Everywhere", args.global)
  if command.examples then
    out[#out + 1] = "\n" .. paint("bold", "Examples")
    for _, line in ipairs(command.examples) do out[#out + 1] = "  " .. line end
  end
  return table.concat(out, "\n") .. "\n"
end

return args
