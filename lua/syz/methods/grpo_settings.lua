--- What syz.methods.grpo takes: the defaults of its two forms, the published settings as presets, and the checks.
local control = require "syz.control"
local fields = require "syz.fields"
local nearest = require "syz.nearest"
local schedule = require "syz.schedule"
local sde = require "syz.sde"

local M = {}

-- Only what these lines say differs between the two forms; the code below knows no form.
M.forms = {
  dance = { sampler = "dance", eta = 0.3, group = 12, noise = "group", fraction = 0.6, kl = 0,
    advantage = { spread = "group", unbiased = true, eps = 1e-8 } },
  flow = { sampler = "flow", eta = 0.7, group = 24, noise = "per_sample", fraction = 1, kl = 0.04,
    advantage = { spread = "global", unbiased = false, eps = 1e-4 } },
}

--- Published settings (docs/grpo.md names the sources). `shift` makes a schedule of its own.
M.presets = {
  ["dance-flux"] = { form = "dance", rollout_steps = 16, shift = 3, guidance = 3.5, updates = 3 },
  ["flow-sd3"] = { form = "flow", rollout_steps = 10, shift = 3, guidance = 4.5, kl = 0.01, updates = 2 },
  ["flow-flux"] = { form = "flow", rollout_steps = 6, shift = 1.878, guidance = 3.5, eta = 0.9, kl = 0, updates = 2 },
  ["fast-sd3"] = { form = "flow", sampler = "cps", rollout_steps = 10, shift = 3, guidance = 1, eta = 0.8, kl = 0,
    clip = 1e-5, window = { size = 3, first = 1, last = 5 }, updates = 2 },
  ["fast-flux"] = { form = "flow", sampler = "cps", rollout_steps = 6, shift = 1.878, guidance = 3.5, eta = 0.8,
    kl = 0, clip = 1e-5, window = { size = 3, first = 1, last = 3 }, advantage = { spread = "group" }, updates = 2 },
  ["mix-flux"] = { form = "flow", rollout_steps = 25, shift = 3, guidance = 3.5, eta = 0.7, kl = 0, group = 12,
    noise = "group", advantage = { spread = "group", unbiased = true, eps = 1e-8 },
    window = { size = 4, every = 25 }, updates = 4 },
}

-- Which fields there are; what they may hold is checked below, where it is known what they mean.
local function any(...)
  local spec = {}
  for _, name in ipairs { ... } do spec[name] = "any" end
  return spec
end

local FIELDS = any("pipeline", "reward", "preset", "form", "sampler", "eta", "rollout_steps", "schedule", "shift",
  "guidance", "group", "noise", "advantage", "clip", "advantage_clip", "kl", "fraction", "window", "updates",
  "epochs", "micro_batch", "relative", "log_prob")

local function fail(message, ...) error("grpo: " .. message:format(...), 0) end

local function is_count(value, least)
  return type(value) == "number" and value >= least and value == math.floor(value)
end

local function need(self, name, ok, what)
  if not ok then fail("%s must be %s, not %s", name, what, tostring(self[name])) end
end

local function choose(name, value, choices)
  for _, choice in ipairs(choices) do
    if value == choice then return end
  end
  fail("%s cannot be %q%s", name, tostring(value), nearest.hint(tostring(value), choices))
end

--- defaults of the form < preset < what the recipe says
local function merge(options)
  fields.check("grpo", options, FIELDS)
  local preset = {}
  if options.preset then
    choose("preset", options.preset, fields.names(M.presets))
    preset = M.presets[options.preset]
  end
  local form = options.form or preset.form
  if not form then fail('the field form is needed: "dance" or "flow"; or a preset') end
  choose("form", form, fields.names(M.forms))
  local self = { clip = 1e-4, advantage_clip = 5, updates = 1, epochs = 1 }
  local advantage = {}
  for _, layer in ipairs { M.forms[form], preset, options } do
    for key, value in pairs(layer) do self[key] = value end
    if layer.advantage ~= nil and type(layer.advantage) ~= "table" then
      fail("advantage must be a table { spread =, unbiased =, eps = }")
    end
    for key, value in pairs(layer.advantage or {}) do advantage[key] = value end
  end
  self.form, self.advantage = form, advantage
  return self
end

local function check_advantage(settings)
  fields.check("grpo: advantage", settings, any("spread", "unbiased", "eps"))
  choose("advantage.spread", settings.spread, { "group", "global" })
  if type(settings.eps) ~= "number" or settings.eps <= 0 then
    fail("advantage.eps must be a number above 0: it divides where all rewards agree")
  end
end

local function check_window(self, last_step)
  local window = self.window
  if type(window) ~= "table" then fail("window must be a table { size =, first =, last =, every =, stride = }") end
  fields.check("grpo: window", window, any("size", "first", "last", "every", "stride"))
  local full = { size = window.size, first = window.first or 1, last = window.last or last_step, every = window.every,
    stride = window.stride or 1 }
  for _, name in ipairs { "size", "first", "last", "stride" } do
    if not is_count(full[name], 1) then fail("window.%s must be a whole number from 1", name) end
  end
  if full.every and not is_count(full.every, 1) then fail("window.every must be a whole number of rollouts from 1") end
  if full.last > last_step or full.first + full.size - 1 > full.last then
    fail("a window of %d steps does not fit into the steps %d to %d of a rollout of %d (its last step is never noisy)",
      full.size, full.first, full.last, last_step + 1)
  end
  return full
end

local function check_relative(self)
  local relative = self.relative
  if type(relative) ~= "table" then fail("relative must be a table { control =, kappa = }") end
  fields.check("grpo: relative", relative, any("control", "kappa"))
  local kappa = relative.kappa or 0
  if type(kappa) ~= "number" or kappa ~= kappa then fail("relative.kappa must be a number") end
  if type(self.reward.relative) ~= "function" then
    fail("relative needs a reward with the method relative(images, wanted, unwanted, kappa)")
  end
  return { kappa = kappa }, control.resolve(relative.control or control.released, self.reward)
end

local function check_numbers(self)
  need(self, "group", is_count(self.group, 2), "a whole number from 2 (an advantage compares images of one prompt)")
  need(self, "rollout_steps", is_count(self.rollout_steps, 2), "a whole number from 2 (the last step is never noisy)")
  need(self, "updates", is_count(self.updates, 1), "a whole number from 1")
  need(self, "epochs", is_count(self.epochs, 1), "a whole number from 1")
  need(self, "micro_batch", self.micro_batch == nil or is_count(self.micro_batch, 1), "a whole number from 1")
  for _, name in ipairs { "clip", "advantage_clip" } do
    need(self, name, type(self[name]) == "number" and self[name] > 0, "a number above 0")
  end
  need(self, "kl", type(self.kl) == "number" and self.kl >= 0, "a number from 0")
  need(self, "fraction", type(self.fraction) == "number" and self.fraction > 0 and self.fraction <= 1,
    "a number in (0, 1]")
  need(self, "guidance", self.guidance == nil or type(self.guidance) == "number", "a number")
end

local function resolve(options)
  for _, name in ipairs { "pipeline", "reward" } do
    if not options[name] then fail("the field %s is needed", name) end
  end
  local self = merge(options)
  local base = self.schedule or self.pipeline.schedule
  if base.kind ~= "flow" then
    fail("the schedule must be a flow, not %q: the stochastic steps are defined for flows only", base.kind)
  end
  self.rollout_steps = self.rollout_steps or base.steps
  check_numbers(self)
  sde.check(self.sampler, self.eta, "grpo")
  choose("noise", self.noise, { "group", "per_sample", "shared" })
  self.log_prob = self.log_prob or (self.sampler == "cps" and "squared" or "gaussian")
  choose("log_prob", self.log_prob, { "gaussian", "squared" })
  -- a schedule of the recipe wins over the preset's shift
  self.schedule = options.schedule or schedule.flow { steps = self.rollout_steps, shift = self.shift or base.shift }
  self.pipeline.schedule = self.schedule
  self.pipeline.quantize_timestep, self.pipeline.quantize_guidance = nil, nil
  self.guidance = self.guidance or self.pipeline.default_guidance
  check_advantage(self.advantage)
  if self.window then self.window = check_window(self, self.rollout_steps - 1) end
  if self.relative then self.relative, self.control = check_relative(self) end
  self.modules = { transformer = self.pipeline.transformer }
  return self
end

--- The options of a recipe, completed and checked. What is wrong is raised where the recipe made the method.
---@param options table
---@return table
function M.resolve(options)
  local ok, result = pcall(resolve, options)
  if not ok then error(result, 3) end
  return result
end

--- The noisy steps of a rollout, in order: all but the last, or a window among them. A window with `every` moves on
--- by `stride` steps after that many rollouts and starts again at the end; one without is drawn anew each time.
---@param window table|nil    from resolve()
---@param last_step integer   the last step that may be noisy
---@param rollout integer     from 1
---@param generator syz.Generator
---@return integer[]
function M.noisy_steps(window, last_step, rollout, generator)
  local first, size = 1, last_step
  if window then
    local places = window.last - window.size + 1 - window.first
    size = window.size
    if window.every then
      local moves = math.floor((rollout - 1) / window.every) % (math.floor(places / window.stride) + 1)
      first = window.first + moves * window.stride
    else
      first = window.first + generator:integer(0, places)
    end
  end
  local steps = {}
  for i = 0, size - 1 do steps[i + 1] = first + i end
  return steps
end

return M
