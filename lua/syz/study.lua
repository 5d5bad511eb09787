--- A blind study: images of several models, shuffled, on one page for raters; which is whose stays in a key file.
--
-- The page holds prompts, pictures and random ids. The key file maps the ids to models and prompts. Questions and
-- grades are those of the paper's human evaluation.

local core = require "syz.core"
local data = require "syz.data"
local page = require "syz.report_page"

local study = {}

study.formats = { key = "syz-study-key-1", ratings = "syz-study-ratings-1", results = "syz-study-results-1" }

study.dimensions = {
  { key = "alignment", name = "Text-image alignment",
    question = "Does the image show what the text says: the things, their number, colour and place, the style?" },
  { key = "realism", name = "Realism and artifacts",
    question = "Does it look genuine for its kind, free of distorted shapes, smears and an artificial sheen?" },
  { key = "detail", name = "Detail and complexity",
    question = "Is it rich in clear, meaningful detail and texture?" },
  { key = "aesthetics", name = "Aesthetics",
    question = "Are composition, colour and light pleasing?" },
}

study.grades = {
  { key = "excellent", name = "Excellent", meaning = "nothing to wish for" },
  { key = "good", name = "Good", meaning = "small flaws that do not disturb" },
  { key = "pass", name = "Pass", meaning = "acceptable, with flaws that one notices" },
  { key = "fail", name = "Fail", meaning = "not acceptable" },
}

-- Everything that tells one study from another, as 64 hexadecimal digits: order and ids follow from it. It is not on
-- the page, and it depends on the models' names, so that the page and a well-known seed do not give the key away.
local function digest_of(spec)
  local parts = { tostring(spec.seed), spec.title }
  for m, model in ipairs(spec.models) do
    parts[#parts + 1] = model.name
    for p, prompt in ipairs(spec.prompts) do
      parts[#parts + 1] = prompt
      parts[#parts + 1] = core.sha256(spec.pictures[m][p].bytes)
    end
  end
  return core.sha256(table.concat(parts, "\0"))
end

-- Put images of one prompt apart, so that nobody compares where judging one by one was asked for. The order is a
-- circle: each rater starts elsewhere on it.
local function separate(items, prompts, generator)
  local n = #items
  local function text(i) return prompts[items[(i - 1) % n + 1].prompt] end
  local function clashes(i) return text(i) == text(i - 1) or text(i) == text(i + 1) end
  for i = 1, n do
    local tries = 0
    while clashes(i) and tries < 4 * n do
      local j = generator:integer(1, n)
      items[i], items[j] = items[j], items[i]
      -- undo an exchange that only moved the trouble
      if clashes(i) or clashes(j) then items[i], items[j] = items[j], items[i] end
      tries = tries + 1
    end
  end
end

local function shuffled(spec, digest)
  local generator = core.generator(tonumber(digest:sub(1, 12), 16))
  local items = {}
  for m in ipairs(spec.models) do
    for p in ipairs(spec.prompts) do items[#items + 1] = { model = m, prompt = p } end
  end
  local order, mixed = data.permutation(generator, #items), {}
  for i, from in ipairs(order) do
    mixed[i] = items[from]
    mixed[i].id = core.sha256(("%s item %d"):format(digest, i)):sub(1, 16)
  end
  separate(mixed, spec.prompts, generator)
  return mixed
end

-- JSON inside a script element: no "<" may end it or open a comment.
local function embedded_json(value)
  return (core.json.encode(value):gsub("<", "\\u003c"))
end

local function template()
  local path = assert(package.searchpath("syz.study_page", (package.path:gsub("%.lua", ".html"))))
  return assert(core.file.read(path))
end

local function render(spec, id, items)
  local shown = {}
  for i, item in ipairs(items) do
    local picture = spec.pictures[item.model][item.prompt]
    shown[i] = { id = item.id, prompt = spec.prompts[item.prompt],
                 image = ("data:image/%s;base64,%s"):format(picture.kind, core.base64(picture.bytes)) }
  end
  local fill = {
    title = page.escape(spec.title),
    data = embedded_json { study = id, title = spec.title, dimensions = core.array(study.dimensions),
                           grades = core.array(study.grades), items = core.array(shown) },
  }
  return (template():gsub("{{(%w+)}}", fill))
end

-- Whether `part` stands in `title` as whole words.
local function has_words(title, part)
  local from, to = title:find(part, 1, true)
  while from do
    if not title:sub(from - 1, from - 1):find("%w") and not title:sub(to + 1, to + 1):find("%w") then return true end
    from, to = title:find(part, from + 1, true)
  end
  return false
end

---@class syz.StudySpec
---@field title string
---@field seed integer
---@field models { name: string, source: string }[]
---@field prompts string[]
---@field pictures { kind: "png"|"jpeg", bytes: string }[][]   pictures[model][prompt]
---@field sampling table|nil   how the pictures were made; goes into the key file

--- Make the page and its key.
---@param spec syz.StudySpec
---@return string html
---@return table key
function study.build(spec)
  for _, model in ipairs(spec.models) do
    if has_words(spec.title:lower(), model.name:lower()) then
      error(("the title %q names the model %q, and raters read it; choose another --title"):format(spec.title,
        model.name), 2)
    end
  end
  local digest = digest_of(spec)
  local id = core.sha256(digest .. " study"):sub(1, 12)
  local items, places = shuffled(spec, digest), {}
  for _, item in ipairs(items) do places[item.id] = { model = item.model, prompt = item.prompt } end
  local html = render(spec, id, items)
  return html, {
    format = study.formats.key, study = id, title = spec.title, seed = spec.seed, page_sha256 = core.sha256(html),
    models = core.array(spec.models), prompts = core.array(spec.prompts), sampling = spec.sampling, items = places,
  }
end

return study
