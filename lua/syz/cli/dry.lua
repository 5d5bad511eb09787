--- syz run RECIPE --dry-run: build all of it, make one step, say what the real run takes. Nothing is kept on disk.
local core = require "syz.core"
local dry = require "syz.dry"
local dry_step = require "syz.dry_step"
local message = require "syz.message"
local progress = require "syz.progress"
local recipe = require "syz.recipe"
local text = require "syz.text"

local M = {}

local function operations(flops)
  if flops < 1e12 then return ("%.3g GFLOP"):format(flops / 1e9) end
  if flops < 1e15 then return ("%.3g TFLOP"):format(flops / 1e12) end
  return ("%.3g PFLOP"):format(flops / 1e15)
end

local function model_rows(report, paint)
  local rows = { {} }
  for i, title in ipairs { "class", "parameters", "made here", "", "memory", "from" } do
    rows[1][i] = paint("dim", title)
  end
  for _, row in ipairs(report.models) do
    rows[#rows + 1] = { row.class, text.count(row.parameters), row.shallow and text.count(row.shallow) or "all",
      row.role, text.bytes(row.bytes), row.missing and paint("yellow", row.path .. " (not there)") or row.path }
  end
  return rows
end

-- What the memory of a trained model is made of.
local function state_rows(report)
  local rows = {}
  for _, row in ipairs(report.models) do
    if row.states then
      local states = row.states
      rows[#rows + 1] = { row.class, ("weights %s, remainders %s, gradients %s, moments %s"):format(
        text.bytes(states.weights), text.bytes(states.remainders), text.bytes(states.gradients),
        text.bytes(states.moments)) }
    end
  end
  return rows
end

local function show(cli, path, report, seconds)
  local paint = text.painter("stdout")
  cli.out(("%s  dry run\n\n%s\n"):format(paint("bold", path), text.columns(model_rows(report, paint), 2)))
  local rows = state_rows(report)
  if #rows > 0 then cli.out(("%s\n%s\n"):format(paint("bold", "What is trained"), text.columns(rows, 2))) end
  rows = {}
  for _, row in ipairs(report.models) do
    if row.flops > 0 then rows[#rows + 1] = { row.class, operations(row.flops), row.path } end
  end
  rows[#rows + 1] = { paint("bold", "one update"), operations(report.flops),
    ("%d prompts in %d part%s"):format(report.batch, report.parts, report.parts == 1 and "" or "s") }
  cli.out(("%s\n%s\n"):format(paint("bold", "Operations, at full depth"), text.columns(rows, 2)))
  local stats = report.stats
  rows = {
    { "device", report.device, report.uses and ("weights %s, gradients %s, optimizer %s, activations %s"):format(
      text.bytes(report.uses.weights), text.bytes(report.uses.gradients), text.bytes(report.uses.optimizer),
      text.bytes(report.uses.activations)) or "" },
    { "peak memory", text.bytes(report.peak), report.peak_full > report.peak
      and ("at full depth about %s"):format(text.bytes(report.peak_full)) or "" },
    { "time", text.duration(seconds), report.parts > 1 and ("of 1 part of %d"):format(report.parts) or "" },
    { "loss", text.number(stats.loss), "" }, { "gradient norm", text.number(stats.grad_norm), "" },
  }
  cli.out(("%s\n%s"):format(paint("bold", "The step that was made"), text.columns(rows, 2)))
end

local function finite(x) return x - x == 0 end

--- Load and try a recipe. Returns the exit code.
---@param cli table
---@param given table    the command line
---@param wanted table   overrides for the recipe
---@return integer
function M.run(cli, given, wanted)
  local folder = os.tmpname()
  os.remove(folder)
  core.file.mkdir(folder)
  dry.start { layers = given.layers or 1, folder = folder }
  local loaded, reason, kind = recipe.load(given[1], wanted)
  local models = dry.stop()
  local ok, report, started = false, nil, core.clock()
  if loaded and not (loaded.experiment.method and loaded.experiment.stepper) then
    reason = given[1] .. ": --dry-run tries what syz.train declares, and this recipe returns something else"
  elseif loaded then
    progress.note("one step of " .. given[1])
    ok, report = pcall(dry_step.run, loaded.experiment, models)
    if not ok then reason = recipe.located(loaded.path)(report) end
  end
  core.file.remove_tree(folder)
  if not ok then return cli.fail(message.of(reason), kind == "usage" and cli.misused or cli.failed) end
  report.seconds = core.clock() - started
  if given.json then
    cli.out(core.json.encode(report) .. "\n")
  else
    show(cli, given[1], report, report.seconds)
  end
  if finite(report.stats.loss) and finite(report.stats.grad_norm) then return cli.ok end
  return cli.fail(given[1] .. ": the loss or the gradient is not finite")
end

return M
