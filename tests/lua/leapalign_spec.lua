--- LeapAlign: two leaps with the sampled image as value.
local leapalign = require "syz.methods.leapalign"
local support = require "tests.lua.methods_support"

local function fixed(k, j) return function() return k, j end end

--- d x0 / d a and d x0 / d b of two leaps k -> j -> image, alpha of the gradient passing into the model at j.
local function leaps(world, k, j, alpha)
  return function(x, levels, n)
    local first, second = levels[j] - levels[k], levels[n + 1] - levels[j]
    local dja, djb = first * x[k], first * levels[k]
    return dja + second * (x[j] + world.a * alpha * dja), djb + second * (levels[j] + world.a * alpha * djb), x[n + 1]
  end
end

describe("LeapAlign", function()
  for _, alpha in ipairs { 0, 0.3, 1 } do
    it("passes the share " .. alpha .. " of the gradient into the second leap's model input", function()
      local world = support.world(7)
      local method = leapalign.new { pipeline = world.pipe, reward = world.reward, alpha = alpha, tau = 0,
        pair = fixed(2, 5) }
      local da, db, stats = world.step(method)
      local ga, gb, value = world.expected(leaps(world, 2, 5, alpha))
      assert.near(ga, da, 1e-5)
      assert.near(gb, db, 1e-5)
      assert.near(value, stats.reward, 1e-5)
    end)
  end

  it("weighs a sample by how close its leaps land", function()
    local world = support.world(7)
    local method = leapalign.new { pipeline = world.pipe, reward = world.reward, tau = 0.1, pair = fixed(2, 5) }
    local da = world.step(method)
    local near, far = 0, 0
    for element = 1, 3 do
      local x, v = world.numbers(element)
      near = near + math.abs(x[2] + (world.levels[5] - world.levels[2]) * v[2] - x[5]) / 3
      far = far + math.abs(x[5] - world.levels[5] * v[5] - x[8]) / 3
    end
    local weight = 1 / (math.max(near, 0.1) + math.max(far, 0.1))
    assert.near((world.expected(leaps(world, 2, 5, 0.3))) * weight, da, 1e-4)
  end)

  it("shows the reward the sampled image bit for bit", function()
    local core = require "syz.core"
    local pipe = support.pipeline()
    local seen
    local decode = pipe.decode
    function pipe.decode(self, x)
      seen = x:hash()
      return decode(self, x)
    end
    support.step(leapalign.new { pipeline = pipe, reward = support.linear_reward() })
    local sampled = core.no_grad(core.scope, function()
      return require("syz.sampler").euler(pipe, { noise = pipe:noise(core.generator(5, 1), 2),
        cond = pipe:condition(support.prompts), schedule = pipe.schedule, guidance = 1 }):hash()
    end)
    assert.equal(sampled, seen)
  end)

  it("lowers its loss on the tiny pipeline", function()
    local losses = support.train(leapalign.new { pipeline = support.pipeline(), reward = support.linear_reward() }, 10)
    assert.is_true(losses[10] < losses[1] - 1e-4)
  end)

  it("refuses pairs that are none", function()
    local world = support.world(4)
    local function make(pair)
      return leapalign.new { pipeline = world.pipe, reward = world.reward, pair = pair }
    end
    assert.error_matches(function() make "random" end, 'leapalign: pair must be "uniform"')
    assert.error_matches(function() world.step(make(fixed(3, 3))) end, "pair%(generator, 4%) returned 3, 3")
    assert.error_matches(function()
      leapalign.new { pipeline = world.pipe, reward = world.reward, rollout_steps = 2 }
    end, "leapalign needs rollout_steps of at least 3")
  end)
end)
