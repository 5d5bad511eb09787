--- Reading a study's key and its raters' files: every one is checked against the key before anything is counted.

local core = require "syz.core"
local study = require "syz.study"

local ratings = {}

--- Grade to its place on the scale: excellent is 1.
ratings.position = {}
for i, grade in ipairs(study.grades) do ratings.position[grade.key] = i end

local known_dimension = {}
for _, dimension in ipairs(study.dimensions) do known_dimension[dimension.key] = true end

local function read(path, what)
  local bytes, reason = core.file.read(path)
  if not bytes then return nil, reason end
  local value
  value, reason = core.json.decode(bytes)
  if type(value) ~= "table" then
    return nil, ("%s is not a whole JSON file (%s); %s"):format(path, reason or "no object", what)
  end
  return value
end

-- Whether every item points at a model and a prompt that the key lists.
local function sound(key)
  if type(key.study) ~= "string" or type(key.items) ~= "table" or type(key.models) ~= "table"
    or type(key.prompts) ~= "table" or #key.models == 0 or next(key.items) == nil then return false end
  for _, model in ipairs(key.models) do
    if type(model) ~= "table" or type(model.name) ~= "string" then return false end
  end
  for _, place in pairs(key.items) do
    if type(place) ~= "table" or not key.models[place.model] or not key.prompts[place.prompt] then return false end
  end
  return true
end

--- Read a study's key.
---@param path string
---@return table|nil key
---@return string|nil reason
function ratings.key(path)
  local key, reason = read(path, "take the .key.json that was written beside the page")
  if not key then return nil, reason end
  if key.format == study.formats.ratings then
    return nil, path .. " holds a rater's answers; the first file is the key, the others are the raters'"
  end
  if key.format ~= study.formats.key then return nil, path .. " is not the key of a study" end
  if not sound(key) then return nil, path .. " has been damaged: its items, models and prompts do not fit" end
  return key
end

local function check_item(path, key, id, given)
  if not key.items[id] then return ("%s rates an image %q that the study does not have"):format(path, id) end
  if type(given) ~= "table" then return ("%s: the answers for %s are no object"):format(path, id) end
  for dimension, grade in pairs(given) do
    if not known_dimension[dimension] then return ("%s answers an unknown question %q"):format(path, dimension) end
    if not ratings.position[grade] then
      return ("%s gives an unknown grade %q for %s"):format(path, tostring(grade), dimension)
    end
  end
end

-- One rater's file: { name, path, ratings, rated, complete } or nil and one line.
local function rater_of(path, key)
  local file, reason = read(path, "ask the rater to save it again")
  if not file then return nil, reason end
  if file.format == study.formats.key then return nil, path .. " is a key; only the first file is" end
  if file.format ~= study.formats.ratings then return nil, path .. " is not a file of ratings" end
  if file.study ~= key.study then
    return nil, ("%s belongs to another study (%s, not %s)"):format(path, tostring(file.study), key.study)
  end
  if type(file.rater) ~= "string" or file.rater == "" then return nil, path .. " does not name its rater" end
  if type(file.ratings) ~= "table" or next(file.ratings) == nil then return nil, path .. " holds no ratings" end
  local rated = 0
  for id, given in pairs(file.ratings) do
    reason = check_item(path, key, id, given)
    if reason then return nil, reason end
    local answers = 0
    for _ in pairs(given) do answers = answers + 1 end
    if answers == #study.dimensions then rated = rated + 1 end
  end
  return { name = file.rater, path = path, ratings = file.ratings, rated = rated }
end

--- Read the raters' files. Nothing is counted unless all of them are sound.
---@param paths string[]
---@param key table
---@return table[]|nil raters
---@return string[]|nil problems   one line each
function ratings.raters(paths, key)
  local raters, problems, by_name = {}, {}, {}
  for _, path in ipairs(paths) do
    local rater, reason = rater_of(path, key)
    local twin = rater and by_name[rater.name:lower()]
    if twin then
      reason = ("%s: %q has already answered in %s; keep one of the two"):format(path, rater.name, twin.path)
    elseif rater then
      by_name[rater.name:lower()] = rater
      raters[#raters + 1] = rater
    end
    problems[#problems + 1] = reason
  end
  if #problems > 0 then return nil, problems end
  return raters
end

return ratings
