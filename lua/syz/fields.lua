--- Named arguments: `f { name = value }` with every name known and every value of its type.

local nearest = require "syz.nearest"

local fields = {}

local function fits(value, kinds)
  for kind in kinds:gmatch "[%a]+" do
    if type(value) == kind then return true end
    if kind == "integer" and type(value) == "number" and value == math.floor(value) and math.abs(value) < 2 ^ 53 then
      return true
    end
  end
  return false
end

--- Raise, in the caller's caller, what is wrong with named arguments.
---@param what string                    the function, as it is called in a recipe
---@param given any                      what it was given
---@param known table<string, string>    name to kinds, as in "number|function"; "integer" is a whole number, and a "!" at
---  the end says that the field is needed
---@return table given                   an empty table for nil, when nothing is needed
function fields.check(what, given, known)
  if given == nil then given = {} end
  if type(given) ~= "table" then
    error(("%s takes named arguments, %s { ... }, not a %s"):format(what, what, type(given)), 3)
  end
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  for key, value in pairs(given) do
    local kinds = known[key]
    if not kinds then
      error(("%s has no field %q%s"):format(what, tostring(key), nearest.hint(tostring(key), names)), 3)
    end
    if not fits(value, kinds) then
      local wanted = kinds:gsub("!", ""):gsub("|", " or a ")
      error(("%s: %s must be a %s, not a %s%s"):format(what, key, wanted, type(value),
        type(value) == "number" and (" (%s)"):format(value) or ""), 3)
    end
  end
  for _, name in ipairs(names) do
    if known[name]:sub(-1) == "!" and given[name] == nil then error(("%s needs the field %s"):format(what, name), 3) end
  end
  return given
end

return fields
