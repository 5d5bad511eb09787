--- Reward backpropagation, written once. A direct-gradient method rolls out without gradient, caches the states x_i and
--- the predictions v_i, and builds a surrogate whose VALUE is the image the reward should see and whose GRADIENT runs
--- through a few predictions that are computed again. Methods differ in five choices (docs/methods.md has the table):
--
--   what the reward sees   "sampled": the image of the rollout, straight through; "posterior": the one-step guess of
--                          the clean image; "recovered": what the known noise gives back (direct_align.lua)
--   active steps           which predictions carry gradient (draws.lua)
--   weights                how far a prediction carries: Euler, leap, Lagrange (quadrature.lua); (r-h)/(1-r) recovered
--   bridge                 how much gradient passes from one leg into the model's input at the next, alpha
--   views                  how many images one update scores: DRaFT-LV's re-noisings, the levels of an aggregate
--
-- Everything is written against the schedule's (alpha, sigma) through inject, step, split and straight.
local aggregate = require "syz.aggregate"
local control = require "syz.control"
local core = require "syz.core"
local fields = require "syz.fields"
local path_of = require "syz.methods.path"

local M = {
  straight_through = path_of.straight_through, scale_gradient = path_of.scale_gradient, guidance = path_of.guidance,
  draw_noise = path_of.draw_noise, roll = path_of.roll,
}

--- The fields of every direct-gradient method, for syz.fields.
M.FIELDS = {
  pipeline = "table", reward = "table", schedule = "table", preset = "string", rollout_steps = "integer",
  rollout_guidance = "number|function", train_guidance = "number|function", noise = "string|function",
  threshold = "number", loss_scale = "number", control = "table|string|function",
}

--- A field that may be a number or a function (sigma, step) of the noise level.
local function guidance_of(value, name)
  if type(value) ~= "function" then return value end
  return fields.setting(value, name)
end

--- Keep a field that may be a function of the training step. `take` checks a value and keeps it: now, and before every
--- step whose value may be another.
---@param self table
---@param value any
---@param take fun(value: any)
function M.movable(self, value, take)
  if type(value) == "function" then
    local f = value
    table.insert(self.moving, function(step) take(f(step)) end)
    value = f(1)
  end
  take(value)
end

--- Give the fields that are functions of the training step their values of this one.
function M.at_step(self, step)
  for _, move in ipairs(self.moving) do move(step) end
end

--- Check and complete what all methods share.
---@param options table
---@param name string
---@param extra table<string, string>|nil   the method's own fields
---@param presets table<string, table>|nil
---@param level integer|nil   where errors point, counted from here (3: the caller of the method's new)
---@return table self
function M.settings(options, name, extra, presets, level)
  level = level or 3
  local spec = {}
  for _, list in ipairs { M.FIELDS, extra or {} } do
    for key, kinds in pairs(list) do spec[key] = kinds end
  end
  fields.check(name, options, spec, level)
  for _, key in ipairs { "pipeline", "reward" } do
    if not options[key] then error(("%s needs the field %s"):format(name, key), level) end
  end
  local self = fields.preset(name, options, presets or {})
  self.name = name
  self.schedule = self.schedule or self.pipeline.schedule
  -- the pipeline samples and is evaluated as the method made last wants it
  self.pipeline.schedule = self.schedule
  self.pipeline.quantize_timestep, self.pipeline.quantize_guidance = nil, nil
  self.moving = {}
  M.movable(self, self.rollout_steps or self.schedule.steps, function(steps)
    if type(steps) ~= "number" or steps < 1 or steps % 1 ~= 0 then
      error(("%s: rollout_steps must be a whole number from 1, not %s"):format(name, tostring(steps)), 0)
    end
    self.rollout_steps = steps
  end)
  self.rollout_guidance = guidance_of(self.rollout_guidance or 1, "rollout_guidance")
  self.train_guidance = guidance_of(self.train_guidance or self.rollout_guidance, "train_guidance")
  M.movable(self, self.noise or "per_sample", function(noise)
    self.noise = fields.choice(name, "noise", noise, { "per_sample", "shared" }, level)
  end)
  -- the words of the evaluation's relative reward
  self.control = self.control and control.resolve(self.control, self.reward)
  self.modules = { transformer = self.pipeline.transformer }
  return self
end

--- What one view adds to the loss: share * scale * mean over samples of weight * (-R), or of weight * relu(threshold -
--- R).
function M.loss(self, reward, weight, share)
  local value = self.threshold and (self.threshold - reward):relu() or -reward
  if weight then value = value * weight end
  local factor = (share or 1) * (self.loss_scale or 1)
  return factor == 1 and value:mean() or value:mean() * factor
end

local function gradients(self)
  local list = {}
  for _, module in pairs(self.modules) do
    for _, parameter in ipairs(module:parameters()) do list[#list + 1] = { parameter, parameter:grad() } end
  end
  return list
end

-- The norm of what was added to the gradients since `before`. Accumulation makes new tensors, so holding the old ones
-- is all it takes, and nothing about the gradients themselves changes.
local function added(before)
  return core.no_grad(core.scope, function()
    local total = 0
    for _, pair in ipairs(before) do
      local now = pair[1]:grad()
      if now then total = total + (pair[2] and now - pair[2] or now):square():sum():item() end
    end
    return math.sqrt(total)
  end)
end

---@class syz.View
---@field image fun(): syz.Tensor, syz.Tensor|nil   packed latents [B,T,C] and a weight per sample {B}
---@field row table                        what the ledger says about it
---@field name string|nil                  its reward is logged as reward_<name>
---@field score nil|fun(images: syz.Tensor): syz.Tensor   {B}, to be maximised; the method's reward unless given
---@field weight number[]|syz.Tensor|nil   discount of each sample
---@field share number|nil                 of the loss (1)

-- The loss of one view of these images; what is known of it goes into its row and the stats.
local function judge(self, batch, view, images, similarity, stats, count)
  local reward = view.score and view.score(images) or self.reward:score(images, batch.prompts)
  local weight = view.weight and (type(view.weight) == "table" and core.tensor(view.weight) or view.weight)
  if similarity then weight = weight and weight * similarity or similarity end
  local loss = M.loss(self, reward, weight, view.share)
  stats.loss = stats.loss + loss:item()
  view.row.reward = reward:mean():item()
  if self.ledger then view.row.rewards = reward:totable() end
  if self.reward.report then
    for key, value in pairs(self.reward:report()) do
      view.row[key] = value
      stats[key] = (stats[key] or 0) + value / count
    end
  end
  return loss
end

local function differentiate(self, batch, view, stats, count)
  core.scope(function()
    local before = self.ledger and gradients(self)
    local latents, similarity = view.image()
    judge(self, batch, view, self.pipeline:decode(latents), similarity, stats, count):backward()
    if before then view.row.grad_norm = added(before) end
  end)
end

-- The same for several views whose images come out of the models as one batch.
local function differentiate_together(self, batch, group, images_of, stats, count)
  core.scope(function()
    local images, size, loss = self.pipeline:decode(images_of(group)), #batch.prompts, nil
    for i, view in ipairs(group) do
      local own = judge(self, batch, view, images:slice(0, (i - 1) * size, i * size), nil, stats, count)
      loss = loss and loss + own or own
    end
    loss:backward()
  end)
end

--- Gradients of one update: view by view, so that memory does not grow with their number, or some at a time. For the
--- ledger, which has the gradient's norm of each, always view by view.
---@param self table
---@param batch { step: integer, prompts: string[], cond: table }
---@param views syz.View[]
---@param at_once integer|nil   views in one batch (1)
---@param images_of nil|fun(views: syz.View[]): syz.Tensor   packed latents of several views, one behind the other
---@return table stats, table[] rows
function M.update(self, batch, views, at_once, images_of)
  local stats, rows = { loss = 0, reward = 0 }, {}
  local sums = {}
  if self.ledger then at_once = 1 end
  for first = 1, #views, at_once or 1 do
    local group = { unpack(views, first, math.min(first + (at_once or 1) - 1, #views)) }
    if #group == 1 then
      differentiate(self, batch, group[1], stats, #views)
    else
      differentiate_together(self, batch, group, images_of, stats, #views)
    end
  end
  for i, view in ipairs(views) do
    rows[i] = view.row
    local name = view.name or ""
    sums[name] = sums[name] or { 0, 0 }
    sums[name][1], sums[name][2] = sums[name][1] + view.row.reward, sums[name][2] + 1
  end
  for name, sum in pairs(sums) do
    if name ~= "" then stats["reward_" .. name] = sum[1] / sum[2] end
  end
  local first = sums[views[1].name or ""]
  stats.reward = first[1] / first[2]
  return stats, rows
end

--- Replace the weights of some views by what a Lua function makes of their rewards. The rewards are computed once
--- without gradient; each view is differentiated later with the derivative of the aggregate as its weight, which is
--- exact and keeps memory flat, for a second forward pass of each.
---@param by fun(rewards: syz.Tensor[], sigmas: syz.Tensor[]): syz.Tensor|table
---@param views syz.View[]
---@param sigmas syz.Tensor[]   {B} for each view
function M.aggregate(self, batch, by, views, sigmas)
  local rewards = {}
  for i, view in ipairs(views) do
    rewards[i] = core.no_grad(core.scope, function()
      local images = self.pipeline:decode((view.image()))
      return view.score and view.score(images) or self.reward:score(images, batch.prompts)
    end)
  end
  for i, weight in ipairs(aggregate.weights(by, rewards, sigmas)) do
    views[i].weight, views[i].share = weight, 1
    views[i].row.weight = weight:mean():item()
  end
end

local function plan_row(self, path, plan)
  local active, row = {}, { branch = self.name, sees = plan.sees }
  for _, leg in ipairs(plan.legs) do
    for _, support in ipairs(leg.supports) do
      if support.active then active[#active + 1] = support.step end
    end
  end
  if plan.active then active[#active + 1] = plan.stop end
  row.steps = table.concat(active, " ")
  local first = plan.legs[1] and plan.legs[1].from or plan.stop
  local last = plan.stop or plan.legs[#plan.legs].to
  row.from, row.to = path:sigma(first), path:sigma(last)
  row.bridge = plan.bridge
  return row
end

--- A method from its choices.
---@param spec { name: string, fields: table<string, string>, presets: table<string, table>,
---  check: nil|fun(self: table),
---  plan: fun(self: table, generator: syz.Generator, levels: number[], step: integer): table,
---  views: nil|fun(self: table, path: syz.Path, generator: syz.Generator): syz.View[] }
---  `check` completes and refuses fields; `plan` draws one update's plan (`plan.last`: the rollout may end there);
---  `views` adds images to score.
---@return { new: fun(options: table): table }
function M.define(spec)
  local Method = {}
  Method.__index = Method

  function Method:step(batch, generator)
    M.at_step(self, batch.step)
    local noise = path_of.draw_noise(self, batch, generator)
    local plan = spec.plan(self, generator, self.schedule:levels(self.rollout_steps), batch.step)
    local path = path_of.roll(self, batch, noise, plan.last)
    local views = { { row = plan_row(self, path, plan), image = function() return path:surrogate(plan) end } }
    for _, view in ipairs(spec.views and spec.views(self, path, generator) or {}) do views[#views + 1] = view end
    for _, view in ipairs(views) do view.share = 1 / #views end
    return M.update(self, batch, views)
  end

  --- Declare the method.
  ---@param options table
  local function new(options)
    local self = setmetatable(M.settings(options, spec.name, spec.fields, spec.presets), Method)
    if spec.check then spec.check(self) end
    return self
  end
  return { new = new, presets = spec.presets, Method = Method }
end

return M
