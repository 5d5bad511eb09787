local schedule = require "syz.schedule"

describe("the flow schedule", function()
  it("reproduces the released window", function()
    local levels = schedule.flow({ shift = 3 }):window({ 5, 25 }, 1000)
    assert.near(0.9643, levels[0], 5e-5)
    assert.near(0.75, levels[999], 1e-12)
    assert.near(0.2143 / 999, levels[0] - levels[1], 1e-6)
  end)

  it("ends at 0 and starts at 1", function()
    local levels = schedule.flow({ shift = 3, steps = 25 }):levels()
    assert.equal(26, #levels)
    assert.equal(1, levels[1])
    assert.equal(0, levels[26])
  end)

  it("recovers x0 exactly when the velocity is exact", function()
    local flow, x0, eps = schedule.flow {}, 0.7, -1.3
    for _, pair in ipairs { { 0.9, 0.8 }, { 0.5, 0.6 }, { 0.3, 0.1 } } do
      local x = flow:inject(x0, eps, pair[1])
      local y = flow:step(x, eps - x0, pair[1], pair[2])
      assert.near(x0, flow:recover(y, eps, pair[2]), 1e-12)
    end
  end)

  it("steps along v as the Euler method does", function()
    local flow = schedule.flow {}
    local x0, eps = flow:split(0.4, 0.25, 0.6)
    assert.near(flow:inject(x0, eps, 0.5), flow:step(0.4, 0.25, 0.6, 0.5), 1e-12)
  end)

  it("refuses windows outside the grid", function()
    assert.error_matches(function() schedule.flow({}):window({ 5, 60 }, 1000) end, "window {5, 60} does not fit")
    assert.error_matches(function() schedule.flow({}):window({ sigma = { 0.3, 0.9 } }, 10) end, "high > low")
  end)
end)

describe("the vp schedule", function()
  it("keeps alpha^2 + sigma^2 = 1 and recovers x0", function()
    local vp, x0, eps = schedule.vp {}, 0.7, -1.3
    local alpha, sigma = vp:at(0.5)
    assert.near(1, alpha * alpha + sigma * sigma, 1e-12)
    local y = vp:step(vp:inject(x0, eps, 0.6), eps, 0.6, 0.5)
    assert.near(x0, vp:recover(y, eps, 0.5), 1e-12)
  end)
end)

describe("the released index arithmetic", function()
  local vectors = {
    -- m, jump, denoise from -> to, inversion from -> to
    { 5, 5, 990, 995, 999, 994 }, { 50, 50, 900, 950, 999, 949 }, { 500, 100, 400, 500, 600, 500 },
    { 950, 50, 0, 50, 100, 50 }, { 995, 5, 0, 5, 10, 5 },
  }
  it("matches the test vectors", function()
    local k = schedule.jump(0.9, 1000)
    assert.equal(100, k)
    for _, v in ipairs(vectors) do
      local pair = schedule.pair(v[1], k, 1000)
      assert.same({ v[2], v[3], v[4], v[5], v[6] },
        { pair.jump, pair.denoise.from, pair.denoise.to, pair.inversion.from, pair.inversion.to })
    end
  end)

  it("truncates as Python's int() does", function()
    assert.equal(26, schedule.jump(0.975, 1000))
  end)

  it("has the documented gains", function()
    local levels = schedule.flow({ shift = 3 }):window({ 5, 25 }, 1000)
    local function gain(m)
      local pair = schedule.pair(m, 100, 1000).denoise
      return (levels[pair.from] - levels[pair.to]) / (1 - levels[pair.to])
    end
    assert.near(0.150, gain(500), 5e-4)
    assert.near(0.231, gain(950), 5e-4)
  end)
end)
