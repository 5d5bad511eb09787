--- DRTune (arXiv 2405.00760): stop early, at a random one of the last m steps, and score the guess of the clean image
--- made there. A few equally spaced steps carry gradient; the model's inputs are detached, so that the state passes
--- gradient on only through the sampler's own sum.
--
-- Fields beside the common ones: `active` (K, steps that carry gradient, 3) and `stop` (m as a share of the steps, .4;
-- 0 stops at the last step), numbers or functions of the training step.
local backprop = require "syz.methods.backprop"
local draws = require "syz.methods.draws"
local fields = require "syz.fields"
local quadrature = require "syz.methods.quadrature"

local presets = {
  original = { rollout_steps = 50, active = 5, stop = 0.4, rollout_guidance = 7.5 },
  flux = { rollout_steps = 25, active = 3, stop = 0.4, rollout_guidance = 4, threshold = 0.55 },
}

return backprop.define {
  name = "drtune", presets = presets,
  fields = { active = "integer|function", stop = "number|function" },
  check = function(self)
    self.active = fields.setting(self.active or 3, "drtune: active", function(n)
      return n >= 1 and n == math.floor(n), "a whole number from 1 is needed"
    end)
    self.stop = fields.setting(self.stop or 0.4, "drtune: stop", function(m)
      return m >= 0 and m <= 1, "a share of the steps from 0 to 1 is needed"
    end)
  end,
  plan = function(self, generator, levels, step)
    local n = #levels - 1
    local tail = math.floor(n * self.stop(step) + 0.5)
    local stop = tail < 1 and n or draws.late(generator, n, tail)
    local steps = draws.spaced(generator, stop, self.active(step))
    local legs = {}
    if stop > 1 then legs[1] = quadrature.activate(quadrature.euler(self.schedule, levels, 1, stop), steps) end
    return { legs = legs, sees = "posterior", stop = stop, active = steps[#steps] == stop, last = stop }
  end,
}
