--- syz.fit: supervised training of any set of modules by a loss function, as the pretraining recipes use it.
local fields = require "syz.fields"
local loop = require "syz.loop"

local M = {}

local Experiment = {}
Experiment.__index = Experiment

local FIELDS = {
  modules = "table", loss = "function", optimizer = "table", steps = "integer", order = "table", seed = "integer",
  checkpoint_every = "integer", precision = "string", evaluate = "function", evaluate_every = "integer",
  finish = "function", label = "string", log_every = "integer",
}

--- Declare the experiment.
---@param spec { modules: table<string, table>, order: string[]|nil, loss: fun(step: integer, generator: syz.Generator):
---  syz.Tensor, table|nil, optimizer: syz.Optimizer, steps: integer, seed: integer|nil, checkpoint_every: integer|nil,
---  precision: "f32"|"bf16"|nil, evaluate: nil|fun(step: integer, run: table): table,
---  evaluate_every: integer|nil, finish: nil|fun(run: table) }
---  `loss` returns the scalar to minimise and optional numbers to log; `evaluate` returns numbers for metrics.jsonl.
function M.experiment(spec)
  fields.check("syz.fit", spec, FIELDS)
  for _, key in ipairs { "modules", "loss", "optimizer", "steps" } do
    if spec[key] == nil then error("syz.fit needs the field " .. key, 2) end
  end
  if next(spec.modules) == nil then error("syz.fit: modules names no module to train", 2) end
  if type(spec.optimizer.update) ~= "function" then error("syz.fit: optimizer is made by syz.adamw { ... }", 2) end
  if spec.steps < 1 then error(("syz.fit: steps must be at least 1, not %d"):format(spec.steps), 2) end
  return setmetatable(spec, Experiment)
end

function Experiment:execute(run)
  loop.trainable(self.modules)
  loop.run(run, {
    label = self.label or "fit", steps = self.steps, seed = self.seed or 42, modules = self.modules, order = self.order,
    optimizer = self.optimizer, precision = self.precision, checkpoint_every = self.checkpoint_every,
    log_every = self.log_every or 10,
    step = function(step, generator)
      local loss, stats = self.loss(step, generator)
      loss:backward()
      stats = stats or {}
      stats.loss = loss:item()
      return stats
    end,
    after = function(step)
      if not self.evaluate then return end
      if step % (self.evaluate_every or 500) == 0 or step == self.steps then
        run:log(step, self.evaluate(step, run))
      end
    end,
  })
  if self.finish then self.finish(run) end
end

return M
