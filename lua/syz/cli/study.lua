--- syz study: a blind page of images for human raters, and what their answers add up to.
local core = require "syz.core"
local files = require "syz.files"
local progress = require "syz.progress"

---@type syz.Command
local command = {
  name = "study",
  summary = "ask people: a blind rating page for runs, and the results of their ratings",
  details = [[
Draws every RUN at the same prompts and seeds and writes one page to hand to raters, FILE.html, and the key that
tells whose image is whose, FILE.key.json, which stays with you. With --folders the arguments are folders of images.
With --collect they are the key and the raters' files.]],
  positional = { { name = "RUN", many = true } },
  complete = "file",
  flags = {
    { name = "baseline", help = "also draw the pipeline as it was before training" },
    { name = "folders", help = "the arguments are folders of images; equal file names show the same prompt" },
    { name = "prompts", value = "FILE", help = "one prompt a line (what the first run was evaluated on)" },
    { name = "images", short = "n", value = "N", kind = "integer",
      help = "images per model (one a prompt, at most 50)" },
    { name = "steps", value = "N", kind = "integer", help = "sampling steps (as the first run was evaluated)" },
    { name = "guidance", value = "G", kind = "number", help = "guidance (as the first run was evaluated)" },
    { name = "title", value = "TEXT", help = "what raters read at the top (Image study)" },
    { name = "out", short = "o", value = "FILE", help = "the page (study.html); with --collect a folder" },
    { name = "collect", help = "the arguments are KEY.json RATER.json...: count what raters answered" },
  },
  examples = {
    "syz study runs/srpo-20250131-101500 --baseline --images 24 --out study.html",
    "syz study --folders pictures/before pictures/after --prompts prompts.txt",
    "syz study --collect study.key.json ada-*.json bo-*.json --out study-results",
  },
}

local building = { "baseline", "folders", "prompts", "images", "steps", "guidance", "title", "seed" }

local function collect(cli, given)
  for _, name in ipairs(building) do
    if given[name] then return cli.misuse(("--%s is for making a page, not for --collect"):format(name), command) end
  end
  if #given < 2 then return cli.misuse("--collect needs the key and at least one rater's file", command) end
  local paths = {}
  for i = 2, #given do paths[i - 1] = given[i] end
  local folder = given.out or given[1]:gsub("%.key%.json$", ""):gsub("%.json$", "") .. "-results"
  local results, problems = require("syz.study_collect").run(given[1], paths, folder)
  if not results then
    for _, line in ipairs(problems) do cli.fail(line) end
    return cli.failed
  end
  if given.json then
    cli.out(core.json.encode(results) .. "\n")
  else
    cli.out(require("syz.study_results").terminal(results) .. "\n" .. folder .. "/results.html\n")
  end
  return cli.ok
end

-- Why these arguments make no page, or nil.
local function unfit(given)
  if given.folders then
    for _, name in ipairs { "baseline", "steps", "guidance" } do
      if given[name] then return ("--%s is for runs, not for --folders"):format(name) end
    end
    if #given < 2 then return "--folders needs at least two folders" end
  elseif #given < 2 and not given.baseline then
    return "needs two runs to compare, or one and --baseline"
  end
  for _, name in ipairs { "images", "steps" } do
    if given[name] and given[name] < 1 then return ("--%s must be at least 1"):format(name) end
  end
  for i = 1, #given do
    for k = 1, i - 1 do
      if given[k] == given[i] then return ('"%s" is there twice'):format(given[i]) end
    end
  end
  local out = given.out or "study.html"
  if not out:match("%.html?$") then return ('--out "%s": the page is an .html file'):format(out) end
end

-- Answers to a page are worth nothing without its key, so another study's key is never overwritten.
local function keeps_another(path, key)
  local old = core.file.exists(path) and files.read_json(path)
  return old and old.study ~= key.study
end

function command.run(given)
  local cli = require "syz.cli"
  if given.collect then return collect(cli, given) end
  local reason = unfit(given)
  if reason then return cli.misuse(reason, command) end
  local study, sources = require "syz.study", require "syz.study_sources"
  local out, paths, seed = given.out or "study.html", {}, given.seed or 1
  for i = 1, #given do paths[i] = given[i] end
  local key_path = out:gsub("%.html?$", "") .. ".key.json"
  local spec = given.folders and sources.folders(paths, given) or sources.runs(paths, {
    prompts = given.prompts, images = given.images, baseline = given.baseline, steps = given.steps,
    guidance = given.guidance, seed = seed })
  spec.title, spec.seed = given.title or "Image study", seed
  local html, key = study.build(spec)
  if keeps_another(key_path, key) then
    return cli.fail(key_path .. " is the key of another study; choose another --out, or remove it")
  end
  core.file.write(out, html)
  files.write_json(key_path, key)
  if given.json then
    cli.out(core.json.encode { page = out, key = key_path, study = key.study } .. "\n")
    return cli.ok
  end
  cli.out(("%s\n%s\n"):format(out, key_path))
  progress.note(("%d images of %d models; give raters the page and keep the key"):format(#spec.models * #spec.prompts,
    #spec.models))
  return cli.ok
end

return command
