--- DRTune: an early stop, a few active steps, inputs detached.
local drtune = require "syz.methods.drtune"
local support = require "tests.lua.methods_support"

--- A generator that answers with these numbers, one after the other.
local function answering(...)
  local answers, at = { ... }, 0
  return { integer = function()
    at = at + 1
    return answers[at]
  end }
end

describe("DRTune", function()
  -- stop, first active step, active steps
  for _, case in ipairs { { 5, 1, { 1, 3 } }, { 6, 3, { 3, 6 } }, { 5, 2, { 2, 4 } } } do
    it(("sums the active steps without their inputs' gradient, stopping at %d"):format(case[1]), function()
      local world = support.world(6)
      local method = drtune.new { pipeline = world.pipe, reward = world.reward, active = 2 }
      local stop = case[1]
      local da, db, stats, rows = world.step(method, answering(stop, case[2]))
      local ga, gb, value = world.expected(function(x, levels, _, v)
        local dxa, dxb = 0, 0
        for _, i in ipairs(case[3]) do
          local h = i == stop and -levels[i] or levels[i + 1] - levels[i]
          dxa, dxb = dxa + h * x[i], dxb + h * levels[i]
        end
        return dxa, dxb, x[stop] - levels[stop] * v[stop]
      end)
      assert.near(ga, da, 1e-5)
      assert.near(gb, db, 1e-5)
      assert.near(value, stats.reward, 1e-5)
      assert.equal(table.concat(case[3], " "), rows[1].steps)
    end)
  end

  it("supervises the last step when the stop is turned off", function()
    local world = support.world(6)
    local _, _, _, rows = world.step(drtune.new { pipeline = world.pipe, reward = world.reward, stop = 0, active = 6 })
    assert.equal("1 2 3 4 5 6", rows[1].steps)
    assert.near(world.levels[6], rows[1].to, 1e-12)
  end)

  it("lowers its loss on the tiny pipeline", function()
    local losses = support.train(drtune.new { pipeline = support.pipeline(), reward = support.linear_reward() }, 10)
    assert.is_true(losses[10] < losses[1] - 1e-4)
  end)

  it("refuses a share that is none", function()
    local world = support.world(6)
    local method = drtune.new { pipeline = world.pipe, reward = world.reward, stop = 1.5 }
    assert.error_matches(function() world.step(method) end, "drtune: stop is 1.5: a share of the steps from 0 to 1")
  end)
end)
