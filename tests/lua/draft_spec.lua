--- DRaFT-K: the gradient of the sampler's last K steps, all of it.
local core = require "syz.core"
local draft = require "syz.methods.draft"
local support = require "tests.lua.methods_support"

--- The reward after the last `last` steps of the sampler, from the state before them.
local function reward_through(pipe, reward, x, last)
  return core.no_grad(core.scope, function()
    local levels, cond = pipe.schedule:levels(), pipe:condition(support.prompts)
    local n = #levels - 1
    for i = n - last + 1, n do
      x = x + (levels[i + 1] - levels[i]) * pipe:velocity(x, levels[i], cond, 1)
    end
    return reward:score(pipe:decode(x), support.prompts):mean():item()
  end)
end

local function state_before(pipe, last, seed)
  return core.no_grad(core.scope, function()
    local levels, cond = pipe.schedule:levels(), pipe:condition(support.prompts)
    local x = pipe:noise(core.generator(seed, 1), #support.prompts)
    for i = 1, #levels - 1 - last do
      x = x + (levels[i + 1] - levels[i]) * pipe:velocity(x, levels[i], cond, 1)
    end
    return x:keep()
  end)
end

--- Move every parameter along a fixed random direction.
local function move(parameters, directions, amount)
  core.no_grad(core.scope, function()
    for i, parameter in ipairs(parameters) do parameter:assign(parameter + amount * directions[i]) end
  end)
end

describe("DRaFT", function()
  for _, last in ipairs { 1, 2, 4 } do
    it("has the finite difference of the reward through the last " .. last .. " steps as gradient", function()
      core.scope(function()
        local pipe, reward = support.pipeline(4), support.linear_reward()
        local method = draft.new { pipeline = pipe, reward = reward, last = last }
        local x = state_before(pipe, last, 5)
        local stats = support.step(method)
        assert.near(reward_through(pipe, reward, x, last), stats.reward, 1e-6)
        local parameters, directions, slope = pipe.transformer:parameters(), {}, 0
        local generator = core.generator(99)
        for i, parameter in ipairs(parameters) do
          directions[i] = generator:randn(parameter:shape()) * 0.05
          local grad = parameter:grad()
          if grad then slope = slope - (grad * directions[i]):sum():item() end
        end
        local h = 0.05
        move(parameters, directions, h)
        local up = reward_through(pipe, reward, x, last)
        move(parameters, directions, -2 * h)
        local down = reward_through(pipe, reward, x, last)
        local difference = (up - down) / (2 * h)
        assert.is_true(math.abs(difference) > 1e-4)
        assert.near(difference, slope, 0.02 * math.abs(difference))
      end)
    end)
  end

  it("carries gradient from step to step: d x_n+1 / d a by the chain rule", function()
    local world = support.world(5)
    for _, last in ipairs { 1, 3, 5 } do
      local da, db, stats = world.step(draft.new { pipeline = world.pipe, reward = world.reward, last = last })
      local ga, gb, value = world.expected(function(x, levels, n)
        local dxa, dxb = 0, 0
        for i = n - last + 1, n do
          local h = levels[i + 1] - levels[i]
          dxa, dxb = dxa + h * (x[i] + world.a * dxa), dxb + h * (levels[i] + world.a * dxb)
        end
        return dxa, dxb, x[n + 1]
      end)
      assert.near(ga, da, 1e-5)
      assert.near(gb, db, 1e-5)
      assert.near(value, stats.reward, 1e-5)
    end
  end)

  it("does so on a variance-preserving schedule too, by finite differences in plain numbers", function()
    local grid = require("syz.schedule").vp { steps = 5 }
    local levels = grid:levels()
    local function reward(a)
      local sum = 0
      for element, x in ipairs { 0.4, -1.2, 0.7 } do
        for i = 1, 5 do x = grid:step(x, a * x - 0.8 * levels[i], levels[i], levels[i + 1]) end
        sum = sum + ({ 0.5, -0.3, 0.9 })[element] * x
      end
      return sum
    end
    local world = support.world(5, 0.3, -0.8, grid)
    local da, _, stats = world.step(draft.new { pipeline = world.pipe, reward = world.reward, last = 5 })
    local want = (reward(0.3 + 1e-5) - reward(0.3 - 1e-5)) / 2e-5
    assert.near(reward(0.3), stats.reward, 1e-4 * math.abs(stats.reward))
    assert.near(want, da, 1e-4 * math.abs(want))
  end)

  it("averages the last step over re-noised samples in the LV form", function()
    local world, seen = support.world(5), {}
    local noises = { { 0.4, -1.2, 0.7 }, { 1, 2, 3 }, { -2, 0.5, 0.1 } }
    local drawn = 0
    function world.pipe.noise()
      drawn = drawn + 1
      return core.tensor(noises[drawn], { 1, 1, 3 })
    end
    local score = world.reward.score
    function world.reward.score(self, x)
      seen[#seen + 1] = x:totable()
      return score(self, x)
    end
    local da, _, stats, rows = world.step(draft.new { pipeline = world.pipe, reward = world.reward, renoise = 2 })
    local last = world.levels[5]
    local want, rewards = 0, 0
    for element = 1, 3 do
      local x = world.numbers(element)
      for view = 1, 3 do
        local input = view == 1 and x[5] or (1 - last) * x[6] + last * noises[view][element]
        want = want + world.c[element] * -last * input / 3
        local image = input - last * (world.a * input + world.b * last)
        assert.near(image, seen[view][element], 1e-5)
        rewards = rewards + world.c[element] * image / 3
      end
    end
    assert.near(want, da, 1e-5)
    assert.near(rewards, stats.reward, 1e-5)
    assert.equal(3, #rows)
    assert.equal("renoised", rows[3].branch)
  end)

  it("lowers its loss on the tiny pipeline", function()
    for _, fields in ipairs { { last = 2 }, { renoise = 2 } } do
      fields.pipeline, fields.reward = support.pipeline(), support.linear_reward()
      local losses = support.train(draft.new(fields), 10)
      assert.is_true(losses[10] < losses[1] - 1e-4)
    end
  end)

  it("refuses more steps than there are", function()
    local world = support.world(3)
    assert.error_matches(function()
      world.step(draft.new { pipeline = world.pipe, reward = world.reward, last = function() return 4 end })
    end, "draft: last%(1%) returned 4: a whole number from 1 to rollout_steps %(3%)")
    assert.error_matches(function()
      draft.new { pipeline = world.pipe, reward = world.reward, renoise = -1 }
    end, "renoise must be at least 0")
  end)
end)
