--- syz run RECIPE: load a recipe, execute its experiment in a run folder, write the report.
local core = require "syz.core"
local device = require "syz.device"
local disk = require "syz.disk"
local message = require "syz.message"
local options = require "syz.options"
local progress = require "syz.progress"
local recipe = require "syz.recipe"
local report = require "syz.report"
local run = require "syz.run"
local text = require "syz.text"
local args = require "syz.cli.args"

---@type syz.Command
local command = {
  name = "run",
  summary = "run a recipe; what it makes goes to a folder of its own",
  details = "`syz run RECIPE --help` lists what the recipe lets you turn.",
  positional = { { name = "RECIPE" } },
  complete = "file",
  helps = true,
  flags = {
    { name = "set", value = "NAME=VALUE", many = true, help = "set an option of the recipe (lists: a,b,c)" },
    { name = "config", value = "FILE", help = "set options from a YAML file, such as a run's config.yaml" },
    { name = "out", short = "o", value = "DIR", help = "the run's folder (default runs/<recipe>-<date>-<time>)" },
    { name = "resume", value = "DIR", optional = true, help = "go on with an interrupted run (default: the newest)",
      accepts = function(word) return core.file.exists(word) ~= "file" and not word:match "%.lua$" end },
    { name = "ledger", help = "a detailed ledger: gradient norm of each branch, numbers of each sample" },
    { name = "dry-run", help = "build all of it, with random weights where there are no files, and make one step" },
    { name = "layers", value = "N", kind = "integer", help = "depth of large models in a dry run (default 1)" },
    { name = "keep", value = "N", kind = "integer", help = "checkpoints to keep (default 2)" },
  },
  examples = {
    "syz run recipes/srpo.lua",
    "syz run recipes/srpo.lua --help",
    "syz run recipes/srpo.lua --set lr=1e-5 --set steps=40 --out runs/longer",
    "syz run recipes/srpo.lua --resume",
    "syz run recipes/flux/srpo_hps.lua --dry-run   # what it would take, without the files",
    "syz run recipes/paper/table1.lua --quick   # a yes/no option of the recipe: --set quick=true",
    "syz run runs/longer/recipe.lua --config runs/longer/config.yaml   # the same again",
  },
}

-- A recipe's yes/no options are switches too. One that bears the name of a flag of `run` is set with --set alone.
local function switches(declared)
  local taken, list = {}, {}
  for _, flag in ipairs(args.flags(command)) do taken[flag.name] = true end
  for _, option in ipairs(declared) do
    if option.kind == "boolean" and not taken[option.name] then
      list[#list + 1] = { name = option.name, help = option.help }
    end
  end
  return list
end

function command.switches(positional)
  local loaded = positional[1] and recipe.load(positional[1], { help = true })
  return switches(loaded and loaded.declared or {})
end

local function print_help(cli, given)
  local paint = text.painter("stdout")
  if not given[1] then
    cli.out(args.help(command, paint))
    return cli.ok
  end
  local loaded, reason, kind = recipe.load(given[1], { help = true })
  if not loaded then return cli.fail(reason, kind == "usage" and cli.misused or cli.failed) end
  if #loaded.declared == 0 then
    cli.out(("%s declares no options.\n"):format(given[1]))
    return cli.ok
  end
  local rows, short = {}, {}
  for i, option in ipairs(loaded.declared) do
    local help = option.help
    if option.choices then
      help = ("%s (%s)"):format(help, options.show(option.choices):gsub(",", ", "))
    end
    rows[i] = { paint("cyan", option.name), options.show(option.default), help }
  end
  for i, flag in ipairs(switches(loaded.declared)) do short[i] = "--" .. flag.name end
  local also = #short > 0 and ("Plain flags: %s.\n"):format(table.concat(short, ", ")) or ""
  cli.out(("%s  %s\n\n%s\nSet them with --set NAME=VALUE or --config FILE.yaml; `syz run --help` shows the rest.\n%s")
    :format(paint("bold", "Options of " .. given[1]), paint("dim", "(name, default, meaning)"), text.columns(rows, 2),
      also))
  return cli.ok
end

local function overrides(given)
  local sets = {}
  for _, word in ipairs(given.set or {}) do
    local key, value = word:match("^([^=]+)=(.*)$")
    if not key then return nil, ('--set takes NAME=VALUE, not "%s"'):format(word) end
    sets[#sets + 1] = { key = key, value = value }
  end
  for _, name in ipairs(given.switches or {}) do sets[#sets + 1] = { key = name, value = true } end
  if given.seed then sets[#sets + 1] = { key = "seed", value = given.seed } end
  return { sets = sets, config = given.config }
end

-- The folder to resume in: the one named, or the newest run of this recipe.
local function resumable(given)
  if type(given.resume) == "string" then return given.resume end
  if given.out then return given.out end
  local name = recipe.name(given[1])
  local folder = run.newest(name)
  if not folder then return nil, ("no run of %s under runs/ to resume; start one without --resume"):format(name) end
  return folder
end

-- A resumed run goes on where it ran unless it is told where. Returns a reason when it cannot.
local function device_of(folder, given)
  local was = (run.record(folder) or {}).device
  for _, word in ipairs(given.set or {}) do
    if word:match "^device=" then return nil end
  end
  if given.device or not was or was == "cpu" then return nil end
  local ok, raised = pcall(device.choose, was)
  if not ok then return ("%s; the run was on %s: --device cpu goes on with it here"):format(message.of(raised), was) end
end

local function show_result(cli, opened, given, status)
  local summary = opened.summarised or {}
  if given.json then
    cli.out(core.json.encode { run = opened.folder, status = status, summary = summary } .. "\n")
    return
  end
  if opened.shown then return cli.out(opened.shown) end
  local paint, rows = text.painter("stdout"), {}
  for name, value in pairs(summary) do
    if type(value) == "table" and tonumber(value.before) and tonumber(value.after) then
      rows[#rows + 1] = { name, text.number(value.before), "→", text.number(value.after),
                          paint("dim", ("%+.4g"):format(value.after - value.before)) }
    end
  end
  table.sort(rows, function(a, b) return a[1] < b[1] end)
  if #rows > 0 then cli.out(text.columns(rows, 2)) end
  cli.out(("%s%s\n"):format(status == "finished" and "report  " or status .. "; folder  ",
    status == "finished" and opened.folder .. "/report.html" or opened.folder))
end

-- How a run ended that was asked to stop: it raises, the trainer after its checkpoint, or the operation it was in.
local function stopped(raised)
  if type(raised) == "table" and raised.resumable then return raised.status end
  if core.terminating() then return "terminated" end
  if core.interrupted() or tostring(raised):find("interrupted", 1, true) then return "interrupted" end
end

local function execute(cli, loaded, opened, given)
  local trace
  local locate = recipe.located(loaded.path)
  local ok, status = xpcall(function() return loaded.experiment:execute(opened) end, function(raised)
    trace = debug.traceback("", 2)
    return locate(raised)
  end)
  local why = not ok and stopped(status)
  if why then ok, status = true, why end
  core.clear_interrupt()
  core.defer_interrupt(false)
  if not ok then
    opened:close("failed", message.of(status))
    if given.trace and trace then io.stderr:write(trace .. "\n") end
    local _, step = opened:latest()
    if step and disk.is_full(status) then
      status = ("%s; the checkpoint of step %d is intact: make room, then syz run %s --resume %s"):format(
        message.of(status), step, text.shell(loaded.path), text.shell(opened.folder))
    end
    return cli.fail(status)
  end
  status = (status == "terminated" or status == "interrupted") and status or "finished"
  opened:close(status)
  local ok_report, written, reason = pcall(report.write, opened.folder)
  if not ok_report then written, reason = nil, message.of(written) end
  if not written then opened:warn(("no report: %s; `syz report %s` writes it later"):format(reason,
    text.shell(opened.folder))) end
  show_result(cli, opened, given, status)
  if status ~= "finished" then
    io.stderr:write(("to go on: syz run %s --resume %s\n"):format(text.shell(loaded.path), text.shell(opened.folder)))
  end
  return status == "terminated" and cli.resumable or status == "interrupted" and cli.interrupted or cli.ok
end

function command.run(given)
  local cli = require "syz.cli"
  if given.help then return print_help(cli, given) end
  local wanted, reason = overrides(given)
  if not wanted then return cli.misuse(reason, command) end
  if given.layers and (given.layers < 1 or not given["dry-run"]) then
    return cli.misuse("--layers takes a number from 1 and goes with --dry-run", command)
  end
  if given["dry-run"] then
    if given.resume or given.out then return cli.misuse("--dry-run writes nothing: no --out, no --resume", command) end
    return require("syz.cli.dry").run(cli, given, wanted)
  end
  if given.keep and given.keep < 1 then return cli.misuse("--keep must be at least 1", command) end
  local folder = given.out
  if given.resume then
    folder, reason = resumable(given)
    if not folder then return cli.fail(reason, cli.misused) end
    local saved = folder .. "/config.yaml"
    if not wanted.config and core.file.exists(saved) then wanted.config = saved end
  end
  local elsewhere = given.resume and device_of(folder, given)
  if elsewhere then return cli.fail(elsewhere, cli.misused) end
  -- before a recipe loads gigabytes
  local fits = true
  if folder then fits, reason = run.fits(folder, given.resume ~= nil) end
  if not fits then return cli.fail(reason, cli.misused) end
  local loaded, kind
  loaded, reason, kind = recipe.load(given[1], wanted)
  if not loaded then return cli.fail(reason, kind == "usage" and cli.misused or cli.failed) end
  local opened
  opened, reason = run.open {
    recipe = loaded, out = folder, resume = given.resume ~= nil, keep = given.keep, command = given.command,
    detailed = given.ledger,
  }
  if not opened then return cli.fail(reason, cli.misused) end
  local from = opened.resumed and (" from step %d"):format(opened.resumed.step) or ""
  progress.note(("%s %s%s"):format(given.resume and "resuming" or "run", opened.folder, from))
  return execute(cli, loaded, opened, given)
end

return command
