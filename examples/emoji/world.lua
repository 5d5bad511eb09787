--- The emoji world in words: how a drawing's metadata becomes a caption, and which subjects and prompts there are.
--
-- A sample's metadata is a table { subject = "red apple", style = "noto", tags = { "fruit", "red" }, ... } as the
-- WebDataset in data/ holds it. A caption is "red apple", or "Soft shading. red apple" with the style named in front.

local world = {}

--- The five drawing styles and the words for them. The order numbers the classes of a style classifier.
world.styles = {
  { name = "fluent-3d", phrase = "3D render" },
  { name = "fluent-flat", phrase = "Flat" },
  { name = "fluent-high-contrast", phrase = "Black and white" },
  { name = "noto", phrase = "Soft shading" },
  { name = "twemoji", phrase = "Sticker" },
}

--- Where subjects.txt and the prompts lie, and how to read a text file. A program that runs elsewhere sets the folder;
-- one that keeps Lua's io library from its scripts sets the reader.
world.folder = "examples/emoji"
function world.read(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local text = file:read("*a")
  file:close()
  return text
end

local by_name = {}
for index, style in ipairs(world.styles) do by_name[style.name] = { index = index, phrase = style.phrase } end

local function style_of(name)
  local style = by_name[name]
  if not style then error(("unknown style %q (see world.styles)"):format(tostring(name)), 3) end
  return style
end

--- The words for a style of the data set: "noto" -> "Soft shading".
---@param name string
---@return string
function world.phrase(name) return style_of(name).phrase end

--- Its class, 1 to 5.
---@param name string
---@return integer
function world.style_index(name) return style_of(name).index end

-- A source of uniform numbers in [0,1). One given number serves any number of choices: what is left of it after a
-- choice is uniform again.
local function source(rng)
  if type(rng) == "function" then
    return {
      chance = function(p) return rng() < p end,
      pick = function(n) return math.floor(rng() * n) + 1 end,
    }
  end
  local u = rng
  if type(u) ~= "number" or u < 0 or u >= 1 then
    error("world.caption: rng must be a function or a number in [0,1)", 3)
  end
  return {
    chance = function(p)
      if u < p then
        u = u / p
        return true
      end
      u = p < 1 and (u - p) / (1 - p) or 0
      return false
    end,
    pick = function(n)
      local index = math.min(math.floor(u * n), n - 1)
      u = u * n - index
      return index + 1
    end,
  }
end

-- Tags that say something the subject does not already say.
local function useful_tags(meta)
  local words, tags = {}, {}
  for word in meta.subject:lower():gmatch("%S+") do words[word] = true end
  for _, tag in ipairs(meta.tags or {}) do
    if not words[tag:lower()] then tags[#tags + 1] = tag end
  end
  return tags
end

--- One caption for a drawing.
---@param meta table metadata with subject, style, tags
---@param rng function|number a function that returns uniform numbers in [0,1), or one such number
---@param opts table|nil probabilities: drop (.0) of the empty caption, style (.5) of naming the style, tag (.0) of
--- adding a tag after the subject
---@return string
function world.caption(meta, rng, opts)
  opts = opts or {}
  local draw = source(rng)
  if opts.drop and draw.chance(opts.drop) then return "" end
  local text = meta.subject
  if draw.chance(opts.style or 0.5) then text = style_of(meta.style).phrase .. ". " .. text end
  if opts.tag and draw.chance(opts.tag) then
    local tags = useful_tags(meta)
    if #tags > 0 then text = text .. ", " .. tags[draw.pick(#tags)] end
  end
  return text
end

local function lines(name)
  local path = world.folder .. "/" .. name
  local text, message = world.read(path)
  if not text then error(("cannot read %s: %s"):format(path, tostring(message)), 3) end
  local list = {}
  for line in text:gmatch("[^\r\n]+") do list[#list + 1] = line end
  return list
end

--- The subjects that the generator learns, a balanced mixture from the start, so that the first n are a smaller world.
---@param n integer|nil how many; all of them without it
---@return string[]
function world.subjects(n)
  local list = lines("subjects.txt")
  for index = #list, (n or #list) + 1, -1 do list[index] = nil end
  return list
end

--- Plain prompts, without a style: "train" to align on, "eval" to measure on; no prompt is in both.
---@param kind "train"|"eval"
---@return string[]
function world.prompts(kind)
  if kind == "train" then return lines("prompts.txt") end
  if kind == "eval" then return lines("prompts-eval.txt") end
  error(('world.prompts: kind must be "train" or "eval", not %q'):format(tostring(kind)), 2)
end

return world
