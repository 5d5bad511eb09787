--- ReFL (ImageReward, arXiv 2304.05977): stop at a random late step and score the one-step guess of the clean image
--- there, x - sigma v (general: (x - sigma eps)/alpha). Only that prediction carries gradient.
--
-- Fields beside the common ones: `last`, how many steps the stop is drawn from, counted from the end (a number, or a
-- function of the number of steps); the last 44 % unless given.
local backprop = require "syz.methods.backprop"
local draws = require "syz.methods.draws"
local fields = require "syz.fields"

-- original: ImageReward's trainer. It stops before one of the steps 30 .. 39 of 40, counted from 0, which is the last
-- ten.
local presets = {
  original = { rollout_steps = 40, last = 10, rollout_guidance = 1, threshold = 2, loss_scale = 1e-3 },
  flux = { rollout_steps = 25, last = 11, rollout_guidance = 4, threshold = 0.55 },
}

return backprop.define {
  name = "refl", presets = presets,
  fields = { last = "integer|function" },
  check = function(self)
    local steps = self.rollout_steps
    self.last = fields.setting(self.last or math.ceil(0.44 * steps), "refl: last", function(n)
      return n == math.floor(n) and n >= 1 and n <= steps, ("a whole number from 1 to rollout_steps (%d) is needed")
        :format(steps)
    end)(steps)
  end,
  plan = function(self, generator)
    local stop = draws.late(generator, self.rollout_steps, self.last)
    return { legs = {}, sees = "posterior", stop = stop, active = true, last = stop - 1 }
  end,
}
