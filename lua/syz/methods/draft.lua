--- DRaFT (arXiv 2309.17400): backpropagate through the last K steps of the sampler, every one of them, inputs included.
--- DRaFT-LV: K = 1, and the sample is noised again n times to the level of the last step; the n + 1 losses are
--- averaged.
--
-- Fields beside the common ones: `last` (K, 1; a number, or a function of the training step) and `renoise` (n, 0).
local backprop = require "syz.methods.backprop"
local fields = require "syz.fields"
local quadrature = require "syz.methods.quadrature"

-- original: the paper's sampler of 50 steps with guidance 7.5. lv and flux: DRaFT-LV.
local presets = {
  original = { rollout_steps = 50, last = 1, rollout_guidance = 7.5 },
  lv = { rollout_steps = 50, last = 1, renoise = 2, rollout_guidance = 7.5 },
  flux = { rollout_steps = 25, last = 1, renoise = 2, rollout_guidance = 4, threshold = 0.55 },
}

--- One more image from the same sample: noise it to the last level and take the last step again.
local function renoised(self, path, generator)
  local level = path.levels[path.n]
  local x = self.schedule:inject(path.x[path.n + 1], self.pipeline:noise(generator, path.x[1]:size(0)), level)
  return {
    row = { branch = "renoised", sees = "sampled", steps = tostring(path.n), from = path:sigma(path.n), to = 0 },
    image = function()
      return self.schedule:step(x, path:velocity(path.n, x), level, path.levels[path.n + 1])
    end,
  }
end

return backprop.define {
  name = "draft", presets = presets,
  fields = { last = "integer|function", renoise = "integer" },
  check = function(self)
    local steps = self.rollout_steps
    self.last = fields.setting(self.last or 1, "draft: last", function(n)
      return n == math.floor(n) and n >= 1 and n <= steps, ("a whole number from 1 to rollout_steps (%d) is needed")
        :format(steps)
    end)
    self.renoise = self.renoise or 0
    if self.renoise < 0 then error("draft: renoise must be at least 0", 0) end
  end,
  plan = function(self, _, levels, step)
    local n, legs = #levels - 1, {}
    for i = n - self.last(step) + 1, n do
      legs[#legs + 1] = quadrature.activate(quadrature.euler(self.schedule, levels, i, i + 1), { i })
    end
    return { legs = legs, sees = "sampled", bridge = 1 }
  end,
  views = function(self, path, generator)
    local more = {}
    for i = 1, self.renoise do more[i] = renoised(self, path, generator) end
    return more
  end,
}
