--- LeapAlign (arXiv 2604.15311): two leaps, from a random step k to a later one j, and from there to the image. The
--- reward sees the sampled image; the gradient runs through two predictions, and from the second into the first
--- multiplied by alpha. Samples whose leaps land close to the sampled states weigh more: 1 / (max(d_j, tau) + max(d_0,
--- tau)).
--
-- Fields beside the common ones: `alpha` (.3), `tau` (.1; 0 turns the weighting off), and `pair`, how k and j are
-- drawn: "uniform", { before, between, after } for a Dirichlet distribution of the three stretches, or a function
-- (generator, n) that returns k < j, both from 1 to n.
local backprop = require "syz.methods.backprop"
local draws = require "syz.methods.draws"
local fields = require "syz.fields"
local quadrature = require "syz.methods.quadrature"

-- The paper's own experiments are on FLUX: one set of numbers under both names.
local flux = { rollout_steps = 25, alpha = 0.3, tau = 0.1, rollout_guidance = 4, threshold = 0.55 }

return backprop.define {
  name = "leapalign", presets = { original = flux, flux = flux },
  fields = { alpha = "number|function", tau = "number", pair = "string|table|function" },
  check = function(self)
    self.alpha = fields.setting(self.alpha or 0.3, "leapalign: alpha")
    self.tau = self.tau or 0.1
    self.pair = draws.resolve_pair(self.pair or "uniform", "leapalign", self.rollout_steps)
  end,
  plan = function(self, generator, levels, step)
    local n = #levels - 1
    local k, j = self.pair(generator, n)
    local legs = { quadrature.leap(self.schedule, levels, k, j), quadrature.leap(self.schedule, levels, j, n + 1) }
    quadrature.activate(legs[1], { k })
    quadrature.activate(legs[2], { j })
    return { legs = legs, sees = "sampled", bridge = self.alpha(step), similarity = self.tau > 0 and self.tau or nil }
  end,
}
