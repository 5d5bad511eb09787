--- Stochastic sampling steps against numbers computed by hand, and against a velocity field whose marginals are known.
local core = require "syz.core"
local sde = require "syz.sde"

local function near(want, got, tolerance) assert.near(want, got, tolerance or 1e-6) end

--- Mean and deviation of a step at x = 1, v = 0.5.
local function at(sampler, eta, from, to, second)
  local step = sde.stochastic(sampler, eta, from, to, second)
  return step.a + 0.5 * step.b, step.std, step.scale
end

describe("a stochastic step", function()
  it("of DanceGRPO has the mean and deviation computed by hand", function()
    -- dt = -.2, x0 = 1 - .4 = .6, score = -(1 - .2 * .6) / .64 = -1.375; .9 - .045 * 1.375 * .2; .3 sqrt .2
    local mean, std = at("dance", 0.3, 0.8, 0.6)
    near(0.887625, mean)
    near(0.1341641, std)
  end)

  it("of Flow-GRPO has the mean and deviation computed by hand", function()
    -- s^2 = .49 * .8 / .2 = 1.96; 1 - 1.96 * .2 / 1.6 = .755; .5 * -.2 * (1 + 1.96 * .2 / 1.6) = -.1245; 1.4 sqrt .2
    local mean, std, scale = at("flow", 0.7, 0.8, 0.6)
    near(0.6305, mean)
    near(0.6260990, std)
    near(1.4, scale)
  end)

  it("of Flow-GRPO takes the next level in its denominator at level 1", function()
    -- s^2 = .49 / (1 - .9) = 4.9; 1 - 4.9 * .1 / 2 = .755; .5 * -.1 = -.05; sqrt(4.9 * .1)
    local mean, std = at("flow", 0.7, 1, 0.9, 0.9)
    near(0.705, mean)
    near(0.7, std)
  end)

  it("that preserves coefficients has the mean and deviation computed by hand", function()
    -- x0 = .6, x1 = 1.1; .4 * .6 + .6 cos(72 deg) * 1.1; .6 sin(72 deg)
    local mean, std = at("cps", 0.8, 0.8, 0.6)
    near(0.4439512, mean)
    near(0.5706339, std)
  end)

  it("has as much noise as its level says, with coefficient preservation", function()
    for _, eta in ipairs { 0.1, 0.5, 1 } do
      local step = sde.stochastic("cps", eta, 0.7, 0.45)
      -- v = x1 - x0 and x = .3 x0 + .7 x1: what the mean holds of each
      near(1 - 0.45, step.a * 0.3 - step.b)
      near(0.45 ^ 2, (step.a * 0.7 + step.b) ^ 2 + step.std ^ 2)
    end
  end)

  it("becomes Euler's as its noise vanishes", function()
    for _, sampler in ipairs { "dance", "flow", "cps" } do
      local step, plain = sde.stochastic(sampler, 1e-6, 0.7, 0.5), sde.deterministic(0.7, 0.5)
      near(plain.a, step.a, 1e-9)
      near(plain.b, step.b, 1e-9)
    end
  end)
end)

describe("log_prob", function()
  it("is the Gaussian's, averaged over the elements", function()
    core.scope(function()
      local g = core.generator(3)
      local x, v, noise = g:randn({ 2, 3, 4 }), g:randn({ 2, 3, 4 }), g:randn({ 2, 3, 4 })
      local steps = { sde.stochastic("dance", 0.3, 0.9, 0.7), sde.stochastic("flow", 0.7, 0.6, 0.5) }
      local got = sde.log_prob(noise, sde.mean(x, v, steps), steps, "gaussian"):totable()
      local xs, vs, sample = x:reshape({ 24 }):totable(), v:reshape({ 24 }):totable(), noise:reshape({ 24 }):totable()
      for b, level in ipairs { { 0.3, 0.9, 0.7 }, { 0.7 * math.sqrt(0.6 / 0.4), 0.6, 0.5 } } do
        local s, from, dt, sum = level[1], level[2], level[3] - level[2], 0
        for i = 12 * b - 11, 12 * b do
          local score = -(xs[i] - (1 - from) * (xs[i] - from * vs[i])) / from ^ 2
          local mean, variance = xs[i] + vs[i] * dt - s * s / 2 * score * dt, -s * s * dt
          sum = sum + math.log(math.exp(-(sample[i] - mean) ^ 2 / (2 * variance)) / math.sqrt(2 * math.pi * variance))
        end
        near(sum / 12, got[b], 1e-4 * math.abs(sum / 12))
      end
    end)
  end)

  it("is the square alone in the form of the public code of CPS", function()
    core.scope(function()
      local steps = { sde.stochastic("cps", 0.5, 0.5, 0.4) }
      local got = sde.log_prob(core.full({ 1, 2, 2 }, 3), core.full({ 1, 2, 2 }, 1), steps, "squared"):totable()
      near(-4, got[1])
    end)
  end)
end)

describe("a rollout", function()
  local MEAN, DEVIATION, COUNT = 0.5, 0.6, 20000

  --- The exact velocity E[eps - x0 | x] where x0 is normal, in each element.
  local function normal_world(deviation)
    return { velocity = function(_, x, level)
      local from = level:totable()[1]
      local variance = (1 - from) ^ 2 * deviation ^ 2 + from ^ 2
      local centred = x - (1 - from) * MEAN
      return centred * ((from - (1 - from) * deviation ^ 2) / variance) - MEAN
    end }
  end

  --- Mean and deviation of state `at` of many rollouts.
  local function sample(sampler, eta, deviation, count, state)
    return core.scope(function()
      local levels, noisy = {}, {}
      for i = 0, count do levels[i + 1] = 1 - i / count end
      for i = 1, count - 1 do noisy[i] = true end
      local g = core.generator(11)
      local path = sde.rollout(normal_world(deviation), { noise = g:randn({ COUNT, 1, 1 }), generator = g,
        steps = sde.steps(levels, noisy, sampler, eta), parts = { { first = 1, last = COUNT, cond = {} } } })
      local x = path.x[state or #path.x]
      local mean = x:mean():item()
      return mean, math.sqrt((x - mean):square():mean():item())
    end)
  end

  -- The standard error of the deviation is .003; without the drift along the score it is .91 and 1.30.
  for sampler, eta in pairs { dance = 0.7, flow = 0.7 } do
    it("of " .. sampler .. " noise keeps the distribution that the velocity has", function()
      local mean, deviation = sample(sampler, eta, DEVIATION, 200)
      near(MEAN, mean, 0.02)
      near(DEVIATION, deviation, 0.015)
    end)
  end

  it("of coefficient preservation holds as much noise at each level as a clean image with that noise", function()
    for _, state in ipairs { 4, 6, 9 } do
      local level = 1 - (state - 1) / 10
      local mean, deviation = sample("cps", 0.8, 0, 10, state)
      near((1 - level) * MEAN, mean, 0.02)
      near(level, deviation, 0.02 * level)
    end
  end)

  it("does not depend on how the batch is divided", function()
    core.scope(function()
      local steps = sde.steps({ 1, 0.7, 0.4, 0 }, { true, true, false }, "dance", 0.3)
      local function run(parts)
        local g = core.generator(4)
        return sde.rollout(normal_world(0.5), { noise = g:randn({ 5, 2, 3 }), generator = g, steps = steps,
          parts = parts })
      end
      local whole = run { { first = 1, last = 5 } }
      local divided = run { { first = 1, last = 2 }, { first = 3, last = 5 } }
      for i = 1, 4 do assert.equal(whole.x[i]:hash(), divided.x[i]:hash()) end
      assert.same(whole.log_prob, divided.log_prob)
      assert.is_nil(whole.log_prob[3])
    end)
  end)
end)
