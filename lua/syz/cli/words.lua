--- syz words: what pairs of control words would reward, before any training.
local core = require "syz.core"
local control = require "syz.control"
local data = require "syz.data"
local files = require "syz.files"
local page = require "syz.words_page"
local progress = require "syz.progress"
local text = require "syz.text"
local words = require "syz.words"

local EMOJI = "examples/emoji/"

---@type syz.Command
local command = {
  name = "words",
  summary = "score pairs of control words on images before any training: a table and a picture",
  details = 'For each positive and negative word, SRP = s(image, "POSITIVE. prompt") - s(image, "NEGATIVE. prompt").\n'
    .. "Images need their prompt and a style in their metadata; or --model draws them with each word.\n"
    .. "Without flags it measures the emoji world. docs/words.md says how to read the table.",
  complete = "file",
  flags = {
    { name = "reward", short = "r", value = "DIR", many = true,
      help = "a CLIP-like reward's folder, or KIND:PATH such as hps:FILE; further ones are asked whether they agree ("
        .. EMOJI .. "reward)" },
    { name = "images", short = "i", value = "FILE",
      help = "a WebDataset .tar, or a folder with metadata.jsonl (" .. EMOJI .. "data/emoji64-test.tar)" },
    { name = "positive", value = "WORDS", help = "words to move towards, comma-separated" },
    { name = "negative", value = "WORDS", help = "words to move away from, comma-separated" },
    { name = "tokens", value = "DIR", help = "learned control tokens: <positive> and <negative> join the lists" },
    { name = "by", value = "FIELD", help = "the metadata field that names the style (style)" },
    { name = "wanted", short = "w", value = "VALUE", help = "its wanted values, comma-separated (fluent-3d)" },
    { name = "prompts", value = "FILE", help = "prompts that angle and length are averaged over; what --model draws" },
    { name = "model", short = "m", value = "DIR",
      help = "a pipeline that draws the images, once: they stay in OUT/images" },
    { name = "gradients", value = "N", kind = "integer", help = "images to measure the reward's gradient on (16)" },
    { name = "out", short = "o", value = "DIR", help = "folder of words.html, words.csv, words.json (runs/words)" },
  },
  examples = {
    "syz words",
    'syz words --positive "3D render,Glossy" --negative "Flat,Sticker" --wanted fluent-3d',
    "syz words --reward hps --reward pickscore --images photos/ --by kind --wanted photo",
    "syz words --model examples/emoji/pipeline --prompts examples/emoji/prompts-eval.txt",
  },
}

command.positive = { "3D render", "Glossy", "Detail", "Real" }
command.negative = { "Flat", "Sticker", "Black and white", "Soft shading", "Painting" }

local function split(list, default)
  if not list then return default end
  local out = {}
  for word in list:gmatch("[^,]+") do
    local trimmed = word:match("^%s*(.-)%s*$")
    if trimmed ~= "" then out[#out + 1] = trimmed end
  end
  return out
end

local function fixed(digits)
  return function(value) return value and ("%." .. digits .. "f"):format(value) or "-" end
end

local function percent(value) return ("%.1f %%"):format(value * 100) end

-- One list for the terminal, the page and the CSV: key, name, what it means, how it is shown.
local function columns(rewards)
  local list = {
    { key = "positive", name = "positive", help = "the word to move towards" },
    { key = "negative", name = "negative", help = "the word to move away from" },
    { key = "auc", name = "AUC", help = "chance that the wanted style has the higher SRP", format = fixed(3) },
    { key = "cosine", name = "cosine", help = "of the two texts' features", format = fixed(3) },
    { key = "length", name = "length", help = "of C1 - C2", format = fixed(3) },
    { key = "steady", name = "steady", help = "how far the prompts agree on the direction", format = fixed(2) },
    { key = "plain", name = "plain", help = "rank correlation with the plain score", format = fixed(2) },
    { key = "sensitivity", name = "gradient", help = "its norm relative to the plain score's", format = fixed(2) },
    { key = "broad", name = "broad", help = "share of the gradient in a 4 x 4 mosaic", format = percent },
    { key = "uniform", name = "one colour", help = "share of the gradient in one colour", format = percent },
  }
  if rewards > 1 then
    table.insert(list, 7, { key = "agreement", name = "agree", help = "rank correlation of SRP across the rewards",
                            format = fixed(2) })
  end
  for _, column in ipairs(list) do
    column.number = column.format ~= nil
    column.show = function(pair) return (column.format or tostring)(pair[column.key]) end
  end
  return list
end

local function print_table(cli, shown, found)
  local paint, rows = text.painter("stdout"), { {} }
  for c, column in ipairs(shown) do rows[1][c] = paint("bold", column.name) end
  for i, pair in ipairs(found.pairs) do
    rows[i + 1] = {}
    for c, column in ipairs(shown) do rows[i + 1][c] = column.show(pair) end
  end
  local widths = {}
  for _, row in ipairs(rows) do
    for c, entry in ipairs(row) do widths[c] = math.max(widths[c] or 0, text.width(entry)) end
  end
  for _, row in ipairs(rows) do
    for c, column in ipairs(shown) do
      if column.number then row[c] = text.pad(row[c], -widths[c]) end
    end
  end
  cli.out(text.columns(rows))
end

local function csv_field(value)
  local s = value == nil and "" or type(value) == "number" and ("%.6g"):format(value) or tostring(value)
  return s:find('[,"\n]') and '"' .. s:gsub('"', '""') .. '"' or s
end

local function to_csv(shown, found)
  local lines, keys = {}, {}
  for c, column in ipairs(shown) do keys[c] = column.key end
  lines[1] = table.concat(keys, ",")
  for i, pair in ipairs(found.pairs) do
    local cells = {}
    for c, column in ipairs(shown) do cells[c] = csv_field(pair[column.key]) end
    lines[i + 1] = table.concat(cells, ",")
  end
  return table.concat(lines, "\n") .. "\n"
end

local function to_objects(shown, found)
  local list = {}
  for i, pair in ipairs(found.pairs) do
    list[i] = {}
    for _, column in ipairs(shown) do list[i][column.key] = pair[column.key] end
    if pair.other_auc then list[i].other_auc = core.array(pair.other_auc) end
  end
  return list
end

local function warnings(found)
  local list, best = {}, found.pairs[1]
  local names = {}
  for _, pair in ipairs(found.pairs) do
    if pair.uniform > words.uniform_limit then names[#names + 1] = pair.positive .. " - " .. pair.negative end
  end
  if #names > 0 then
    list[1] = ("a tint satisfies a part of %s: over %d %% of the gradient is one colour (the plain reward: %.1f %%)")
      :format(table.concat(names, ", "), words.uniform_limit * 100, found.plain.uniform * 100)
  end
  if best.auc < 0.6 then
    list[#list + 1] = ("no pair tells the wanted style from the rest (AUC %.3f): the words say nothing to this reward")
      :format(best.auc)
  end
  return list
end

local function load_images(given, lists, folder, prompts)
  if given.model then
    local bar = progress.new(nil, "drawing")
    local set = require("syz.words_images").cached(folder .. "/images", {
      model = given.model, prompts = prompts, positive = lists.positive, negative = lists.negative, seed = given.seed,
      on_step = function(done, total)
        bar.total = total
        bar:update(done)
      end,
    })
    bar:done()
    return set, "word", { lists.positive[1] }
  end
  local path = given.images or EMOJI .. "data/emoji64-test.tar"
  if not core.file.exists(path) then
    error(path .. ": no such images; name a .tar or a folder with --images", 0)
  end
  return data.images(path), "style", { "fluent-3d" }
end

local function load_rewards(given)
  local list = {}
  for i, folder in ipairs(given.reward or { EMOJI .. "reward" }) do
    if not folder:find("^[%a_]+:") and core.file.exists(folder .. "/config.json") ~= "file" then
      error(("%s is no reward: it has no config.json; name a CLIP folder with --reward"):format(folder), 0)
    end
    list[i] = require("syz.rewards.open").open(folder)
  end
  return list
end

local function with_tokens(folder, reward, lists)
  local tokens, out = control.tokens(folder):attach(reward), {}
  local names = {}
  names.positive, names.negative = tokens:texts("")
  for side, list in pairs(lists) do
    out[side] = { names[side] }
    for _, word in ipairs(list) do table.insert(out[side], word) end
  end
  return out
end

local function measure(given, lists, folder)
  local rewards = load_rewards(given)
  if given.tokens then
    if #rewards > 1 then error("--tokens belong to one reward: name one --reward", 0) end
    lists = with_tokens(given.tokens, rewards[1], lists)
  end
  local prompts = given.prompts and data.prompts(given.prompts)
  local set, by, wanted = load_images(given, lists, folder, prompts)
  by, wanted = given.by or by, split(given.wanted, wanted)
  local bar = progress.new(nil, "measuring")
  local found = words.lab {
    rewards = rewards, images = set, positive = lists.positive, negative = lists.negative, by = by, wanted = wanted,
    prompts = prompts, gradients = given.gradients, seed = given.seed,
    on_step = function(done, total)
      bar.total = total
      bar:update(done)
    end,
  }
  bar:done()
  return found, { by = by, wanted = table.concat(wanted, ", "), columns = columns(#rewards) }
end

function command.run(given)
  local cli = require "syz.cli"
  local lists = {}
  for _, side in ipairs { "positive", "negative" } do
    lists[side] = split(given[side], command[side])
    if #lists[side] == 0 then return cli.misuse(("--%s names no word"):format(side), command) end
  end
  if given.wanted and #split(given.wanted) == 0 then return cli.misuse("--wanted names no value", command) end
  if given.model and given.images then return cli.misuse("takes --images or --model, not both", command) end
  if given.model and given.tokens then
    return cli.misuse("--tokens are known to the reward alone; a pipeline cannot draw them", command)
  end
  if given.model and not given.prompts then return cli.misuse("--model needs --prompts FILE to draw", command) end
  if given.gradients and given.gradients < 1 then return cli.misuse("--gradients must be at least 1", command) end
  local folder = given.out or "runs/words"
  local found, about = measure(given, lists, folder)
  about.warnings = warnings(found)
  about.reward = table.concat(given.reward or { EMOJI .. "reward" }, ", ")
  core.file.mkdir(folder)
  local result = { pairs = core.array(to_objects(about.columns, found)), plain = found.plain, reward = about.reward,
                   by = about.by, wanted = about.wanted, images = #found.images.meta,
                   warnings = core.array(about.warnings) }
  files.write_json(folder .. "/words.json", result)
  core.file.write(folder .. "/words.csv", to_csv(about.columns, found))
  core.file.write(folder .. "/words.html", page.render(found, about))
  if given.json then
    result.page = folder .. "/words.html"
    cli.out(core.json.encode(result) .. "\n")
    return cli.ok
  end
  print_table(cli, about.columns, found)
  local paint = text.painter("stderr")
  for _, line in ipairs(about.warnings) do io.stderr:write(paint("yellow", "note: ") .. line .. "\n") end
  cli.out(("\n%s\n"):format(folder .. "/words.html"))
  return cli.ok
end

return command
