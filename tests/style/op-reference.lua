--- Writes docs/op-reference.md from the catalogue of operations; with --check, fails when the file is not current.
-- Run from the repository's root: luajit tests/style/op-reference.lua

local TARGET = "docs/op-reference.md"

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

--- Comments, OP(...) and UNARY(...) entries of a catalogue file in order: { kind, text }.
local function entries(text)
  local list, at = {}, 1
  while true do
    local comment = text:find("/%*", at)
    local entry, _, kind = text:find("\n(%u+)(%b())", at)
    if not comment and not entry then return list end
    if comment and (not entry or comment < entry) then
      local stop = select(2, text:find("%*/", comment))
      list[#list + 1] = { "comment", text:sub(comment + 2, stop - 2) }
      at = stop + 1
    else
      list[#list + 1] = { kind, text:match("\n%u+(%b())", entry):sub(2, -2) }
      at = entry + #kind
    end
  end
end

local function words(comment)
  return (comment:gsub("%s*\n%s*%*?%s*", " "):gsub("^%s+", ""):gsub("%s+$", ""):gsub("NULL", "nil"))
end

--- Names of the C parameters, without the lengths that only lists have.
local function parameter_names(params, signature)
  local names, lists = {}, {}
  for letter in signature:gmatch(".") do
    names[#names + 1] = letter
    if letter == "L" then names[#names + 1] = "count" end
  end
  local i = 0
  for parameter in params:gmatch("[^,()]+") do
    i = i + 1
    if names[i] ~= "count" then lists[#lists + 1] = parameter:match("([%a_][%w_]*)%s*$") end
  end
  return lists
end

local TYPES = { T = "tensor", t = "tensor or nil", L = "list of tensors", i = "integer", b = "boolean", f = "number",
                S = "list of integers" }

--- One line of the reference: how it is called from Lua, and what each argument is.
local function describe(name, signature, params, flags, comment)
  local names, types = parameter_names(params, signature), {}
  local i = 0
  for letter in signature:gmatch(".") do
    i = i + 1
    types[i] = ("%s: %s"):format(names[i], TYPES[letter])
  end
  local call = ("%s:%s(%s)"):format(names[1], name, table.concat(names, ", ", 2))
  if signature:sub(1, 1) ~= "T" then call = ("syz.ops.%s(%s)"):format(name, table.concat(names, ", ")) end
  local notes = {}
  if comment then notes[#notes + 1] = comment:match("[.:]$") and comment or comment .. "." end
  if flags:find "NOGRAD" then notes[#notes + 1] = "Not differentiable." end
  if flags:find "ANY" then notes[#notes + 1] = "Any dtype." end
  local lines = { ("**`%s`**  "):format(call), ("`%s`"):format(table.concat(types, ", ")) }
  if #notes > 0 then
    lines[2] = lines[2] .. "  "
    lines[3] = table.concat(notes, " ")
  end
  return table.concat(lines, "\n")
end

local function unary()
  local names = {}
  for _, entry in ipairs(entries(read "kernels/unary.def")) do
    if entry[1] == "UNARY" then names[#names + 1] = "`" .. entry[2]:match("^[%w_]+") .. "`" end
  end
  return "`x:NAME()`, one element at a time: " .. table.concat(names, ", ") .. "."
end

local function reference()
  local out = { [[
# Operations

Written from `engine/ops/ops.def` by `luajit tests/style/op-reference.lua`; do not edit it by hand.

Every operation is a Lua method of its first tensor (and `syz.ops.NAME(...)`), and a C function `syz_NAME(...)` with the
same arguments in the same order. Arguments at the end may be left out: a tensor is then nil, a boolean false, a number
0, a list empty. Dimensions and indices count from 0, and a negative dimension counts from the end. All are
differentiable unless the entry says otherwise, and compute in f32: bf16 and f16 arguments are converted on the way in,
and the result on the way out. `+ - * / ^` and unary minus are the operations of the same meaning.
]] }
  local pending
  for _, entry in ipairs(entries(read "engine/ops/ops.def")) do
    local kind, text = entry[1], entry[2]
    if kind == "comment" then
      local file, about = text:match("^ %-%-%-%- ([%w_/]+)%.c:? ?(.-) ?%-%-")
      if file then
        local family = file:match("[^/]+$")
        local title = family ~= "unary" and about ~= "" and family .. ": " .. about or family
        if family ~= "checkpoint" then out[#out + 1] = ("## %s\n"):format(title) end
        if family == "unary" then out[#out + 1] = unary() .. "\n" end
        pending = nil
      else
        pending = words(text)
      end
    elseif kind == "OP" then
      local name, signature, _, flags, params = text:match('^([%w_]+), "(%a+)", ([^,]+), ([^,]+),%s*(%b())')
      if not pending or not pending:find("^internal:") then
        out[#out + 1] = describe(name, signature, params, flags, pending) .. "\n"
      end
      pending = nil
    end
  end
  return (table.concat(out, "\n"):gsub("\n+$", "\n"))
end

local wanted = reference()
if arg[1] == "--check" then
  local ok, current = pcall(read, TARGET)
  if ok and current == wanted then return end
  io.stderr:write(TARGET, " is not what engine/ops/ops.def says: run luajit tests/style/op-reference.lua\n")
  os.exit(1)
end
local file = assert(io.open(TARGET, "wb"))
file:write(wanted)
file:close()
