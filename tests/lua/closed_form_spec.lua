--- Direct-Align and SRPO against algebra: a pipeline whose velocity is the true one plus a parameter w, and a reward
--- that is linear in the image, so that every recovered image and every gradient has a closed form.
local core = require "syz.core"
local direct = require "syz.methods.direct_align"
local schedule = require "syz.schedule"
local srpo = require "syz.methods.srpo"

local SHAPE = { 1, 2, 3 }
local X0 = { 0.3, -0.2, 0.9, 0.1, 0.5, -0.7 }
local EPS = { -1.1, 0.4, 0.2, 1.5, -0.6, 0.8 }
local POSITIVE = { 0.5, -0.1, 0.3, 0.2, 0.7, -0.4 }
local NEGATIVE = { -0.3, 0.6, 0.1, -0.5, 0.2, 0.9 }

--- The pipeline, with w as its only parameter.
local function world(grid)
  local x0, eps = core.tensor(X0, SHAPE):keep(), core.tensor(EPS, SHAPE):keep()
  local w = core.zeros(SHAPE):keep()
  w:requires_grad(true)
  local pipe = { schedule = grid, transformer = {}, asked = {}, w = w, x0 = x0, eps = eps }
  function pipe:velocity(_, level)
    self.asked[#self.asked + 1] = level:totable()[1]
    return self.eps - self.x0 + self.w
  end
  function pipe.noise() return eps end
  function pipe.encode(_, images) return images end
  function pipe.decode(_, x) return x end
  return pipe
end

local reward = {}
function reward.pair(_, images, texts)
  local weights = core.tensor(texts[1]:find("good", 1, true) and POSITIVE or NEGATIVE, SHAPE)
  return (images * weights):sum({ 1, 2 })
end
function reward:relative(images, wanted, unwanted, kappa)
  return (1 + kappa) * self:pair(images, wanted) - self:pair(images, unwanted)
end
function reward:mixed(images, wanted, unwanted, k)
  return k * self:pair(images, wanted) + (1 - k) * self:pair(images, unwanted)
end
function reward:score(images) return self:pair(images, { "good" }) end

--- A generator that always draws m.
local function always(m) return { integer = function() return m end } end

local function method(make, pipe, extra)
  local options = {
    pipeline = pipe, reward = reward, window = { 5, 25 }, offline = function() return pipe.x0 end,
    control = { positive = { "good" }, negative = { "bad" } },
  }
  for key, value in pairs(extra or {}) do options[key] = value end
  return make(options)
end

--- One step with the draw m; returns the gradient of w as a list.
local function gradient(made, pipe, m)
  return core.scope(function()
    pipe.w:zero_grad()
    local stats, ledger = made:step({ step = 1, prompts = { "apple" }, cond = {} }, always(m))
    return pipe.w:grad():totable(), stats, ledger
  end)
end

--- How far w moves the recovered image in each direction, from the levels of the draw.
local function gains(made, m)
  local pair, levels = schedule.pair(m, made.k, made.T), made.levels
  local function gain(direction)
    local from, to = levels[pair[direction].from], levels[pair[direction].to]
    return (from - to) / (1 - to)
  end
  return gain "denoise", -gain "inversion", m / (made.T - 1), pair.inversion.kappa / (made.T - 1)
end

local function expect(got, want)
  for i = 1, #X0 do assert.near(want(i), got[i], 2e-6) end
end

describe("Direct-Align", function()
  local grid = schedule.flow { shift = 3 }

  it("recovers x0 exactly from the true velocity, in both directions", function()
    core.scope(function()
      local pipe = world(grid)
      for _, pair in ipairs { { 0.9, 0.85 }, { 0.75, 0.8 }, { 0.3, 0.1 } } do
        local from, to = core.full({ 1, 1, 1 }, pair[1]), core.full({ 1, 1, 1 }, pair[2])
        expect(direct.recover(pipe, pipe.x0, pipe.eps, from, to):totable(), function(i) return X0[i] end)
      end
    end)
  end)

  it("lets an error of the velocity through with the gain of the step", function()
    core.scope(function()
      local pipe = world(grid)
      pipe.w:assign(core.full(SHAPE, 0.5))
      local from, to = core.full({ 1, 1, 1 }, 0.8), core.full({ 1, 1, 1 }, 0.7)
      expect(direct.recover(pipe, pipe.x0, pipe.eps, from, to):totable(),
        function(i) return X0[i] - 0.5 * (0.8 - 0.7) / (1 - 0.7) end)
    end)
  end)

  it("has the gain that the released code has in the middle of its window", function()
    core.scope(function()
      local made = method(direct.new, world(grid))
      assert.near(0.150, (gains(made, 500)), 5e-4)
      assert.near(0.231, (gains(made, 950)), 5e-4)
    end)
  end)

  it("sums the discounted gradients of the levels it aggregates", function()
    core.scope(function()
      local pipe = world(grid)
      local made = method(direct.new, pipe, { aggregate = 2, spacing = 50, lambda = function(t) return 1 + t end })
      local got, stats, ledger = gradient(made, pipe, 500)
      local want = 0
      for _, m in ipairs { 500, 450 } do
        local gain, _, t = gains(made, m)
        want = want + (1 + t) * gain / 2
      end
      expect(got, function(i) return want * POSITIVE[i] end)
      assert.equal(2, #ledger)
      local score = 0
      for i = 1, #X0 do score = score + POSITIVE[i] * X0[i] end
      assert.near(score, stats.reward, 1e-6)
    end)
  end)
end)

describe("SRPO", function()
  local grid = schedule.flow { shift = 3 }
  local kappa = { denoise = { 0.1, 0.25 }, inversion = { 0.3, 0.01 } }

  for _, m in ipairs { 50, 500, 950 } do
    it("descends the same reward in the inversion branch, m = " .. m, function()
      core.scope(function()
        local pipe = world(grid)
        local made = method(srpo.new, pipe, { kappa = kappa })
        local got, _, ledger = gradient(made, pipe, m)
        local gd, gi, td, ti = gains(made, m)
        local kd, ki = 0.1 + 0.15 * td, 0.3 - 0.29 * ti
        expect(got, function(i)
          return gd * ((1 + kd) * POSITIVE[i] - NEGATIVE[i]) + gi * ((1 + ki) * POSITIVE[i] - NEGATIVE[i])
        end)
        assert.near(kd, ledger[1].kappa, 1e-12)
        assert.near(ki, ledger[2].kappa, 1e-12)
      end)
    end)

    it("swaps the texts and halves a hinge under compat, m = " .. m, function()
      core.scope(function()
        local pipe = world(grid)
        -- a threshold that the hinge cannot pass
        local made = method(srpo.new, pipe, { kappa = kappa, compat = "srpo-81e5898", threshold = 100 })
        local got = gradient(made, pipe, m)
        local gd, gi, td, ti = gains(made, m)
        local kd, ki = 0.1 + 0.15 * td, 0.3 - 0.29 * ti
        expect(got, function(i)
          return 0.5 * (gd * ((1 + kd) * POSITIVE[i] - NEGATIVE[i]) + gi * (POSITIVE[i] - (1 + ki) * NEGATIVE[i]))
        end)
      end)
    end)
  end

  it("has no gradient beyond the threshold", function()
    core.scope(function()
      local pipe = world(grid)
      local made = method(srpo.new, pipe, { form = "difference", threshold = -100 })
      expect(gradient(made, pipe, 500), function() return 0 end)
    end)
  end)

  it("mixes the texts in the CFG form", function()
    core.scope(function()
      local pipe = world(grid)
      local made = method(srpo.new, pipe, { form = "cfg", kappa = { denoise = 1.5 } })
      local gd = gains(made, 500)
      expect(gradient(made, pipe, 500), function(i) return gd * (1.5 * POSITIVE[i] - 0.5 * NEGATIVE[i]) end)
    end)
  end)

  it("asks the model at the input level of each branch", function()
    core.scope(function()
      local pipe = world(grid)
      local made = method(srpo.new, pipe)
      gradient(made, pipe, 500)
      assert.near(made.levels[400], pipe.asked[1], 1e-6)
      assert.near(made.levels[600], pipe.asked[2], 1e-6)
    end)
  end)

  it("rounds timesteps as the released code does, and only under compat", function()
    core.scope(function()
      local pipe = world(grid)
      method(srpo.new, pipe)
      assert.is_nil(pipe.quantize_timestep)
      method(srpo.new, pipe, { compat = "srpo-81e5898" })
      local rounded = pipe.quantize_timestep(core.tensor { 0.75, 0.857 }):totable()
      assert.near(0.752, rounded[1], 1e-6)
      assert.near(0.856, rounded[2], 1e-6)
    end)
  end)

  it("refuses what it does not know", function()
    core.scope(function()
      local pipe = world(grid)
      assert.error_matches(function() method(srpo.new, pipe, { form = "invert" }) end, "form must be")
      assert.error_matches(function() method(srpo.new, pipe, { compat = "v2" }) end, "srpo%-81e5898")
      assert.error_matches(function() method(srpo.new, pipe, { kappa = { denoise = "a" } }) end,
        "kappa.denoise must be")
    end)
  end)
end)
