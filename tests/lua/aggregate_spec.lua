--- Reward aggregation over a window of levels, and the windows by name.
local core = require "syz.core"
local aggregate = require "syz.aggregate"
local direct = require "syz.methods.direct_align"
local schedule = require "syz.schedule"
local srpo = require "syz.methods.srpo"
local support = require "tests.lua.methods_support"

local function make(pipe, fields, new)
  local options = { pipeline = pipe, reward = support.linear_reward(), rollout_steps = 3 }
  for key, value in pairs(fields) do options[key] = value end
  return (new or direct.new)(options)
end

--- The transformer's gradient of one step as one list of numbers.
local function gradient(fields, new)
  local pipe, all = support.pipeline(3), {}
  local stats, rows = support.step(make(pipe, fields, new))
  for _, parameter in ipairs(pipe.transformer:parameters()) do
    local grad = parameter:grad()
    if grad then
      for _, value in ipairs(grad:totable()) do all[#all + 1] = value end
    end
  end
  return all, stats, rows
end

local function same(a, b)
  assert.equal(#a, #b)
  local worst, size = 0, 0
  for i = 1, #a do
    worst, size = math.max(worst, math.abs(a[i] - b[i])), math.max(size, math.abs(b[i]))
  end
  assert.is_true(size > 0 and worst < 1e-5 * size)
end

describe("aggregate", function()
  it("as a function that sums with lambda is the built-in sum", function()
    for _, new in ipairs { direct.new, srpo.new } do
      local want = gradient({ aggregate = 3, spacing = 100 }, new)
      same(gradient({ aggregate = { levels = 3, by = function(rewards)
        return (rewards[1] + rewards[2] + rewards[3]):mean() / 3
      end }, spacing = 100 }, new), want)
      same(gradient({ aggregate = { levels = 3, by = function() return { 1 / 3, 1 / 3, 1 / 3 } end },
        spacing = 100 }, new), want)
    end
  end)

  it("differentiates what the function computes", function()
    -- the derivative of a soft maximum is the softmax of the rewards: given as constant weights, the same gradient
    local function soft(rewards)
      local sum = (rewards[1] * 8):exp() + (rewards[2] * 8):exp()
      return (sum:log() / 8):mean()
    end
    local function weights(rewards)
      local e = { (rewards[1] * 8):exp():detach(), (rewards[2] * 8):exp():detach() }
      return { e[1] / (e[1] + e[2]), e[2] / (e[1] + e[2]) }
    end
    same(gradient { aggregate = { levels = 2, by = soft }, spacing = 300 },
      (gradient { aggregate = { levels = 2, by = weights }, spacing = 300 }))
  end)

  it("hands the function the noise of each level", function()
    local seen
    local _, _, rows = gradient { aggregate = function(rewards, sigmas)
      seen = { #rewards, sigmas[1]:totable()[1], sigmas[4]:totable()[1] }
      return { 1, 0, 0, 0 }
    end }
    assert.equal(4, seen[1])
    assert.near(rows[1].from, seen[2], 1e-6)
    assert.near(rows[4].from, seen[3], 1e-6)
    assert.is_true(seen[3] < seen[2])
    assert.equal(0, rows[2].weight)
  end)

  it("names what the function should have returned", function()
    local function refused(by, pattern)
      assert.error_matches(function() gradient { aggregate = { levels = 2, by = by } } end, pattern)
    end
    refused(function() return "best" end, "aggregate%(rewards, sigmas%) returned a string: a scalar tensor")
    refused(function() return { 1 } end, "aggregate returned a nil as weight 2 of 2")
    refused(function(rewards) return rewards[1] end, "must return one number made of the rewards")
    refused(function() return core.ones { 1 } end, "must return one number made of the rewards")
  end)

  it("refuses settings that contradict it", function()
    local pipe = support.pipeline(3)
    assert.error_matches(function() make(pipe, { aggregate = function() end, lambda = 2 }) end, "leave out lambda")
    assert.error_matches(function() make(pipe, { aggregate = 0 }) end, "aggregate must be at least 1 level, not 0")
    assert.error_matches(function() make(pipe, { aggregate = { level = 2 } }) end, 'did you mean "levels"')
  end)
end)

describe("a window", function()
  it("by name has the stated noise levels", function()
    for name, ends in pairs { early = { 0.99, 0.66 }, all = { 0.99, 0.01 }, late = { 0.34, 0.01 } } do
      local method = make(support.pipeline(3), { window = name })
      assert.near(ends[1], method.levels[0], 1e-12)
      assert.near(ends[2], method.levels[999], 1e-12)
    end
    assert.same({ 5, 25 }, aggregate.window({ 5, 25 }, "srpo"))
  end)

  it("outside the schedule, or of an unknown name, is one clear line", function()
    local pipe = support.pipeline(3)
    assert.error_matches(function() make(pipe, { window = { 40, 60 } }) end,
      "window {40, 60} does not fit the 50%-step")
    assert.error_matches(function() make(pipe, { window = { sigma = { 0.2, 0.8 } } }) end, "1 >= high > low >= 0")
    assert.error_matches(function() make(pipe, { window = "erly" }) end, 'did you mean "early"')
  end)

  it("early trains at noisy levels and late at clean ones", function()
    local _, _, early = gradient { window = "early" }
    local _, _, late = gradient { window = "late" }
    assert.is_true(early[1].from > 0.66 and late[1].from <= 0.34)
  end)
end)

describe("the jump", function()
  it("may be said as a ratio, in indices, or in sigma, each also by step", function()
    local pipe = support.pipeline(3)
    assert.equal(100, make(pipe, {}).k)
    assert.equal(26, make(pipe, { ratio = 0.975 }).k)
    assert.equal(166, make(pipe, { jump = 166 }).k)
    assert.equal(100, make(pipe, { dsigma = 0.0981, window = { sigma = { 0.98, 0 } } }).k)
    local method = make(pipe, { jump = function(step) return 10 * step end })
    local _, _, _, _, jumps = direct.indices(method, { 500 }, "denoise", 0, 7)
    assert.equal(70, jumps[1])
  end)

  it("is said once, and fits", function()
    local pipe = support.pipeline(3)
    assert.error_matches(function() make(pipe, { jump = 10, dsigma = 0.1 }) end, "dsigma and jump say the same thing")
    assert.error_matches(function() make(pipe, { jump = 0 }) end,
      "direct_align: jump is 0: it makes a jump of 0 indices")
    assert.error_matches(function() make(pipe, { ratio = -1 }) end, "it makes a jump of 2001 indices")
  end)
end)

describe("the schedule", function()
  it("may be variance preserving: Direct-Align recovers x0 exactly there too", function()
    core.scope(function()
      local g, grid = core.generator(4), schedule.vp {}
      local x0, eps = g:randn({ 2, 4, 8 }), g:randn({ 2, 4, 8 })
      local exact = { schedule = grid, velocity = function() return eps end } -- a VP model predicts the noise
      local xhat = direct.recover(exact, x0, eps, core.tensor({ 0.6, 0.3 }, { 2, 1, 1 }),
        core.tensor({ 0.5, 0.35 }, { 2, 1, 1 }))
      assert.near(0, (xhat - x0):abs():mean():item(), 1e-5)
    end)
  end)
end)

describe("SRPO's settings", function()
  it("say in one line what a kappa or a control set lacks", function()
    local pipe = support.pipeline(3)
    assert.error_matches(function()
      support.step(make(pipe, { kappa = { denoise = function() return "strong" end } }, srpo.new))
    end, "kappa.denoise%(.-%) returned string, a number is needed")
    assert.error_matches(function() make(pipe, { control = { positive = {}, negative = { "x" } } }, srpo.new) end,
      "control.positive must be a non%-empty list of words")
    assert.error_matches(function() make(pipe, { control = { postive = { "x" }, negative = { "x" } } }, srpo.new) end,
      'control has no list "postive"; did you mean "positive"')
    assert.error_matches(function() make(pipe, { control = "nowhere.yaml" }, srpo.new) end,
      'control: there is no file "nowhere.yaml"')
  end)

  it("read control words from a YAML file", function()
    local files = require "tests.lua.support"
    local path = files.write(files.folder(), "words.yaml", "positive: [Real, Sharp]\nnegative: [Flat]\n")
    local method = make(support.pipeline(3), { control = path }, srpo.new)
    local positive, negative = method.control(1, "a cat")
    assert.same({ "Sharp. a cat", "Flat. a cat" }, { positive, negative })
    files.clean()
  end)

  it("cancel a constant bias of the reward: the gradient is the same to the last bit but rounding", function()
    local fields = { form = "difference", kappa = { denoise = 0 } }
    local plain = gradient(fields, srpo.new)
    fields.reward = support.linear_reward(100)
    same(gradient(fields, srpo.new), plain)
  end)
end)
