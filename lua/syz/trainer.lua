--- syz.train: align a pipeline with a method, watch it, keep the best, write the run folder.
local core = require "syz.core"
local data = require "syz.data"
local evaluation = require "syz.eval"
local loop = require "syz.loop"
local nearest = require "syz.nearest"
local progress = require "syz.progress"

local M = {}

local Experiment = {}
Experiment.__index = Experiment

local FIELDS = {
  method = "table", prompts = "table", optimizer = "table", steps = "number", batch = "number", seed = "number",
  eval = "table", checkpoint_every = "number", save = "string", ledger = "boolean",
}

--- Declare the experiment; nothing runs yet.
---@param spec { method: table, prompts: string[], optimizer: syz.Optimizer, steps: integer, batch: integer|nil,
---  seed: integer|nil, eval: table|nil, checkpoint_every: integer|nil, save: string|nil, ledger: boolean|nil }
---  ledger: add gradient norms and every sample's numbers to the ledger, as `syz run --ledger` does
---  eval = { every, prompts, grid, judge, style, steps, guidance, seed, rewards, keep_best = metric name }
function M.experiment(spec)
  local known = {}
  for field in pairs(FIELDS) do known[#known + 1] = field end
  for key, value in pairs(spec) do
    if not FIELDS[key] then
      error(("syz.train has no field %q%s"):format(tostring(key), nearest.hint(tostring(key), known)), 2)
    end
    if type(value) ~= FIELDS[key] then
      error(("syz.train: %s must be a %s, not a %s"):format(key, FIELDS[key], type(value)), 2)
    end
  end
  for _, key in ipairs { "method", "prompts", "optimizer", "steps" } do
    if spec[key] == nil then error("syz.train needs the field " .. key, 2) end
  end
  return setmetatable(spec, Experiment)
end

--- The evaluation with everything it can borrow from the method.
function Experiment:evaluation()
  local options = self.eval or {}
  local method = self.method
  return evaluation.new {
    pipeline = method.pipeline, prompts = options.prompts or self.prompts, reward = method.reward,
    control = method.control or function(_, prompt) return prompt, prompt end, judge = options.judge,
    style = options.style, steps = options.steps, guidance = options.guidance, seed = options.seed,
    grid = options.grid, rewards = options.rewards,
  }
end

local function evaluate(check, run, step, label)
  local bar = progress.new(1, label)
  local values, grid = check:run(function(done, total) bar.total = total bar:update(done, "sampling") end)
  bar:done()
  run:log(step, values)
  run:sample(step, grid, label)
  grid:free()
  return values
end

--- One training step in the shape the loop wants.
function Experiment:stepper(run)
  local size = self.batch or 16
  local batches = data.epochs(#self.prompts, size, self.seed or 42)
  return function(step, generator, update)
    local prompts = {}
    for i, index in ipairs(batches(step)) do prompts[i] = self.prompts[index] end
    local batch = { step = step, prompts = prompts, cond = self.method.pipeline:condition(prompts),
      update = update }
    local stats, rows = self.method:step(batch, generator)
    run:ledger(step, rows)
    return stats
  end
end

function Experiment:execute(run)
  local started = core.clock()
  local method, options = self.method, self.eval or {}
  local check = self:evaluation()
  local metrics = {}
  local saved, done = run:latest()
  if saved and done >= self.steps and core.file.exists(run.folder .. "/summary.json") then
    run:warn(("the run is complete: step %d of %d; raise steps to go on"):format(done, self.steps))
    return
  end
  for _, module in pairs(method.modules) do module:requires_grad(true) end
  method.ledger = self.ledger or run.detailed
  if not saved then
    metrics.before = evaluate(check, run, 0, "before")
    run:prompts(check.prompts)
  end
  local last = loop.run(run, {
    label = method.name, steps = self.steps, seed = self.seed or 42, modules = method.modules,
    optimizer = self.optimizer, checkpoint_every = self.checkpoint_every or 20, step = self:stepper(run),
    state = function() return metrics end,
    load_state = function(extra) metrics = extra end,
    after = function(step)
      if options.every and step % options.every == 0 and step < self.steps then
        metrics.latest = evaluate(check, run, step, ("step-%06d"):format(step))
      end
    end,
  })
  local after = evaluate(check, run, last, "after")
  local summary = {}
  for name, value in pairs(after) do summary[name] = { before = metrics.before[name], after = value } end
  summary.seconds, summary.steps = core.clock() - started, last
  run:summary(summary)
  method.pipeline:save(run.folder .. "/model", { transformer_only = true })
end

return M
