--- FlowBP (arXiv 2606.11075): the reward sees the sampled image; the gradient runs through a few predictions of the
--- rollout.
--
-- variant = "sparse"    K steps, drawn with probability proportional to step^bias; Euler weights; every other
--                       prediction is cached and carries nothing
--           "bridge"    the same, split at a random step j: K steps on both sides, j always among them, and alpha of
--                       the gradient that reaches x_j passes into the prediction at j
--           "lagrange"  two legs k -> j -> image, each the exact integral through `order` predictions spread over it;
--                       the first `supports` of each carry gradient, those after the first times support_gain
--
-- rescale in [0, 1] makes up for the steps without gradient (quadrature.rescale); tau weights samples as LeapAlign
-- does. active (K), alpha: numbers or functions of the training step. pair: how k and j are drawn, as in leapalign.lua.
local backprop = require "syz.methods.backprop"
local draws = require "syz.methods.draws"
local fields = require "syz.fields"
local quadrature = require "syz.methods.quadrature"

local defaults = {
  sparse = { active = 3, bias = 2, rescale = 1 },
  bridge = { active = 5, bias = 2, rescale = 1, alpha = 0.1, pair = "uniform" },
  lagrange = { order = 3, supports = 2, support_gain = 0.25, rescale = 0.5, alpha = 0.1, tau = 0.2,
    pair = { 2, 6, 2.5 } },
}

-- The authors' own experiments are on FLUX: one set of numbers under both names.
local flux = { rollout_steps = 25, rollout_guidance = 4, threshold = 0.55 }

local plans = {}

function plans.sparse(self, generator, levels, step)
  local n = #levels - 1
  local leg = quadrature.euler(self.schedule, levels, 1, n + 1)
  quadrature.activate(leg, draws.biased(generator, 1, n, self.active(step), self.bias))
  quadrature.rescale({ leg }, self.rescale)
  return { legs = { leg }, sees = "sampled" }
end

--- How the active steps are shared between the sides, in proportion to their lengths and at least one each.
local function share(count, before, after)
  local first = math.max(1, math.min(before, math.floor(count * before / (before + after) + 0.5)))
  return first, math.max(1, math.min(after, count - first))
end

function plans.bridge(self, generator, levels, step)
  local n = #levels - 1
  local _, j = self.pair(generator, n)
  local before, after = share(self.active(step), j - 1, n + 1 - j)
  local first = quadrature.euler(self.schedule, levels, 1, j)
  local second = quadrature.euler(self.schedule, levels, j, n + 1)
  quadrature.activate(first, draws.biased(generator, 1, j - 1, before, self.bias))
  local late = draws.biased(generator, j + 1, n, after - 1, self.bias)
  late[#late + 1] = j
  quadrature.activate(second, late)
  quadrature.rescale({ first, second }, self.rescale)
  return { legs = { first, second }, sees = "sampled", bridge = self.alpha(step) }
end

function plans.lagrange(self, generator, levels, step)
  local n = #levels - 1
  local k, j = self.pair(generator, n)
  local legs = {}
  for i, ends in ipairs { { k, j }, { j, n + 1 } } do
    local leg = quadrature.lagrange(self.schedule, levels, ends[1], ends[2], self.order)
    local active = {}
    for s = 1, math.min(self.supports, #leg.supports) do active[s] = leg.supports[s].step end
    quadrature.activate(leg, active, function(at) return at == ends[1] and 1 or self.support_gain end)
    quadrature.rescale({ leg }, self.rescale)
    legs[i] = leg
  end
  return { legs = legs, sees = "sampled", bridge = self.alpha(step), similarity = self.tau > 0 and self.tau or nil }
end

local function whole(low)
  return function(n) return n == math.floor(n) and n >= low, ("a whole number from %d is needed"):format(low) end
end

return backprop.define {
  name = "flowbp", presets = { original = flux, flux = flux },
  fields = {
    variant = "string", active = "integer|function", bias = "number", rescale = "number", alpha = "number|function",
    pair = "string|table|function", order = "integer", supports = "integer", support_gain = "number", tau = "number",
  },
  check = function(self)
    self.variant = fields.choice("flowbp", "variant", self.variant or "sparse", { "sparse", "bridge", "lagrange" }, 4)
    for key, value in pairs(defaults[self.variant]) do
      if self[key] == nil then self[key] = value end
    end
    self.active = fields.setting(self.active or 0, "flowbp: active", whole(self.variant == "bridge" and 2 or 1))
    self.alpha = fields.setting(self.alpha or 0, "flowbp: alpha")
    for _, name in ipairs { "order", "supports" } do
      if self[name] then fields.setting(self[name], "flowbp: " .. name, whole(1))() end
    end
    if self.pair then self.pair = draws.resolve_pair(self.pair, "flowbp", self.rollout_steps) end
    self.name = "flowbp_" .. self.variant
  end,
  plan = function(self, generator, levels, step) return plans[self.variant](self, generator, levels, step) end,
}
