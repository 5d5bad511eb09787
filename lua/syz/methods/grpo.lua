--- GRPO for flow models: DanceGRPO (arXiv 2505.07818) and Flow-GRPO (arXiv 2505.05470), with their fast variants.
--
-- A stochastic sampler makes `group` images of each prompt; an image that its reward puts above its group makes the
-- steps that led to it more likely, without a gradient of the reward:
--
--   loss = mean over images and steps of  max(-A ratio, -A clamp(ratio, 1 - clip, 1 + clip)) + kl * KL,
--   ratio = exp(log p_theta(x' | x) - log p_rollout(x' | x)),   KL = mean((mu - mu_ref)^2) / (2 s^2)
--
-- with A from lua/syz/advantage.lua and steps from lua/syz/sde.lua. With one update per rollout, the default, every
-- ratio is 1 and the loss is the policy gradient. docs/grpo.md has the formulas, the presets and what they cost.
local advantage = require "syz.advantage"
local core = require "syz.core"
local data = require "syz.data"
local sde = require "syz.sde"
local settings = require "syz.methods.grpo_settings"

local M = {}

local Grpo = {}
Grpo.__index = Grpo

-- With adapters the model before training is the model without them: no second copy of its weights.
local function without_adapters(pipe)
  return setmetatable({ modulation = false, velocity = function(_, x, t, cond, guidance)
    return pipe.adapter:disabled(pipe.velocity, pipe, x, t, cond, guidance)
  end }, { __index = pipe })
end

--- The pipeline with a frozen copy of its transformer as it is now, or without its adapters. A run that resumes builds
--- its method before it loads a checkpoint, so that the copy is always of the weights that training started from.
---@param pipe syz.Pipeline
function M.reference(pipe)
  if pipe.adapter then return without_adapters(pipe) end
  local model = pipe.transformer
  local copy = core.model.create(model:config()):init(0)
  core.scope(function()
    for _, name in ipairs(model:names()) do copy:param(name):assign(model:param(name)) end
  end)
  copy:requires_grad(false)
  return setmetatable({ transformer = copy }, { __index = pipe })
end

---@param options { pipeline: syz.Pipeline, reward: table, form: "dance"|"flow"|nil, preset: string|nil,
---  sampler: "dance"|"flow"|"cps"|nil, eta: number|nil, rollout_steps: integer|nil, schedule: syz.Schedule|nil,
---  shift: number|nil, guidance: number|nil, group: integer|nil, noise: "group"|"per_sample"|"shared"|nil,
---  advantage: { spread: "group"|"global"|nil, unbiased: boolean|nil, eps: number|nil }|nil, clip: number|nil,
---  advantage_clip: number|nil, kl: number|nil, fraction: number|nil, window: { size: integer, first: integer|nil,
---  last: integer|nil, every: integer|nil, stride: integer|nil }|nil, updates: integer|nil, epochs: integer|nil,
---  micro_batch: integer|nil, relative: { control: table|function|nil, kappa: number|nil }|nil,
---  log_prob: "gaussian"|"squared"|nil }
function M.new(options)
  local self = setmetatable(settings.resolve(options), Grpo)
  self.name = "grpo"
  if self.kl > 0 then self.frozen = M.reference(self.pipeline) end
  return self
end

--- The images of an update, prompt by prompt, and the parts in which they pass through the models.
function Grpo:divide(prompts)
  local texts, count = {}, #prompts * self.group
  for _, prompt in ipairs(prompts) do
    for _ = 1, self.group do texts[#texts + 1] = prompt end
  end
  local size, parts = self.micro_batch or math.ceil(count / self.updates), {}
  for first = 1, count, size do
    local last = math.min(first + size - 1, count)
    local here = {}
    for i = first, last do here[#here + 1] = texts[i] end
    parts[#parts + 1] = { first = first, last = last, texts = here, cond = self.pipeline:condition(here) }
  end
  if #parts % self.updates ~= 0 then
    error(("grpo: %d images in parts of %d make %d parts, which %d updates cannot share evenly: change micro_batch, "
      .. "updates, group or batch"):format(count, size, #parts, self.updates), 0)
  end
  return texts, parts
end

--- One starting noise per sample, per group or for all.
function Grpo:draw_noise(prompts, generator)
  local pipe, count = self.pipeline, prompts * self.group
  if self.noise == "per_sample" then return pipe:noise(generator, count) end
  local one = pipe:noise(generator, self.noise == "group" and prompts or 1)
  local shape = one:shape()
  local times = count / shape[1]
  return one:reshape({ shape[1], 1, shape[2], shape[3] }):broadcast_to({ shape[1], times, shape[2], shape[3] })
    :reshape({ count, shape[2], shape[3] })
end

--- The reward of every image, as numbers; gradients of the reward are not used.
function Grpo:score(path, parts, step)
  local clean, rewards = path.x[#path.x], {}
  for _, part in ipairs(parts) do
    local values = core.no_grad(core.scope, function()
      local images = self.pipeline:decode(clean:slice(0, part.first - 1, part.last))
      if not self.relative then return self.reward:score(images, part.texts):totable() end
      local positive, negative = {}, {}
      for i, text in ipairs(part.texts) do positive[i], negative[i] = self.control(step, text) end
      return self.reward:relative(images, positive, negative, self.relative.kappa):totable()
    end)
    for _, value in ipairs(values) do rewards[#rewards + 1] = value end
  end
  return rewards
end

--- Which noisy steps train each image: order[image][k], a random share of them, or all.
function Grpo:choose(noisy, count, generator)
  local passes = math.max(1, math.floor(#noisy * self.fraction + 1e-9))
  local order = {}
  for i = 1, count do
    order[i] = {}
    local shuffled = passes < #noisy and data.permutation(generator, #noisy)
    for k = 1, passes do order[i][k] = noisy[shuffled and shuffled[k] or k] end
  end
  return order, passes
end

--- The recorded transitions of a part's images in pass k: the states, where they went, with which probability.
local function transitions(plan, part, k)
  local before, after, steps, logs, indices = {}, {}, {}, {}, {}
  for i = part.first, part.last do
    local index = plan.order[i][k]
    before[#before + 1] = plan.path.x[index]:slice(0, i - 1, i)
    after[#after + 1] = plan.path.x[index + 1]:slice(0, i - 1, i)
    steps[#steps + 1] = plan.steps[index]
    logs[#logs + 1] = plan.path.log_prob[index][i]
    indices[#indices + 1] = index
  end
  return data.stack(before), data.stack(after), steps, logs, indices
end

--- KL of each sample's step from the reference's, per element: mean((mu - mu_ref)^2) / (2 s^2).
function Grpo:divergence(x, mean, levels, steps, cond)
  local other = core.no_grad(function()
    return sde.mean(x, self.frozen:velocity(x, levels, cond, self.guidance), steps)
  end)
  return ((mean - other) / sde.column(steps, "scale")):square():mean({ 1, 2 }) * 0.5
end

--- Gradients of one pass of one part, weighted by its share of the update. Returns the loss and, per image, what the
--- ledger wants.
function Grpo:pass(plan, part, k, weight)
  return core.scope(function()
    local x, after, steps, old, indices = transitions(plan, part, k)
    local size = #steps
    local levels = sde.column(steps, "from"):reshape({ size })
    local mean = sde.mean(x, self.pipeline:velocity(x, levels, part.cond, self.guidance), steps)
    local ratio = (sde.log_prob(after, mean, steps, self.log_prob) - core.tensor(old)):exp()
    local advantages = {}
    for i = 1, size do advantages[i] = -plan.advantages[part.first + i - 1] end
    local push = core.tensor(advantages)
    local loss = (push * ratio):maximum(push * ratio:clamp(1 - self.clip, 1 + self.clip)):mean()
    local divergence
    if self.frozen then
      divergence = self:divergence(x, mean, levels, steps, part.cond)
      loss = loss + divergence:mean() * self.kl
    end
    loss = loss * weight
    loss:backward()
    return loss:item(), { ratio = ratio:totable(), kl = divergence and divergence:totable(), index = indices }
  end)
end

--- Add what happened in a pass to the row of each step.
function Grpo:record(rows, plan, seen)
  for i, index in ipairs(seen.index) do
    local step = plan.steps[index]
    local row = rows[index] or { branch = "step", sampler_step = index, from = step.from, to = step.to,
      noise = step.std, images = 0, ratio = 0, clipped = 0, kl = seen.kl and 0 }
    rows[index] = row
    row.images, row.ratio = row.images + 1, row.ratio + seen.ratio[i]
    row.clipped = row.clipped + (math.abs(seen.ratio[i] - 1) > self.clip and 1 or 0)
    if seen.kl then row.kl = row.kl + seen.kl[i] end
  end
end

--- Everything that is fixed before the first gradient: the images, their rewards, their advantages.
function Grpo:plan(batch, generator)
  local texts, parts = self:divide(batch.prompts)
  local last_step = self.rollout_steps - 1
  local noisy, is_noisy = settings.noisy_steps(self.window, last_step, batch.step, generator), {}
  for _, index in ipairs(noisy) do is_noisy[index] = true end
  local steps = sde.steps(self.schedule:levels(self.rollout_steps), is_noisy, self.sampler, self.eta)
  local path = sde.rollout(self.pipeline, { noise = self:draw_noise(#batch.prompts, generator), steps = steps,
    generator = generator, guidance = self.guidance, parts = parts, log_prob = self.log_prob })
  local plan = { parts = parts, steps = steps, path = path }
  plan.order, plan.passes = self:choose(noisy, #texts, generator)
  plan.rewards = self:score(path, parts, batch.step)
  plan.raw, plan.groups = advantage.compute(plan.rewards, self.group, self.advantage)
  plan.advantages = advantage.clamp(plan.raw, self.advantage_clip)
  return plan
end

--- Accumulate the gradients of the update's parts. Returns its loss.
function Grpo:accumulate(plan, rows, first, last)
  local images, loss = plan.parts[last].last - plan.parts[first].first + 1, 0
  for number = first, last do
    local part = plan.parts[number]
    for k = 1, plan.passes do
      local value, seen = self:pass(plan, part, k, (part.last - part.first + 1) / images / plan.passes)
      loss = loss + value
      self:record(rows, plan, seen)
    end
  end
  return loss
end

--- Rows of the ledger and numbers for the log.
local function summarise(plan, batch, updates)
  local stats, ledger = { reward = 0, reward_std = 0, ratio = 0, clipped = 0 }, {}
  for i, group in ipairs(plan.groups) do
    stats.reward = stats.reward + group.mean / #plan.groups
    stats.reward_std = stats.reward_std + group.deviation / #plan.groups
    ledger[#ledger + 1] = { branch = "group", prompt = batch.prompts[i], reward = group.mean,
      reward_std = group.deviation, low = group.low, high = group.high }
  end
  local images, kl = 0, nil
  for number, update in ipairs(updates) do
    local indices = {}
    for index in pairs(update.rows) do indices[#indices + 1] = index end
    table.sort(indices)
    for _, index in ipairs(indices) do
      local row = update.rows[index]
      images, stats.ratio, stats.clipped = images + row.images, stats.ratio + row.ratio, stats.clipped + row.clipped
      if row.kl then kl = (kl or 0) + row.kl end
      row.update = number
      for _, name in ipairs { "ratio", "clipped", "kl" } do row[name] = row[name] and row[name] / row.images end
      ledger[#ledger + 1] = row
    end
    if update.norm then
      ledger[#ledger + 1] = { branch = "update", update = number, loss = update.loss, grad_norm = update.norm }
    end
  end
  stats.ratio, stats.clipped, stats.kl = stats.ratio / images, stats.clipped / images, kl and kl / images
  return stats, ledger
end

--- One rollout and its updates. The last update's gradients are left to the trainer; the ones before are applied
--- through batch.update.
---@param batch { step: integer, prompts: string[], cond: table, update: nil|fun(loss: number): number|nil }
---@return table stats, table[] ledger
function Grpo:step(batch, generator)
  local total = self.updates * self.epochs
  if total > 1 and not batch.update then
    error(("grpo: %d updates per rollout need a trainer that offers batch.update; syz.train does"):format(total), 0)
  end
  local plan = self:plan(batch, generator)
  local share, updates = #plan.parts / self.updates, {}
  for number = 1, total do
    local first = ((number - 1) % self.updates) * share + 1
    local update = { rows = {} }
    update.loss = self:accumulate(plan, update.rows, first, first + share - 1)
    if number < total then update.norm = batch.update(update.loss) end
    updates[number] = update
  end
  local stats, ledger = summarise(plan, batch, updates)
  stats.loss = updates[total].loss
  return stats, ledger
end

return M
