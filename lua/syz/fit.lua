--- syz.fit: supervised training of any set of modules by a loss function, as the pretraining recipes use it.
local loop = require "syz.loop"

local M = {}

local Experiment = {}
Experiment.__index = Experiment

--- Declare the experiment.
---@param spec { modules: table<string, table>, order: string[]|nil, loss: fun(step: integer, generator: syz.Generator):
---  syz.Tensor, table|nil, optimizer: syz.Optimizer, steps: integer, seed: integer|nil, checkpoint_every: integer|nil,
---  precision: "f32"|"bf16"|nil, evaluate: nil|fun(step: integer, run: table): table,
---  evaluate_every: integer|nil, finish: nil|fun(run: table) }
---  `loss` returns the scalar to minimise and optional numbers to log; `evaluate` returns numbers for metrics.jsonl.
function M.experiment(spec)
  for _, key in ipairs { "modules", "loss", "optimizer", "steps" } do
    if spec[key] == nil then error("fit needs the field " .. key, 2) end
  end
  return setmetatable(spec, Experiment)
end

function Experiment:execute(run)
  for _, module in pairs(self.modules) do module:requires_grad(true) end
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
