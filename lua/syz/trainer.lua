--- syz.train: align a pipeline with a method, watch it, stop in time, keep the best, write the run folder.
local activations = require "syz.activations"
local average = require "syz.average"
local core = require "syz.core"
local checkpoint = require "syz.checkpoint"
local data = require "syz.data"
local device = require "syz.device"
local evaluation = require "syz.eval"
local fields = require "syz.fields"
local files = require "syz.files"
local loop = require "syz.loop"
local lora = require "syz.lora"
local progress = require "syz.progress"
local stop = require "syz.stop"

local M = {}

---@class syz.Experiment
local Experiment = {}
Experiment.__index = Experiment

local FIELDS = {
  method = "table", prompts = "table|function", optimizer = "table", steps = "number", batch = "number",
  seed = "number", eval = "table", stop = "table", checkpoint_every = "number", ledger = "boolean",
  precision = "string", accumulate = "number", ema = "number|table", save = "string",
  device = "string", memory = "string",
}

--- Declare the experiment; nothing runs yet.
---@param spec { method: table, prompts: string[]|fun(step: integer, generator: syz.Generator): string[], optimizer:
---  syz.Optimizer, steps: integer, batch: integer|nil, accumulate: integer|nil, seed: integer|nil, eval: table|nil,
---  stop: table|nil, checkpoint_every: integer|nil, ledger: boolean|nil,
---  precision: "f32"|"bf16"|nil, ema: number|table|nil, save: "f32"|"bf16"|"f16"|nil, device: string|nil,
---  memory: "auto"|"checkpoint"|"keep"|nil }
---  device: where it runs, "cuda" or "cuda:1", unless the command line says another; memory: whether activations are
---  kept for the backward pass (docs/cuda.md)
---  ema: decay of a moving average of what is trained, or { decay = 0.9, every = 8, ramp = true }; the average is what
---  is evaluated, kept and saved
---  save: dtype of the finished model's weights; of a model trained in bf16, "f32" is what the optimizer knows of them
---  accumulate: a batch passes through the models in so many equal parts, for memory; its gradient is their mean
---  eval = { every = steps between evaluations, and the fields of syz.eval }, stop = the fields of syz.stop,
---  ledger: add gradient norms and every sample's numbers to the ledger, as `syz run --ledger` does
function M.experiment(spec)
  fields.check("syz.train", spec, FIELDS)
  for _, key in ipairs { "method", "prompts", "optimizer", "steps" } do
    if spec[key] == nil then error("syz.train needs the field " .. key, 2) end
  end
  for _, key in ipairs { "steps", "batch", "checkpoint_every", "accumulate" } do
    local count = spec[key]
    if count and (count < 1 or count % 1 ~= 0) then
      error(("syz.train: %s must be a whole number from 1, not %s"):format(key, tostring(count)), 2)
    end
  end
  if spec.ema then average.read(spec.ema, "syz.train", 2) end
  if spec.memory then fields.choice("syz.train", "memory", spec.memory, activations.choices) end
  if spec.device then device.check(spec.device, 2) end
  if spec.save then fields.choice("syz.train", "save", spec.save, { "f32", "bf16", "f16" }) end
  local self = setmetatable(spec, Experiment)
  lora.redirect(self.method)
  self.batch, self.accumulate = self.batch or 16, self.accumulate or 1
  if self.batch % self.accumulate ~= 0 then
    error(("syz.train: accumulate = %d does not divide the batch of %d"):format(self.accumulate, self.batch), 2)
  end
  local check = self:evaluation({}, 2)
  if self.stop then
    if not (self.eval and self.eval.every) then
      error("syz.train: stop decides at evaluations; set eval.every, the steps between them", 2)
    end
    local names, held_out = check:names()
    self.rule = stop.new(self.stop, names, held_out, 2)
  end
  return self
end

--- The evaluation with everything it can borrow from the method.
---@param overrides table|nil  fields that replace the recipe's
---@param level integer|nil    whose line an error names, as in error()
---@return syz.Evaluation
function Experiment:evaluation(overrides, level)
  level = (level or 1) + 1
  local every, method = self.eval and self.eval.every, self.method
  if every and (type(every) ~= "number" or every < 1 or every % 1 ~= 0) then
    error("eval.every must be a whole number of steps from 1", level)
  end
  local fixed = type(self.prompts) == "table" and self.prompts or nil
  local options = { pipeline = method.pipeline, prompts = fixed, reward = method.reward,
                    control = method.control }
  for _, list in ipairs { self.eval or {}, overrides or {} } do
    for key, value in pairs(list) do options[key] = value end
  end
  if not options.prompts then
    error("syz.train: prompts is a function, so the evaluation needs a list of its own: eval = { prompts = … }", level)
  end
  return evaluation.new(options, level)
end

-- Numbers that a state file can hold.
local function storable(values)
  local kept = {}
  for name, value in pairs(values) do
    if value - value == 0 then kept[name] = value end
  end
  return kept
end

local function sample_name(step)
  return step == 0 and "before" or checkpoint.name(step)
end

-- In metrics.jsonl and TensorBoard the evaluation's names have a prefix: training logs a `reward` of its own.
local function evaluate(check, run, step)
  local label = step == 0 and "before" or ("evaluation at step %d"):format(step)
  local bar = progress.new(1, label)
  local values, grid, each = check:run(function(done, total) bar.total = total bar:update(done, "sampling") end)
  bar:done()
  local logged = {}
  for name, value in pairs(values) do logged["eval/" .. name] = value end
  run:log(step, logged)
  run:sample(step, grid, sample_name(step))
  grid:free()
  return values, each
end

-- What `prompts` as a function returned: as many texts as it likes.
local function made_prompts(list, step)
  local ok = type(list) == "table" and #list > 0
  for _, text in ipairs(ok and list or {}) do ok = ok and type(text) == "string" end
  if not ok then error(("prompts(%d) must return a list of strings, one per sample"):format(step), 0) end
  return list
end

function Experiment:part(step, prompts, number, update)
  return { step = step, prompts = prompts, part = number, cond = self.method.pipeline:condition(prompts),
    update = update }
end

-- An update in the middle of an accumulated batch would see the gradient of some of its parts.
local function no_update()
  error("accumulate does not go with a method that makes several updates in a step; GRPO has micro_batch for memory", 0)
end

-- The batch in equal parts, one after the other: gradients add up, numbers are averaged, ledger rows joined.
function Experiment:in_parts(step, prompts, generator)
  local parts, stats, rows = self.accumulate, {}, {}
  local size = #prompts / parts
  if size % 1 ~= 0 then
    error(("accumulate = %d does not divide the %d prompts of step %d"):format(parts, #prompts, step), 0)
  end
  for number = 1, parts do
    core.scope(function()
      local chosen = {}
      for i = 1, size do chosen[i] = prompts[(number - 1) * size + i] end
      local part_stats, part_rows = self.method:step(self:part(step, chosen, number, no_update), generator)
      for name, value in pairs(part_stats) do stats[name] = (stats[name] or 0) + value / parts end
      for _, row in ipairs(part_rows or {}) do
        row.part = number
        rows[#rows + 1] = row
      end
    end)
  end
  self.optimizer:scale(1 / parts)
  return stats, rows
end

--- Choose what is kept for backward passes, once; the optimizer is bound.
---@param prompt string
function Experiment:prepare(prompt)
  if not self.prepared then activations.prepare(self, prompt) end
  self.prepared = true
end

--- One training step in the shape the loop wants.
function Experiment:stepper(run)
  local batches = type(self.prompts) == "table" and data.epochs(#self.prompts, self.batch, self.seed or 42)
  local embeddings = self.method.pipeline.embeddings
  if batches and embeddings then embeddings:need(self.prompts) end
  return function(step, generator, update)
    local prompts = batches and {} or made_prompts(self.prompts(step, generator), step)
    for i, index in ipairs(batches and batches(step) or {}) do prompts[i] = self.prompts[index] end
    self:prepare(prompts[1])
    local rows
    local stats = activations.guard(self, step, generator, update, function(own_generator, own_update)
      local stats
      if self.accumulate == 1 then
        stats, rows = self.method:step(self:part(step, prompts, 1, own_update), own_generator)
      else
        stats, rows = self:in_parts(step, prompts, own_generator)
      end
      return stats
    end)
    run:ledger(step, rows)
    return stats
  end
end

-- What a finished run would say when asked to go on, if there is nothing left to do.
local function complete(self, saved, done, metrics, run)
  -- a run that was complete, goes on with more steps and is stopped at their end has the old summary
  local summary = saved and files.read_json(run.folder .. "/summary.json")
  if not summary or summary.steps ~= done then return nil end
  if self.rule and metrics.rule and metrics.rule.stopped then
    return ("the run is complete: stopped at step %d, %s; without `stop` it would go on"):format(
      metrics.rule.stopped.step, metrics.rule.stopped.reason)
  end
  if done < self.steps then return nil end
  return ("the run is complete: step %d of %d; raise steps to go on"):format(done, self.steps)
end

-- The loop, with an evaluation every `eval.every` steps and at the last; `metrics` is what its checkpoints carry.
function Experiment:train(run, check, metrics, last_step)
  local rule, every = self.rule, self.eval and self.eval.every
  return loop.run(run, {
    label = self.method.name, steps = last_step, seed = self.seed or 42, modules = self.method.modules,
    precision = self.precision, ema = self.ema,
    optimizer = self.optimizer, checkpoint_every = self.checkpoint_every or 20, step = self:stepper(run),
    checkpoint_start = rule ~= nil and rule.best ~= nil,
    state = function()
      metrics.rule = rule and rule:state() or nil
      return metrics
    end,
    after = function(step)
      if step ~= self.steps and not (every and step % every == 0) then return end
      local values, each = evaluate(check, run, step)
      metrics.latest, metrics.latest_step = storable(values), step
      if not rule then return end
      local best, reason = rule:observe(step, values, each)
      if best then metrics.kept = metrics.latest end
      return reason ~= nil, best
    end,
  })
end

-- Whether the finished model is saved with more than its bf16 weights hold.
function Experiment:saves_masters()
  local transformer = self.method.modules.transformer
  return self.save == "f32" and transformer and loop.dtype(transformer) == "bf16"
end

--- Give the modules the weights of the step that is kept. Returns that step: the last one when its checkpoint is lost.
function Experiment:restore_kept(run, step, last)
  local path = ("%s/checkpoints/%s"):format(run.folder, checkpoint.name(step))
  local ok, reason = checkpoint.verify(path)
  if not ok then
    run:warn(("step %d was the best, but its checkpoint is lost (%s); the model is that of step %d"):format(step,
      reason, last))
    return last
  end
  if self:saves_masters() then
    loop.restore_masters(path, self.method.modules, self.optimizer)
  else
    loop.restore(path, self.method.modules)
  end
  return step
end

-- The picture of the kept step under the name that the report looks for.
local function name_sample(run, from, to)
  local folder = run.folder .. "/samples/"
  local layouts = files.read_json(folder .. "layout.json") or {}
  if not layouts[from] or not core.file.exists(folder .. from .. ".png") then return end
  core.file.write(folder .. to .. ".png", core.file.read(folder .. from .. ".png"))
  layouts[to] = layouts[from]
  files.write_json(folder .. "layout.json", layouts)
end

-- One line for the person, and the same facts in run.json.
local function announce(run, rule, kept, last)
  local parts = {}
  if rule.stopped then parts[1] = ("stopped at step %d: %s"):format(rule.stopped.step, rule.stopped.reason) end
  if rule.best then
    parts[#parts + 1] = kept == last and "the model is that of the last step" or kept == 0
      and "no step was better than the start: the model is the one before training"
      or ("the model is that of step %d, the best of %d"):format(kept, last)
  end
  run.state.stopped, run.state.kept_step = rule.stopped, rule.keep and kept or nil
  if #parts > 0 then progress.note(table.concat(parts, "; "), rule.stopped and "yellow" or nil) end
end

-- What a GPU's memory was used for at its peak: for the person, run.json and the summary.
local function report_memory(run, summary)
  if not device.is_gpu() then return end
  local where = device.current()
  local line, bytes = device.memory(where)
  run.state.device_memory = bytes
  summary.device, summary.device_memory = where, bytes
  progress.note(("%s  peak memory %s"):format(where, line))
end

function Experiment:finish(run, check, metrics, last, started)
  local rule, kept, after = self.rule, last, metrics.latest
  if metrics.latest_step ~= last then after = storable((evaluate(check, run, last))) end
  if rule and rule.best and rule.best.step ~= last then
    kept = self:restore_kept(run, rule.best.step, last)
    if kept ~= last then after = kept == 0 and metrics.before or metrics.kept end
  end
  local summary = { seconds = core.clock() - started, steps = last }
  for name, value in pairs(after) do summary[name] = { before = metrics.before[name], after = value } end
  if rule then
    summary.kept_step = rule.keep and kept or nil
    if rule.stopped then summary.stopped_step, summary.stop_reason = rule.stopped.step, rule.stopped.reason end
    announce(run, rule, kept, last)
  end
  name_sample(run, sample_name(kept), "after")
  report_memory(run, summary)
  -- the summary says that the run is complete, so it comes last
  if self:saves_masters() then self.optimizer:to_f32(self.method.modules.transformer) end
  run:insist("the trained model", function()
    self.method.pipeline:save(run.folder .. "/model", { transformer_only = true, dtype = self.save })
  end)
  run:summary(summary)
end

function Experiment:execute(run)
  local started, rule = core.clock(), self.rule
  local check = self:evaluation()
  local saved, done = run:latest()
  local metrics = saved and loop.state(saved).extra or {}
  local said = complete(self, saved, done, metrics, run)
  if said then
    run:warn(said)
    return
  end
  run.state.stopped, run.state.kept_step = nil, nil
  activations.place(self)
  run.state.device = device.current()
  self.method.ledger = self.ledger or run.detailed
  if not saved then
    local values, each = evaluate(check, run, 0)
    metrics.before = storable(values)
    run:prompts(check.texts)
    if rule then rule:start(values, each) end
  elseif rule then
    rule:load(metrics.rule or { before = metrics.before, peaks = {} })
    if rule.best then checkpoint.pin(run.folder, rule.best.step) end
  end
  run.state.guards = rule and rule:limits()
  local ended = rule and rule.stopped and done or self.steps -- a stop that was saved, but not yet acted upon
  local last = self:train(run, check, metrics, ended)
  self:finish(run, check, metrics, last, started)
end

return M
