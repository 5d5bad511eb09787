local core = require "syz.core"
local direct = require "syz.methods.direct_align"
local optim = require "syz.optim"
local schedule = require "syz.schedule"
local srpo = require "syz.methods.srpo"
local support = dofile "tests/lua/methods_support.lua"

local linear_reward, gradient_norm = support.linear_reward, support.gradient_norm

local function load_pipeline() return support.pipeline(3) end

local function settings(pipe, extra)
  local options = { pipeline = pipe, reward = linear_reward(), schedule = schedule.flow { steps = 3, shift = 3 },
    control = { positive = { "Real" }, negative = { "Flat" } }, rollout_steps = 3 }
  for key, value in pairs(extra or {}) do options[key] = value end
  return options
end

local function step(method, number) return support.step(method, number, 5) end

describe("Direct-Align", function()
  it("recovers x0 exactly when the velocity is exact, in both directions", function()
    local pipe = load_pipeline()
    core.scope(function()
      local g = core.generator(1)
      local x0, eps = pipe:noise(g, 2), pipe:noise(g, 2)
      local exact = { schedule = schedule.flow {}, velocity = function() return eps - x0 end }
      for _, pair in ipairs { { 0.9, 0.8 }, { 0.75, 0.77 } } do
        local xhat = direct.recover(exact, x0, eps, pair[1], pair[2])
        assert.near(0, (xhat - x0):abs():mean():item(), 1e-5)
      end
    end)
  end)

  it("replaces only the share dsigma / (1 - r) of the noise", function()
    core.scope(function()
      local g = core.generator(2)
      local x0, eps, error_ = g:randn({ 1, 4, 8 }), g:randn({ 1, 4, 8 }), g:randn({ 1, 4, 8 })
      local wrong = { schedule = schedule.flow {}, velocity = function() return eps - x0 + error_ end }
      local xhat = direct.recover(wrong, x0, eps, 0.6, 0.5)
      local want = x0 - error_ * (0.1 / 0.5)
      assert.near(0, (xhat - want):abs():mean():item(), 1e-5)
    end)
  end)

  it("puts a gradient on the transformer and aggregates over levels", function()
    local pipe = load_pipeline()
    local stats, ledger = step(direct.new(settings(pipe, { aggregate = 3, lambda = function(t) return t end })))
    assert.equal(3, #ledger)
    assert.is_true(stats.loss == stats.loss)
    assert.is_true(gradient_norm(pipe) > 0)
  end)
end)

describe("SRPO", function()
  for _, form in ipairs { "inversion", "difference", "cfg" } do
    it("trains in the " .. form .. " form", function()
      local pipe = load_pipeline()
      local _, ledger = step(srpo.new(settings(pipe, { form = form })))
      assert.equal(form == "inversion" and 2 or 1, #ledger)
      assert.is_true(gradient_norm(pipe) > 0)
    end)
  end

  it("cancels a constant bias of the reward when kappa is 0", function()
    local norms = {}
    for i, bias in ipairs { 0, 100 } do
      local pipe = load_pipeline()
      local stats = step(srpo.new(settings(pipe, {
        form = "difference", reward = linear_reward(bias), kappa = { denoise = 0 } })))
      norms[i] = { stats.loss, gradient_norm(pipe) }
    end
    assert.near(norms[1][1], norms[2][1], 1e-4)
    assert.near(norms[1][2], norms[2][2], 1e-4 * norms[1][2] + 1e-9)
  end)

  it("reproduces the released timesteps and threshold under compat", function()
    local pipe = load_pipeline()
    local method = srpo.new(settings(pipe, { compat = "srpo-81e5898" }))
    local level = pipe.quantize_timestep(core.tensor({ 0.75, 0.857 }))
    local values = level:totable()
    assert.near(752, values[1] * 1000, 0.01)
    assert.near(856, values[2] * 1000, 0.01)
    assert.equal(0.7, method.threshold)
    assert.equal("shared", method.noise)
    assert.near(3504, pipe.quantize_guidance(core.full({ 2 }, 3.5)):totable()[2] * 1000, 0.01)
    step(method)
    srpo.new(settings(pipe)) -- a method without compat takes the roundings back
    assert.is_nil(pipe.quantize_timestep)
    assert.is_nil(pipe.quantize_guidance)
  end)

  it("gives both branches the weight of the level at which they recover", function()
    local pipe = load_pipeline()
    local method = srpo.new(settings(pipe, { lambda = function(t) return t ^ 2 end }))
    method.ledger = true
    local _, ledger = step(method)
    for i, sample in ipairs(ledger[1].samples) do
      assert.near((sample.m / 999) ^ 2, sample.lambda, 1e-12)
      assert.equal(sample.lambda, ledger[2].samples[i].lambda)
      assert.is_true(sample.kappa ~= nil and ledger[2].samples[i].t < sample.t)
    end
  end)

  it("takes window, rollout steps and noise as functions of the step, and checks what they return", function()
    local pipe = load_pipeline()
    local method = srpo.new(settings(pipe, {
      window = function(n) return n < 3 and "late" or { sigma = { 0.9, 0.8 } } end,
      rollout_steps = function(n) return n + 1 end,
      noise = function(n) return n == 2 and "shared" or "per_sample" end, dsigma = 0.05,
    }))
    local _, first = step(method, 2)
    assert.equal("shared", method.noise)
    assert.equal(3, method.rollout_steps)
    assert.is_true(first[1].from <= 0.34)
    local _, second = step(method, 3)
    assert.equal("per_sample", method.noise)
    assert.is_true(second[1].from >= 0.8)
    assert.near(500, method.k, 1) -- .05 of a window .1 wide
    for field, message in pairs { window = "window must be a name or a table, not a number",
                                  noise = "noise must be", rollout_steps = "rollout_steps must be a whole number" } do
      local ok, caught = pcall(srpo.new, settings(pipe, { [field] = function() return -1 end }))
      assert.is_false(ok)
      assert.is_truthy(caught:find(message, 1, true), caught)
    end
  end)

  it("takes k = 2 in the CFG form, which moves away from the negative text", function()
    assert.equal(2, srpo.new(settings(load_pipeline(), { form = "cfg" })).kappa.denoise(0.3))
    assert.near(0.1, srpo.new(settings(load_pipeline())).kappa.denoise(0), 1e-12)
  end)

  it("takes views in one batch: the same losses and gradients, within rounding, from fewer calls", function()
    for _, case in ipairs {
      { levels = 1, at_once = 2, calls = 1 }, { levels = 2, at_once = 2, calls = 2 },
      { levels = 3, at_once = 4, calls = 2 }, { levels = 1, at_once = 2, calls = 2, ledger = true },
    } do
      local losses, rewards, grads, calls = {}, {}, {}, 0
      for _, at_once in ipairs { 1, case.at_once } do
        local pipe = load_pipeline()
        local method = srpo.new(settings(pipe, { aggregate = case.levels, views_at_once = at_once,
          lambda = function(t) return 1 + t end, train_guidance = function(sigma) return 1 + sigma end }))
        method.ledger = case.ledger
        local decode = pipe.decode
        calls = 0
        pipe.decode = function(...)
          calls = calls + 1
          return decode(...)
        end
        local stats, ledger = step(method)
        losses[#losses + 1] = stats.loss
        for _, row in ipairs(ledger) do rewards[#rewards + 1] = row.reward end
        local list = {}
        for i, parameter in ipairs(pipe.transformer:parameters()) do
          list[i] = parameter:grad() and parameter:grad():copy():keep()
        end
        grads[#grads + 1] = list
      end
      assert.equal(case.calls, calls)
      assert.near(losses[1], losses[2], 1e-5 * math.abs(losses[1]))
      for i = 1, #rewards / 2 do assert.near(rewards[i], rewards[i + #rewards / 2], 1e-5) end
      for i, grad in pairs(grads[1]) do
        local worst = (grad - grads[2][i]):abs():mean():item()
        assert.is_true(worst <= 1e-5 * grad:abs():mean():item() + 1e-9, ("parameter %d: %g"):format(i, worst))
      end
    end
  end)

  it("asks for what its form needs of the reward", function()
    local bare = { score = function() end }
    for form, needed in pairs { inversion = "relative", cfg = "mixed" } do
      local ok, message = pcall(srpo.new, settings(load_pipeline(), { form = form, reward = bare }))
      assert.is_false(ok)
      assert.is_truthy(message:find("needs a reward with the method " .. needed, 1, true), message)
    end
  end)

  it("raises its own objective", function()
    local pipe = load_pipeline()
    local method = srpo.new(settings(pipe, { form = "difference", kappa = { denoise = 0 } }))
    local optimizer = optim.adamw { lr = 3e-3, clip = 1 }
    optimizer:bind(pipe.transformer:parameters())
    local first, last
    for i = 1, 12 do
      local stats = step(method, 1)
      first, last = first or stats.reward, stats.reward
      optimizer:update(i, 12)
    end
    assert.is_true(last > first)
  end)

  it("names what is wrong with its fields", function()
    local pipe = load_pipeline()
    assert.error_matches(function() srpo.new(settings(pipe, { form = "x" })) end, "form must be")
    assert.error_matches(function() srpo.new(settings(pipe, { compat = "x" })) end, "compat must be")
    assert.error_matches(function() srpo.new(settings(pipe, { views_at_once = 0 })) end, "views_at_once must be")
    assert.error_matches(function() srpo.new(settings(pipe, { control = { positive = {}, negative = { "a" } } })) end,
      "control.positive")
    assert.error_matches(function() srpo.new { pipeline = pipe } end, "needs the field reward")
  end)
end)
