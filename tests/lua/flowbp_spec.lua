--- FlowBP: sparse, bridge and Lagrange surrogates of the sampled image.
local core = require "syz.core"
local flowbp = require "syz.methods.flowbp"
local support = require "tests.lua.methods_support"

local function make(world, fields)
  fields.pipeline, fields.reward = world.pipe, world.reward
  return flowbp.new(fields)
end

describe("FlowBP", function()
  it("sparse: sums the drawn steps of the rollout, inputs detached", function()
    local world = support.world(6)
    for _, rescale in ipairs { 0, 1 } do
      local da, db, stats, rows = world.step(make(world, { variant = "sparse", active = 3, rescale = rescale }))
      local steps = {}
      for step in rows[1].steps:gmatch "%d+" do steps[#steps + 1] = tonumber(step) end
      assert.equal(3, #steps)
      local ga, gb, value = world.expected(function(x, levels, n)
        local dxa, dxb, share = 0, 0, 0
        for _, i in ipairs(steps) do
          local h = levels[i + 1] - levels[i]
          dxa, dxb, share = dxa + h * x[i], dxb + h * levels[i], share - h
        end
        local factor = 1 + rescale * (1 / share - 1)
        return dxa * factor, dxb * factor, x[n + 1]
      end)
      assert.near(ga, da, 1e-5)
      assert.near(gb, db, 1e-5)
      assert.near(value, stats.reward, 1e-5)
    end
  end)

  it("bridge: with all steps active and alpha 1, is the whole chain at the split", function()
    local world = support.world(4)
    local j = 3
    for _, alpha in ipairs { 0, 0.1, 1 } do
      local da = world.step(make(world, { variant = "bridge", active = 4, rescale = 0, alpha = alpha,
        pair = function() return 1, j end }))
      local ga = world.expected(function(x, levels)
        local dxj = 0
        for i = 1, j - 1 do dxj = dxj + (levels[i + 1] - levels[i]) * x[i] end
        local dx = dxj
        for i = j, 4 do
          dx = dx + (levels[i + 1] - levels[i]) * (x[i] + (i == j and world.a * alpha * dxj or 0))
        end
        return dx, 0, 0
      end)
      assert.near(ga, da, 1e-5)
    end
  end)

  it("bridge: always has the split and both sides active", function()
    local world = support.world(8)
    for seed = 1, 12 do
      local _, _, _, rows = world.step(make(world, { variant = "bridge", active = 3,
        pair = function() return 1, 4 end }), core.generator(seed, 1))
      local before, at, count = false, false, 0
      for step in rows[1].steps:gmatch "%d+" do
        before, at, count = before or tonumber(step) < 4, at or step == "4", count + 1
      end
      assert.is_true(before and at)
      assert.equal(3, count)
    end
  end)

  it("lagrange: of order 1 is LeapAlign", function()
    local world = support.world(7)
    local pair = function() return 2, 5 end
    local leap = require("syz.methods.leapalign").new { pipeline = world.pipe, reward = world.reward, alpha = 0.3,
      tau = 0.1, pair = pair }
    local a, b = world.step(leap)
    local fa, fb = world.step(make(world, { variant = "lagrange", order = 1, alpha = 0.3, tau = 0.1, pair = pair }))
    assert.near(a, fa, 1e-6)
    assert.near(b, fb, 1e-6)
  end)

  it("lagrange: weighs its active supports by the integrals of the polynomial", function()
    local world = support.world(7)
    local fields = { variant = "lagrange", order = 3, supports = 2, support_gain = 0.25, rescale = 0, alpha = 0.1,
      tau = 0, pair = function() return 1, 5 end }
    local da = world.step(make(world, fields))
    -- the weights of three nodes by solving for exactness on 1, t, t^2 (Cramer's rule)
    local function weights(nodes, low, high)
      local function determinant(m)
        return m[1][1] * (m[2][2] * m[3][3] - m[2][3] * m[3][2]) - m[1][2] * (m[2][1] * m[3][3] - m[2][3] * m[3][1])
          + m[1][3] * (m[2][1] * m[3][2] - m[2][2] * m[3][1])
      end
      local rows, right = {}, {}
      for p = 0, 2 do
        rows[p + 1] = { nodes[1] ^ p, nodes[2] ^ p, nodes[3] ^ p }
        right[p + 1] = (high ^ (p + 1) - low ^ (p + 1)) / (p + 1)
      end
      local solved, whole = {}, determinant(rows)
      for column = 1, 3 do
        local changed = {}
        for r = 1, 3 do
          changed[r] = { rows[r][1], rows[r][2], rows[r][3] }
          changed[r][column] = right[r]
        end
        solved[column] = determinant(changed) / whole
      end
      return solved
    end
    local ga = world.expected(function(x, levels)
      -- supports of 1 -> 5: steps 1, 3, 4; of 5 -> 8: steps 5, 6, 7
      local first = weights({ levels[1], levels[3], levels[4] }, levels[1], levels[5])
      local second = weights({ levels[5], levels[6], levels[7] }, levels[5], levels[8])
      local dxj = first[1] * x[1] + 0.25 * first[2] * x[3]
      return dxj + second[1] * (x[5] + world.a * 0.1 * dxj) + 0.25 * second[2] * x[6], 0, 0
    end)
    assert.near(ga, da, 1e-4)
  end)

  for _, variant in ipairs { "sparse", "bridge", "lagrange" } do
    it(variant .. ": lowers its loss on the tiny pipeline", function()
      local losses = support.train(flowbp.new { pipeline = support.pipeline(6), reward = support.linear_reward(),
        variant = variant }, 10)
      assert.is_true(losses[10] < losses[1] - 1e-4)
    end)
  end

  it("takes the numbers of its paper by default", function()
    local world = support.world(6)
    local method = make(world, { preset = "flux", variant = "lagrange", rollout_steps = 6 })
    assert.same({ 3, 2, 0.25, 0.2, 4, 0.55 },
      { method.order, method.supports, method.support_gain, method.tau, method.rollout_guidance, method.threshold })
    assert.equal(0.1, method.alpha(1))
  end)

  it("refuses what it does not know", function()
    local world = support.world(6)
    assert.error_matches(function() make(world, { variant = "spares" }) end,
      'flowbp: variant must be "sparse", "bridge" or "lagrange", not "spares"; did you mean "sparse"')
    assert.error_matches(function() world.step(make(world, { active = 0 })) end,
      "flowbp: active is 0: a whole number from 1 is needed")
  end)
end)
