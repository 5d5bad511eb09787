--- The core of the direct-gradient methods: carriers, rules of integration, draws, settings.
local core = require "syz.core"
local backprop = require "syz.methods.backprop"
local draws = require "syz.methods.draws"
local quadrature = require "syz.methods.quadrature"
local schedule = require "syz.schedule"
local support = require "tests.lua.methods_support"

local function total(leg)
  local sum = 0
  for _, support_ in ipairs(leg.supports) do sum = sum + support_.weight end
  return sum
end

describe("a straight-through value", function()
  it("is the wanted image bit for bit, with the surrogate's gradient", function()
    core.scope(function()
      local g = core.generator(1)
      local image, w = g:randn({ 2, 4, 8 }) * 1000, g:randn({ 2, 4, 8 }):requires_grad(true)
      local surrogate = w * 3 + 0.1
      local seen = backprop.straight_through(image, surrogate)
      assert.equal(image:hash(), seen:hash())
      seen:sum():backward()
      for _, value in ipairs(w:grad():totable()) do assert.equal(3, value) end
    end)
  end)

  it("keeps its value when its gradient is scaled", function()
    core.scope(function()
      local w = core.generator(2):randn({ 5 }):requires_grad(true)
      local x = w * 0.7
      local scaled = backprop.scale_gradient(x, 0.3)
      assert.equal(x:hash(), scaled:hash())
      scaled:sum():backward()
      assert.near(0.21, w:grad():totable()[1], 1e-7)
      assert.is_false(backprop.scale_gradient(x, 0):requires_grad())
    end)
  end)
end)

describe("the rules of integration", function()
  local flow, vp = schedule.flow { steps = 8, shift = 3 }, schedule.vp { steps = 8 }

  it("cover the whole leg, whichever rule", function()
    local levels = flow:levels()
    for _, ends in ipairs { { 1, 9 }, { 3, 6 }, { 8, 9 } } do
      local length = levels[ends[2]] - levels[ends[1]]
      assert.near(length, total(quadrature.euler(flow, levels, ends[1], ends[2])), 1e-12)
      assert.near(length, total(quadrature.leap(flow, levels, ends[1], ends[2])), 1e-12)
      assert.near(length, total(quadrature.lagrange(flow, levels, ends[1], ends[2], 3)), 1e-12)
    end
  end)

  it("repeat the sampler's own sum with Euler's weights, in flow and in VP", function()
    for _, grid in ipairs { flow, vp } do
      local levels = grid:levels()
      local function predict(x, t) return 0.3 * x - 0.8 * t end
      local x, v = { 0.7 }, {}
      for i = 1, 8 do
        v[i] = predict(x[i], levels[i])
        x[i + 1] = grid:step(x[i], v[i], levels[i], levels[i + 1])
      end
      for _, ends in ipairs { { 1, 9 }, { 2, 5 } } do
        local leg = quadrature.euler(grid, levels, ends[1], ends[2])
        local sum = leg.a * x[ends[1]]
        for _, one in ipairs(leg.supports) do sum = sum + one.weight * v[one.step] end
        assert.near(x[ends[2]], sum, 1e-9)
      end
    end
  end)

  it("integrate a quadratic exactly with three Lagrange supports, and not with two", function()
    local levels = flow:levels()
    local function f(t) return 2 - 3 * t + 5 * t * t end
    local function F(t) return 2 * t - 1.5 * t * t + 5 / 3 * t ^ 3 end
    for order, exact in pairs { [2] = false, [3] = true, [4] = true } do
      local leg, sum = quadrature.lagrange(flow, levels, 2, 8, order), 0
      for _, one in ipairs(leg.supports) do sum = sum + one.weight * f(levels[one.step]) end
      assert.equal(exact, math.abs(sum - (F(levels[8]) - F(levels[2]))) < 1e-9)
    end
  end)

  it("make a leap of order 1", function()
    local levels = flow:levels()
    assert.same(quadrature.leap(flow, levels, 2, 7), quadrature.lagrange(flow, levels, 2, 7, 1))
  end)

  it("spread supports over the leg, its start among them", function()
    assert.same({ 4, 7, 9 }, quadrature.spread(4, 10, 3))
    assert.same({ 4, 5 }, quadrature.spread(4, 6, 3))
    assert.same({ 4 }, quadrature.spread(4, 10, 1))
  end)

  it("make up for inactive steps by the share that is wanted", function()
    local levels = flow:levels()
    local leg = quadrature.activate(quadrature.euler(flow, levels, 1, 9), { 2, 8 })
    quadrature.rescale({ leg }, 1)
    local sum = 0
    for _, one in ipairs(leg.supports) do sum = sum + (one.active and one.weight * one.gain or 0) end
    assert.near(-1, sum, 1e-12)
  end)
end)

describe("the draws", function()
  local g = core.generator(11, 1)

  it("prefer late steps by their weights", function()
    local count, n = {}, 6000
    for _ = 1, n do
      local step = draws.biased(g, 1, 3, 1, 2)[1]
      count[step] = (count[step] or 0) + 1
    end
    for step = 1, 3 do assert.near(step * step / 14, count[step] / n, 0.03) end
  end)

  it("never repeat a step", function()
    for _ = 1, 50 do
      local steps = draws.biased(g, 2, 6, 4, 2)
      assert.equal(4, #steps)
      for i = 2, 4 do assert.is_true(steps[i] > steps[i - 1] and steps[i] <= 6 and steps[1] >= 2) end
    end
  end)

  it("space steps equally", function()
    for _ = 1, 30 do
      local steps = draws.spaced(g, 25, 3)
      assert.equal(steps[2] - steps[1], steps[3] - steps[2])
      assert.is_true(steps[1] >= 1 and steps[3] <= 25)
    end
    assert.same({ 1, 2 }, draws.spaced(g, 2, 5))
  end)

  it("order pairs, uniform and Dirichlet, and the latter near its mean", function()
    local before, between, n = 0, 0, 2000
    for _ = 1, n do
      local k, j = draws.pair(g, 5)
      assert.is_true(1 <= k and k < j and j <= 5)
      k, j = draws.dirichlet(g, 100, { 2, 6, 2.5 })
      assert.is_true(1 <= k and k < j and j <= 100)
      before, between = before + (k - 1), between + (j - k)
    end
    assert.near(100 * 2 / 10.5, before / n, 1.5)
    assert.near(100 * 6 / 10.5, between / n, 1.5)
  end)
end)

describe("settings", function()
  local function refused(make, fields, pattern)
    local options = { pipeline = support.pipeline(), reward = support.linear_reward() }
    for key, value in pairs(fields) do options[key] = value end
    assert.error_matches(function() require("syz.methods." .. make).new(options) end, pattern)
  end

  it("offer the nearest name of a mistyped field", function()
    refused("refl", { treshold = 1 }, 'refl has no field "treshold"; did you mean "threshold"%?')
    refused("direct_align", { agregate = 2 }, 'did you mean "aggregate"%?')
    refused("srpo", { kapa = {} }, 'did you mean "kappa"%?')
    refused("srpo", { kappa = { denoize = 1 } }, 'srpo: kappa has no field "denoize"; did you mean "denoise"%?')
    refused("flowbp", { supprts = 2 }, 'did you mean "supports"%?')
  end)

  it("name the kinds a field may be", function()
    refused("refl", { threshold = "high" }, 'refl: threshold must be a number, not "high"')
    refused("draft", { last = true }, "draft: last must be an integer or a function, not a boolean")
    refused("srpo", { rollout_steps = 2.5 }, "srpo: rollout_steps must be an integer or a function, not 2.5")
    refused("drtune", { noise = "pink" }, 'drtune: noise must be "per_sample" or "shared", not "pink"')
    refused("leapalign", { preset = "orignal" }, 'preset must be "flux" or "original", not "orignal"; did you mean')
    assert.error_matches(function() require("syz.methods.refl").new "x" end, "refl takes a table of fields")
  end)

  it("name a function's bad result when it comes", function()
    local pipe = support.pipeline()
    local method = require("syz.methods.refl").new { pipeline = pipe, reward = support.linear_reward(),
      rollout_guidance = function() return "much" end, last = 1 }
    assert.error_matches(function() support.step(method) end,
      'rollout_guidance%(1, 1%) returned "much": a number is needed')
  end)

  it("take guidance as a function of the noise, in rollout and training", function()
    local asked = {}
    local world = support.world(4)
    local velocity = world.pipe.velocity
    function world.pipe.velocity(self, x, level, cond, guidance)
      asked[#asked + 1] = guidance
      return velocity(self, x, level, cond, guidance)
    end
    local method = require("syz.methods.draft").new { pipeline = world.pipe, reward = world.reward,
      rollout_guidance = function(sigma) return 10 * sigma end,
      train_guidance = function(sigma, step) return -sigma - step end }
    world.step(method)
    for i = 1, 4 do assert.near(10 * world.levels[i], asked[i], 1e-9) end
    assert.near(-world.levels[4] - 1, asked[5], 1e-9)
  end)
end)

describe("the ledger's gradient norm", function()
  it("is that of the branch alone and leaves the gradients as they are", function()
    local norms, rows_of = {}, {}
    for _, detailed in ipairs { false, true } do
      local pipe = support.pipeline(3)
      local method = require("syz.methods.srpo").new { pipeline = pipe, reward = support.linear_reward() }
      method.ledger = detailed
      local _, rows = support.step(method)
      norms[detailed], rows_of[detailed] = support.gradient_norm(pipe), rows
    end
    assert.equal(norms[false], norms[true])
    assert.is_nil(rows_of[false][1].grad_norm)
    -- the first branch alone is the difference form; the second is what it adds to that
    local gradients = {}
    for _, form in ipairs { "difference", "inversion" } do
      local pipe = support.pipeline(3)
      support.step(require("syz.methods.srpo").new { pipeline = pipe, reward = support.linear_reward(), form = form })
      gradients[form] = {}
      for _, parameter in ipairs(pipe.transformer:parameters()) do
        local grad = parameter:grad()
        for _, value in ipairs(grad and grad:totable() or {}) do table.insert(gradients[form], value) end
      end
    end
    local first, second = 0, 0
    for i, value in ipairs(gradients.difference) do
      first, second = first + value ^ 2, second + (gradients.inversion[i] - value) ^ 2
    end
    assert.near(math.sqrt(first), rows_of[true][1].grad_norm, 1e-5 * math.sqrt(first))
    assert.near(math.sqrt(second), rows_of[true][2].grad_norm, 1e-4 * math.sqrt(second))
    assert.equal(2, #rows_of[true][1].rewards)
    assert.equal(2, #rows_of[true][1].samples)
  end)
end)
