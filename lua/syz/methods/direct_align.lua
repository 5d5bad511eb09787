--- Direct-Align (paper eq. 4, 5): inject a predefined noise at any level, take one differentiable step, recover the
--- clean image with the same noise, and push any reward through it.
--
-- The recovered image is x0 -/+ dsigma/(1-r) (v - v*): the model's prediction replaces only a small share of the known
-- noise, so the image is sharp and the gradient bounded at every level (docs/methods.md). In the design space of
-- backprop.lua the reward sees the image recovered with the noise prior, one level is active, and its weight is
-- (r - h)/(1 - r).
local aggregate = require "syz.aggregate"
local backprop = require "syz.methods.backprop"
local core = require "syz.core"
local discount = require "syz.discount"
local fields = require "syz.fields"
local offline = require "syz.offline"
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
  local eps = backprop.draw_noise(self, batch, generator)
  if self.offline then
    local images = self.offline(batch.prompts, generator)
    return core.no_grad(core.scope, function() return self.pipeline:encode(images) end), eps
  end
  local guidance = self.rollout_guidance
  local x0 = sampler.euler(self.pipeline, {
    noise = eps, cond = batch.cond, schedule = self.schedule, steps = self.rollout_steps,
    guidance = type(guidance) == "function" and function(level)
      return backprop.guidance(guidance, self.schedule, level, batch.step)
    end or guidance,
  })
  return x0, eps
end

local FIELDS = {
  window = "string|table|function", rollout_steps = "integer|function", timesteps = "integer",
  ratio = "number|function", jump = "integer|function", dsigma = "number|function", lambda = "any",
  offline = "string|function", aggregate = "integer|table|function", spacing = "integer", views_at_once = "integer",
}

-- The jump in indices, as a number or a function of the training step, from one of the three ways to say it.
local function jump_of(options, levels, T, name)
  local given = {}
  for _, key in ipairs { "dsigma", "jump", "ratio" } do
    if options[key] ~= nil then given[#given + 1] = key end
  end
  if #given > 1 then error(("%s: %s and %s say the same thing, give one"):format(name, given[1], given[2]), 4) end
  local key = given[1] or "ratio"
  local spacing = math.abs(levels[0] - levels[T - 1]) / (T - 1)
  local convert = {
    jump = function(k) return math.floor(k) end,
    ratio = function(r) return schedule.jump(r, T) end,
    dsigma = function(d) return math.max(1, math.floor(d / spacing + 0.5)) end,
  }
  local read = fields.setting(options[key] or 0.9, ("%s: %s"):format(name, key), function(value)
    local k = convert[key](value)
    return k >= 1 and k < T, ("it makes a jump of %g indices, 1 to %d are possible"):format(k, T - 1)
  end)
  if type(options[key]) == "function" then return function(step) return convert[key](read(step)) end end
  return convert[key](read())
end

--- Fields that Direct-Align and SRPO share, checked and completed.
---@param extra table<string, string>|nil   the method's own fields
function M.settings(options, name, extra)
  local spec = {}
  for _, list in ipairs { FIELDS, extra or {} } do
    for key, kinds in pairs(list) do spec[key] = kinds end
  end
  local train_guidance = type(options) == "table" and options.train_guidance == nil
  local self = backprop.settings(options, name, spec, nil, 4)
  if train_guidance then self.train_guidance = 3.5 end
  self.T = options.timesteps or 1000
  if self.T < 20 then error(("%s: timesteps must be at least 20, not %d"):format(name, self.T), 3) end
  backprop.movable(self, options.window or { 5, 25 }, function(window)
    if type(window) ~= "string" and type(window) ~= "table" then
      error(("%s: window must be a name or a table, not a %s"):format(name, type(window)), 0)
    end
    self.levels = self.schedule:window(aggregate.window(window, name), self.T)
    self.k = jump_of(options, self.levels, self.T, name)
  end)
  self.count, self.by = aggregate.resolve(options.aggregate, name)
  self.spacing = options.spacing or math.floor(self.T / 20)
  self.views_at_once = options.views_at_once or 1
  if self.views_at_once < 1 or self.views_at_once > 12 then
    error(("%s: views_at_once must be a number from 1 to 12, not %d"):format(name, self.views_at_once), 3)
  end
  if self.by and (options.lambda ~= nil or options.threshold ~= nil) then
    error(("%s: aggregate as a function decides the weights; leave out lambda and threshold"):format(name), 3)
  end
  self.lambda = discount.resolve(options.lambda or 1, "lambda")
  self.offline = options.offline and offline.resolve(options.offline, self.pipeline)
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

--- Window indices of one direction for a list of draws, `offset` indices further to the clean side.
---@return integer[] from, integer[] to, number[] position, integer[] m, integer[] jump
function M.indices(self, draws, direction, offset, step)
  local from, to, position, ms, jumps = {}, {}, {}, {}, {}
  local k = type(self.k) == "function" and self.k(step) or self.k
  for i, m in ipairs(draws) do
    m = math.max(5, math.min(self.T - 5, m - (offset or 0)))
    local choice = schedule.pair(m, k, self.T)
    local pair = choice[direction]
    from[i], to[i], position[i] = pair.from, pair.to, pair.kappa / (self.T - 1)
    ms[i], jumps[i] = m, choice.jump
  end
  return from, to, position, ms, jumps
end

-- What every sample of the batch did, for the detailed ledger.
local function samples(self, from, to, position, ms, jumps, weight)
  local list = {}
  for i in ipairs(from) do
    list[i] = { m = ms[i], k = jumps[i], t = position[i], lambda = weight[i] }
    local _, high = self.schedule:at(self.levels[from[i]])
    local _, low = self.schedule:at(self.levels[to[i]])
    list[i].from, list[i].to = high, low
  end
  return core.array(list)
end

--- The views of one direction: the image recovered at each of the aggregated levels.
---@param x0 syz.Tensor
---@param eps syz.Tensor
---@param draws integer[]
---@param direction "denoise"|"inversion"
---@param score nil|fun(images: syz.Tensor, positions: number[], row: table): syz.Tensor
---@return syz.View[] views, syz.Tensor[] sigmas   levels of each view, {B}
function M.views(self, batch, x0, eps, draws, direction, score)
  local views, sigmas = {}, {}
  for i = 1, self.count do
    local from, to, position, ms, jumps = M.indices(self, draws, direction, (i - 1) * self.spacing, batch.step)
    -- both directions recover at m: one weight for both, or the branches of SRPO would no longer balance
    local weight = {}
    for b, m in ipairs(ms) do weight[b] = self.lambda(m / (self.T - 1)) end
    local row = { branch = direction, m = ms[1], k = jumps[1], lambda = weight[1] }
    local _, high = self.schedule:at(self.levels[from[1]])
    local _, low = self.schedule:at(self.levels[to[1]])
    row.from, row.to = high, low
    if self.ledger then row.samples = samples(self, from, to, position, ms, jumps, weight) end
    local source, target = M.level(self, from), M.level(self, to)
    local _, sigma = self.schedule:at(source)
    sigmas[i] = sigma:reshape({ #from })
    local guidance = backprop.guidance(self.train_guidance, self.schedule, source, batch.step)
    views[i] = {
      row = row, weight = weight, share = 1 / self.count, source = source, target = target, guidance = guidance,
      image = function() return M.recover(self.pipeline, x0, eps, source, target, batch.cond, guidance) end,
      score = score and function(images) return score(images, position, row) end,
    }
  end
  if self.by then backprop.aggregate(self, batch, self.by, views, sigmas) end
  return views
end

-- One tensor behind the other along the batch.
local function behind(list)
  return core.ops.concat(list, 0)
end

local function copies(tensor, n)
  local list = {}
  for i = 1, n do list[i] = tensor end
  return behind(list)
end

--- The update of these views, `views_at_once` of them in a batch. The transformer is called once for all of those: it
--- reads its weights once and multiplies larger matrices; their activations are in memory together. The gradients are
--- those of one view after the other, within rounding.
---@param views syz.View[]   from :views()
---@return table stats, table[] ledger
function M.update(self, batch, x0, eps, views)
  return backprop.update(self, batch, views, self.views_at_once, function(group)
    local source, target, guidance, n = {}, {}, {}, #group
    for i, view in ipairs(group) do source[i], target[i], guidance[i] = view.source, view.target, view.guidance end
    local cond = { hidden = copies(batch.cond.hidden, n), pooled = copies(batch.cond.pooled, n) }
    return M.recover(self.pipeline, copies(x0, n), copies(eps, n), behind(source), behind(target), cond,
      type(guidance[1]) == "userdata" and behind(guidance) or guidance[1])
  end)
end

local DirectAlign = {}
DirectAlign.__index = DirectAlign

--- Direct-Align with any reward, aggregated over a window of levels.
---@param options { pipeline: syz.Pipeline, reward: table, schedule: syz.Schedule|nil, window:
---  string|table|function|nil, timesteps: integer|nil, aggregate: integer|table|function|nil, spacing: integer|nil,
---  lambda: any, jump: integer|function|nil, ratio: number|function|nil, dsigma: number|function|nil, rollout_steps:
---  integer|function|nil, rollout_guidance: number|function|nil, train_guidance: number|function|nil, noise:
---  string|function|nil, threshold: number|nil, offline: string|function|nil, views_at_once: integer|nil }
---  aggregate: how many neighbouring levels share one update, or a function of their rewards; lambda: discount of each
function M.new(options)
  return setmetatable(M.settings(options, "direct_align"), DirectAlign)
end

--- One step. The aggregate sum of lambda(t_i) r_i is differentiated level by level, so that memory does not grow with
--- the window.
---@param batch { step: integer, prompts: string[], cond: table }
---@return table stats, table[] ledger
function DirectAlign:step(batch, generator)
  backprop.at_step(self, batch.step)
  local x0, eps = M.start(self, batch, generator)
  local draws = M.draw(self, #batch.prompts, generator)
  return M.update(self, batch, x0, eps, M.views(self, batch, x0, eps, draws, "denoise"))
end

M.DirectAlign = DirectAlign

return M
