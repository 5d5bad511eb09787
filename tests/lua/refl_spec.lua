--- ReFL: the one-step guess at a late step, and gradient through that one prediction.
local refl = require "syz.methods.refl"
local support = require "tests.lua.methods_support"

describe("ReFL", function()
  it("has the gradient of x - sigma v at the stop, with x as given", function()
    local world = support.world(6)
    for stop = 5, 6 do
      local method = refl.new { pipeline = world.pipe, reward = world.reward, last = 2 }
      local generator = { integer = function(_, low, high)
        assert.same({ 5, 6 }, { low, high })
        return stop
      end }
      local da, db, stats, rows = world.step(method, generator)
      local ga, gb, value = world.expected(function(x, levels, _, v)
        return -levels[stop] * x[stop], -levels[stop] * levels[stop], x[stop] - levels[stop] * v[stop]
      end)
      assert.near(ga, da, 1e-5)
      assert.near(gb, db, 1e-5)
      assert.near(value, stats.reward, 1e-5)
      assert.equal(tostring(stop), rows[1].steps)
    end
  end)

  it("minimises the hinge of the original, scaled", function()
    local world = support.world(40)
    local method = refl.new { pipeline = world.pipe, reward = world.reward, preset = "original" }
    local _, _, stats = world.step(method)
    assert.near(1e-3 * math.max(0, 2 - stats.reward), stats.loss, 1e-7)
    assert.equal(10, method.last)
    assert.equal(40, method.rollout_steps)
  end)

  it("lets a recipe's own fields win over the preset", function()
    local world = support.world(12)
    local method = refl.new { pipeline = world.pipe, reward = world.reward, preset = "flux", rollout_steps = 12,
      last = function(steps) return steps / 2 end }
    assert.equal(6, method.last)
    assert.equal(4, method.rollout_guidance)
    assert.equal(0.55, method.threshold)
  end)

  it("lowers its loss on the tiny pipeline", function()
    local losses = support.train(refl.new { pipeline = support.pipeline(), reward = support.linear_reward() }, 10)
    assert.is_true(losses[10] < losses[1] - 1e-4)
  end)

  it("refuses a stop outside the rollout", function()
    local world = support.world(6)
    assert.error_matches(function() refl.new { pipeline = world.pipe, reward = world.reward, last = 7 } end,
      "refl: last is 7: a whole number from 1 to rollout_steps %(6%) is needed")
  end)
end)
