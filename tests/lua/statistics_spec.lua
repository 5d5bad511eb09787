local core = require "syz.core"
local statistics = require "syz.statistics"

local function near(expected, actual, tolerance)
  assert.is_true(math.abs(expected - actual) <= tolerance, ("%.6f, not %.6f"):format(actual, expected))
end

describe("Wilson's interval", function()
  it("gives the published numbers", function()
    -- Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: score without continuity correction
    for _, row in ipairs { { 81, 263, 0.2553, 0.3662 }, { 15, 148, 0.0624, 0.1605 }, { 0, 20, 0, 0.1611 },
                           { 1, 29, 0.0061, 0.1718 } } do
      local low, high = statistics.wilson(row[1], row[2])
      near(row[3], low, 5e-5)
      near(row[4], high, 5e-5)
    end
  end)

  it("is the set of rates that a score test does not reject", function()
    for _, case in ipairs { { 3, 10 }, { 9, 10 }, { 50, 200 } } do
      for _, p in ipairs { statistics.wilson(case[1], case[2]) } do
        near(1.959964, math.abs(case[1] / case[2] - p) / math.sqrt(p * (1 - p) / case[2]), 1e-5)
      end
    end
  end)

  it("is nan of nothing", function()
    local low = statistics.wilson(0, 0)
    assert.is_true(low ~= low)
  end)
end)

describe("a quantile", function()
  it("is linear between neighbours", function()
    assert.equal(2.5, statistics.quantile({ 1, 2, 3, 4 }, 0.5))
    near(1.75, statistics.quantile({ 1, 2, 3, 4 }, 0.25), 1e-12)
    assert.equal(4, statistics.quantile({ 1, 2, 3, 4 }, 1))
    assert.equal(7, statistics.quantile({ 7 }, 0.3))
  end)
end)

describe("a bootstrap", function()
  -- rates of `n` units that carry `each` equal answers, the first `hits` units with a yes
  local function interval(n, hits, each, seed, resamples)
    return statistics.bootstrap(n, resamples or 4000, core.generator(seed), function(counts)
      local yes, all = 0, 0
      for i, count in ipairs(counts) do
        all = all + count * each
        if i <= hits then yes = yes + count * each end
      end
      return { yes / all }
    end)[1]
  end

  it("agrees with the normal approximation where that holds", function()
    local found, half = interval(400, 120, 1, 1), 1.96 * math.sqrt(0.3 * 0.7 / 400)
    near(0.3 - half, found.low, 0.006)
    near(0.3 + half, found.high, 0.006)
  end)

  it("does not take repeated answers for more units", function()
    assert.same(interval(40, 12, 1, 3), interval(40, 12, 25, 3))
  end)

  it("depends on the seed and on nothing else", function()
    assert.same(interval(30, 9, 1, 5), interval(30, 9, 1, 5))
    assert.are_not.same(interval(400, 120, 1, 5, 50), interval(400, 120, 1, 6, 50))
  end)

  it("leaves out resamples in which a number is not defined", function()
    local found = statistics.bootstrap(2, 200, core.generator(1), function(counts)
      return { counts[1] > 0 and 1 or 0 / 0, counts[1] }
    end)
    assert.same({ low = 1, high = 1 }, found[1])
    assert.same({ low = 0, high = 2 }, found[2])
  end)
end)

describe("Krippendorff's alpha", function()
  it("gives the published number of its author's example", function()
    -- Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section E: four observers, twelve units,
    -- missing data, five grades; ordinal alpha 0.815
    local observers = { { 1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0 }, { 1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3 },
                        { 0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0 }, { 1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0 } }
    local units = {}
    for u = 1, 12 do
      units[u] = {}
      for _, observer in ipairs(observers) do
        if observer[u] > 0 then table.insert(units[u], observer[u]) end
      end
    end
    near(0.815, statistics.alpha(units, 5), 5e-4)
  end)

  it("gives what a hand gives", function()
    -- Two raters, units (1,1) (2,2) (1,2): o_12 = o_21 = 1, n_1 = n_2 = 3, n = 6, one distance δ:
    -- alpha = 1 - 5 · 1 δ / (9 δ) = 4/9. Unused grades between them change nothing.
    near(4 / 9, statistics.alpha({ { 1, 1 }, { 2, 2 }, { 1, 2 } }, 2), 1e-12)
    near(4 / 9, statistics.alpha({ { 1, 1 }, { 4, 4 }, { 1, 4 } }, 4), 1e-12)
    assert.equal(1, statistics.alpha({ { 1, 1, 1 }, { 4, 4 } }, 4))
    -- (1,2) (2,1): always different: n = 4, alpha = 1 - 3 · 2 δ / (4 δ)
    near(-0.5, statistics.alpha({ { 1, 2 }, { 2, 1 } }, 4), 1e-12)
  end)

  it("calls a distant grade worse than a neighbour", function()
    local base = { { 1, 1 }, { 2, 2 }, { 3, 3 }, { 4, 4 } }
    local function with(pair)
      local units = { pair }
      for i, unit in ipairs(base) do units[i + 1] = unit end
      return statistics.alpha(units, 4)
    end
    assert.is_true(with { 1, 4 } < with { 1, 3 } and with { 1, 3 } < with { 1, 2 } and with { 1, 2 } < 1)
  end)

  it("says when it is not defined", function()
    assert.same({ nil, "no image has two ratings" }, { statistics.alpha({ { 1 }, { 2 } }, 4) })
    assert.same({ nil, "everybody gave one and the same grade" }, { statistics.alpha({ { 2, 2 }, { 2, 2 } }, 4) })
  end)
end)
