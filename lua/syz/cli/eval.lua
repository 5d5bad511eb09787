--- syz eval RUN: measure what a run has trained against what it started from, on the recipe's prompts or on others.
local core = require "syz.core"
local checkpoint = require "syz.checkpoint"
local data = require "syz.data"
local evaluation = require "syz.eval"
local fields = require "syz.fields"
local files = require "syz.files"
local images = require "syz.images"
local loop = require "syz.loop"
local progress = require "syz.progress"
local recipe = require "syz.recipe"
local run = require "syz.run"
local text = require "syz.text"

---@type syz.Command
local command = {
  name = "eval",
  summary = "measure a run's model against the one it started from",
  details = "Loads the run's own recipe and settings; writes RUN/eval-NAME.json and two pictures. The number after\n"
    .. "each change is its standard error over the prompts: a change of less than twice that may be chance.",
  positional = { { name = "RUN" } },
  complete = "folder",
  flags = {
    { name = "prompts", value = "FILE", help = "other prompts, one a line (default: the recipe's)" },
    { name = "checkpoint", value = "STEP",
      help = "a checkpoint such as step-000020, best or newest (default: RUN/model, else best, else newest)" },
  },
  examples = {
    "syz eval runs/srpo-20250131-101500",
    "syz eval runs/srpo-20250131-101500 --checkpoint step-000020",
    "syz eval runs/srpo-20250131-101500 --prompts examples/emoji/prompts-eval.txt --seed 7 --json",
  },
}

-- A checkpoint by name, checked against its sums; nil and the reason.
local function named_checkpoint(folder, wanted)
  local all = checkpoint.list(folder)
  if #all == 0 then return nil, folder .. " has no checkpoints" end
  local step = tonumber(wanted:match("^step%-(%d+)$") or wanted:match("^%d+$"))
  if wanted == "best" then step = checkpoint.pinned(folder) end
  if wanted == "newest" then step = all[#all].step end
  local names = {}
  for i, entry in ipairs(all) do
    names[i] = checkpoint.name(entry.step)
    if entry.step == step then
      local ok, reason = checkpoint.verify(entry.path)
      if not ok then return nil, reason end
      return entry.path, names[i]
    end
  end
  if wanted == "best" then return nil, folder .. " has no checkpoint that a stop rule kept as the best" end
  return nil, ("%s has no checkpoint %s; there is %s"):format(folder, wanted, table.concat(names, ", "))
end

local function has_all(folder, modules)
  for name in pairs(modules) do
    if core.file.exists(folder .. "/" .. name) ~= "folder" then return false end
  end
  return true
end

-- Where the trained weights are: a folder with one folder per module, and what to call it.
local function weights_of(folder, wanted, modules)
  if wanted then return named_checkpoint(folder, wanted) end
  if has_all(folder .. "/model", modules) then return folder .. "/model", "model" end
  if checkpoint.pinned(folder) then
    local path, name = named_checkpoint(folder, "best")
    if path then return path, name end
  end
  local path, step = checkpoint.latest(folder, function(line) progress.note("warning: " .. line, "yellow") end)
  if not path then return nil, folder .. " has neither a model nor a checkpoint; `syz run --resume` goes on with it" end
  return path, checkpoint.name(step)
end

local function load_experiment(folder)
  if not run.record(folder) then return nil, folder .. " holds no run (no readable run.json)" end
  local config = folder .. "/config.yaml"
  local loaded, reason = recipe.load(folder .. "/recipe.lua", { config = core.file.exists(config) and config or nil })
  if not loaded then return nil, reason end
  if type(loaded.experiment.evaluation) ~= "function" then
    return nil, ("%s: only runs of syz.train can be evaluated"):format(folder)
  end
  return loaded.experiment
end

local function measure(check, label, picture)
  local bar = progress.new(1, label)
  local values, grid, each = check:run(function(done, total) bar.total = total bar:update(done, "sampling") end)
  bar:done()
  core.scope(function() core.image.write(picture, (images.grid(grid))) end)
  grid:free()
  return values, each
end

local function show(cli, result, path)
  local paint = text.painter("stdout")
  local rows = { { paint("bold", "metric"), "before", "after", "change", "" } }
  for _, name in ipairs(fields.names(result.metrics)) do
    local m = result.metrics[name]
    rows[#rows + 1] = { name, text.number(m.before), text.number(m.after), ("%+.4g"):format(m.after - m.before),
                        m.standard_error and paint("dim", "± " .. ("%.2g"):format(m.standard_error)) or "" }
  end
  cli.out(text.columns(rows, 2))
  cli.out(("%d images, seed %d; %s\n"):format(result.images, result.seed, path))
end

local function name_of(weights, given)
  local name = weights
  local file = given.prompts and given.prompts:match("([^/]+)$")
  if file then name = name .. "-" .. file:gsub("%.%w+$", ""):gsub("[^%w_-]", "-") end
  if given.seed then name = name .. "-seed" .. given.seed end
  return name
end

function command.run(given)
  local cli = require "syz.cli"
  local folder = #given[1] > 1 and given[1]:gsub("/+$", "") or given[1]
  if given.prompts and core.file.exists(given.prompts) ~= "file" then
    return cli.fail(given.prompts .. ": no such file", cli.misused)
  end
  local experiment, reason = load_experiment(folder)
  if not experiment then return cli.fail(reason) end
  local modules = experiment.method.modules
  local weights, name = weights_of(folder, given.checkpoint, modules)
  if not weights then return cli.fail(name, given.checkpoint and cli.misused or cli.failed) end
  local check = experiment:evaluation {
    prompts = given.prompts and data.prompts(given.prompts) or nil, seed = given.seed,
  }
  local base = ("%s/eval-%s"):format(folder, name_of(name, given))
  local before, each_before = measure(check, "before", base .. "-before.png")
  loop.restore(weights, modules)
  local after, each_after = measure(check, name, base .. "-after.png")
  local result = { run = folder, weights = name, prompts = given.prompts, images = #check.texts, seed = check.seed,
                   metrics = {} }
  for metric, value in pairs(after) do
    result.metrics[metric] = { before = before[metric], after = value,
                               standard_error = evaluation.standard_error(each_before[metric], each_after[metric]) }
  end
  files.write_json(base .. ".json", result)
  if given.json then cli.out(core.json.encode(result) .. "\n") else show(cli, result, base .. ".json") end
  return cli.ok
end

return command
