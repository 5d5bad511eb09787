--- Direct-Align (paper eq. 4, 5): inject a predefined noise at any level, take one differentiable step, recover the
--- clean image with the same noise, and push any reward through it.
--
-- The recovered image is x0 -/+ dsigma/(1-r) (v - v*): the model's prediction replaces only a small share of the known
-- noise, so the image is sharp and the gradient bounded at every level (docs/methods.md).
local core = require "syz.core"
local discount = require "syz.discount"
local sampler = require "syz.sampler"
local schedule = require "syz.schedule"

local M = {}

--- The heart. `from` and `to` are levels (numbers or tensors that broadcast over [B,T,C]).
---@return syz.Tensor  the recovered packed latents
function M.recover(pipe, x0, eps, from, to, cond, guidance)
  local grid = pipe.schedule
  local x = grid:inject(x0, eps, from)                  -- inject the predefined noise
  local v = pipe:velocity(x, from, cond, guidance)      -- the only differentiable model call
  local y = grid:step(x, v, from, to)                   -- one step between neighbouring levels
  return grid:recover(y, eps, to)                       -- recover with the known noise
end

--- Clean latents to start from: a rollout of the current model, or real images when the method trains offline.
---@return syz.Tensor x0, syz.Tensor eps
function M.start(self, batch, generator)
  local eps = M.draw_noise(self, #batch.prompts, generator)
  if self.offline then
    local images = self.offline(batch.prompts, generator)
    return core.no_grad(core.scope, function() return self.pipeline:encode(images) end), eps
  end
  local x0 = sampler.euler(self.pipeline, {
    noise = eps, cond = batch.cond, schedule = self.schedule, steps = self.rollout_steps,
    guidance = self.rollout_guidance,
  })
  return x0, eps
end

function M.draw_noise(self, batch, generator)
  if self.noise == "shared" then
    local one = self.pipeline:noise(generator, 1)
    local shape = one:shape()
    shape[1] = batch
    return one:broadcast_to(shape)
  end
  return self.pipeline:noise(generator, batch)
end

--- Fields that Direct-Align and SRPO share, checked and completed.
function M.settings(options, name)
  for _, key in ipairs { "pipeline", "reward" } do
    if not options[key] then error(("%s needs the field %s"):format(name, key), 3) end
  end
  local self = {}
  for key, value in pairs(options) do self[key] = value end
  self.schedule = options.schedule or self.pipeline.schedule
  self.pipeline.schedule = self.schedule
  self.T = options.timesteps or 1000
  self.levels = self.schedule:window(options.window or { 5, 25 }, self.T)
  self.rollout_steps = options.rollout_steps or self.schedule.steps
  self.rollout_guidance = options.rollout_guidance or 1
  self.train_guidance = options.train_guidance or 3.5
  self.k = options.jump or schedule.jump(options.ratio or 0.9, self.T)
  self.noise = options.noise or "per_sample"
  if self.noise ~= "per_sample" and self.noise ~= "shared" then
    error(('noise must be "per_sample" or "shared", not %q'):format(tostring(self.noise)), 3)
  end
  self.modules = { transformer = self.pipeline.transformer }
  return self
end

--- A level {B,1,1} from window indices, one per sample.
function M.level(self, indices)
  local values = {}
  for i, index in ipairs(indices) do values[i] = self.levels[index] end
  return core.tensor(values, { #values, 1, 1 })
end

--- One draw of m per sample, T - edge .. edge as in the released code.
function M.draw(self, batch, generator)
  local list = {}
  for i = 1, batch do list[i] = generator:integer(5, self.T - 5) end
  return list
end

--- Window indices of one direction for a list of draws.
function M.indices(self, draws, direction, offset)
  local from, to, position = {}, {}, {}
  for i, m in ipairs(draws) do
    m = math.max(5, math.min(self.T - 5, m - (offset or 0)))
    local pair = schedule.pair(m, self.k, self.T)[direction]
    from[i], to[i], position[i] = pair.from, pair.to, pair.kappa / (self.T - 1)
  end
  return from, to, position
end

local DirectAlign = {}
DirectAlign.__index = DirectAlign

--- Direct-Align with any reward, aggregated over a window of levels.
---@param options { pipeline: syz.Pipeline, reward: table, schedule: syz.Schedule|nil, window: table|nil,
---  aggregate: integer|nil, spacing: integer|nil, lambda: any, jump: integer|nil, ratio: number|nil,
---  rollout_steps: integer|nil, rollout_guidance: number|nil, train_guidance: number|nil, noise: string|nil,
---  threshold: number|nil }
---  aggregate: how many neighbouring levels share one update; lambda: discount of each (1 unless given)
function M.new(options)
  local self = setmetatable(M.settings(options, "direct_align"), DirectAlign)
  self.name = "direct_align"
  self.n = options.aggregate or 1
  self.spacing = options.spacing or math.floor(self.T / 20)
  self.lambda = discount.resolve(options.lambda or 1, "lambda")
  return self
end

--- One step. The aggregate sum of lambda(t_i) r_i is differentiated level by level, so that memory does not grow with
--- the window.
---@param batch { step: integer, prompts: string[], cond: table }
---@return table stats, table[] ledger
function DirectAlign:step(batch, generator)
  local x0, eps = M.start(self, batch, generator)
  local draws = M.draw(self, #batch.prompts, generator)
  local stats, ledger = { loss = 0, reward = 0 }, {}
  for i = 1, self.n do
    core.scope(function()
      local from, to, position = M.indices(self, draws, "denoise", (i - 1) * self.spacing)
      local xhat = M.recover(self.pipeline, x0, eps, M.level(self, from), M.level(self, to), batch.cond,
        self.train_guidance)
      local reward = self.reward:score(self.pipeline:decode(xhat), batch.prompts)
      local weight = {}
      for b, t in ipairs(position) do weight[b] = self.lambda(t) end
      local objective = (reward * core.tensor(weight)):mean() / self.n
      local loss = self.threshold and (self.threshold - objective):relu() or -objective
      loss:backward()
      stats.loss = stats.loss + loss:item()
      stats.reward = stats.reward + reward:mean():item() / self.n
      ledger[#ledger + 1] = { branch = "denoise", m = draws[1], from = self.levels[from[1]], to = self.levels[to[1]],
        lambda = weight[1], reward = reward:mean():item() }
    end)
  end
  return stats, ledger
end

M.DirectAlign = DirectAlign

return M
