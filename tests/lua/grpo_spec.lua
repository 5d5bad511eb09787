local advantage = require "syz.advantage"
local core = require "syz.core"
local grpo = require "syz.methods.grpo"
local optim = require "syz.optim"
local pipeline = require "syz.pipeline"
local schedule = require "syz.schedule"
local sde = require "syz.sde"
local settings = require "syz.methods.grpo_settings"

local PROMPTS = { "a red cat", "two dogs" }

--- Redness, minus what the text asks for: enough to tell images and texts apart.
local reward = {}
function reward.score(_, images, texts)
  local bias = {}
  for i, text in ipairs(texts) do bias[i] = #text * 0.01 end
  return images:mean({ 1, 2 }):slice(1, 0, 1):reshape({ #texts }) - core.tensor(bias)
end
function reward:relative(images, wanted, unwanted, kappa)
  return (1 + kappa) * self:score(images, wanted) - self:score(images, unwanted)
end

local function load_pipeline()
  local pipe = pipeline.load("tests/models/data/pipeline", { steps = 4, shift = 3, size = { 16, 16 } })
  pipe.transformer:requires_grad(true)
  return pipe
end

local function method(extra, pipe)
  local options = { pipeline = pipe or load_pipeline(), reward = reward, group = 3, kl = 0 }
  for key, value in pairs(extra or {}) do options[key] = value end
  if not options.preset then options.form = options.form or "dance" end
  return grpo.new(options)
end

local function batch(number, update)
  return { step = number or 1, prompts = PROMPTS, cond = {}, update = update }
end

local function each_parameter(made, f)
  for _, parameter in ipairs(made.pipeline.transformer:parameters()) do f(parameter) end
end

--- The policy of the closed forms: its velocity is the parameter w, whatever it is asked.
local function world(shape, value)
  local w = core.full(shape, value or 0):keep()
  w:requires_grad(true)
  local pipe = { schedule = schedule.flow { steps = 4, shift = 1 }, transformer = {}, w = w }
  function pipe.velocity(_, x) return w:broadcast_to(x:shape()) end
  function pipe.noise(_, generator, count) return generator:randn({ count, shape[2], shape[3] }) end
  function pipe.decode(_, x) return x end
  function pipe.condition() return {} end
  return pipe
end

local low_sum = { score = function(_, x) return -x:mean({ 1, 2 }) end }

describe("advantages", function()
  local rewards = { 1, 2, 6, 10, 10, 10, -1, 0, 4 }

  it("sum to nothing in each group, whatever they are divided by", function()
    for _, spread in ipairs { "group", "global" } do
      local values = advantage.compute(rewards, 3, { spread = spread, eps = 1e-4 })
      for first = 1, 9, 3 do
        assert.near(0, values[first] + values[first + 1] + values[first + 2], 1e-12)
      end
      assert.equal(0, values[4])
    end
  end)

  it("divide by the deviation of their form", function()
    -- 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14
    local dance, groups = advantage.compute(rewards, 3, settings.forms.dance.advantage)
    assert.near(3 / (math.sqrt(7) + 1e-8), dance[3], 1e-12)
    assert.same({ 3, 1, 6 }, { groups[1].mean, groups[1].low, groups[1].high })
    local own = advantage.compute({ 1, 2, 6 }, 3, settings.forms.flow.advantage)
    assert.near(3 / (math.sqrt(14 / 3) + 1e-4), own[3], 1e-12)
    -- all nine: mean 14/3, squares 358 - 196
    local global = advantage.compute(rewards, 3, settings.forms.flow.advantage)
    assert.near(3 / (math.sqrt((358 - 196) / 9) + 1e-4), global[3], 1e-12)
  end)

  it("are brought into the bound", function()
    assert.same({ 5, -5, 1 }, advantage.clamp({ 7, -9, 1 }, 5))
  end)
end)

describe("GRPO", function()
  for name, extra in pairs {
    dance = { form = "dance" }, flow = { form = "flow" }, cps = { form = "flow", sampler = "cps" },
    ["dance in small parts"] = { form = "dance", micro_batch = 4 }, window = { form = "flow", window = { size = 2 } },
  } do
    it("has the ratio 1 to the last bit on its first pass: " .. name, function()
      local made = method(extra)
      core.scope(function()
        local stats, ledger = made:step(batch(), core.generator(5, 1))
        assert.equal(1, stats.ratio)
        assert.equal(0, stats.clipped)
        for _, row in ipairs(ledger) do
          if row.branch == "step" then assert.equal(1, row.ratio) end
        end
        local norm = 0
        each_parameter(made, function(p)
          if p:grad() then norm = norm + p:grad():square():sum():item() end
        end)
        assert.is_true(norm > 0)
      end)
    end)
  end

  it("has the gradient of the policy, in closed form", function()
    core.scope(function()
      local pipe = world({ 1, 2, 3 }, 0.4)
      local made = method({ form = "flow", reward = low_sum, group = 4, fraction = 0.7, kl = 0 }, pipe)
      local plan = made:plan(batch(), core.generator(8, 1))
      assert.equal(2, plan.passes)
      made:accumulate(plan, {}, 1, 1)
      local got, want = pipe.w:grad():totable(), { 0, 0, 0, 0, 0, 0 }
      -- dloss/dw = -A dlog p/dw = -A (x' - mean) b / (6 std^2), averaged over 8 images and 2 of the 3 noisy steps
      for image = 1, 8 do
        for k = 1, 2 do
          local index = plan.order[image][k]
          local step = plan.steps[index]
          local function row(x) return x:slice(0, image - 1, image):reshape({ 6 }):totable() end
          local before, after = row(plan.path.x[index]), row(plan.path.x[index + 1])
          for e = 1, 6 do
            local surprise = after[e] - step.a * before[e] - step.b * 0.4
            want[e] = want[e] - plan.advantages[image] * surprise * step.b / (6 * step.std ^ 2) / 16
          end
        end
      end
      for e = 1, 6 do assert.near(want[e], got[e], 1e-5) end
    end)
  end)

  it("has the gradient that finite differences give, with the reference's pull", function()
    local made = method { form = "flow", kl = 2, clip = 0.5, rollout_steps = 4 }
    core.scope(function()
      -- away from the reference, where the divergence has a gradient
      local g = core.generator(21)
      each_parameter(made, function(p) p:assign(p + g:randn(p:shape()) * 0.02) end)
      local plan = made:plan(batch(), core.generator(5, 1))
      made:accumulate(plan, {}, 1, 1)
      local directions, norm = {}, 0
      each_parameter(made, function(p)
        directions[#directions + 1] = p:grad() and p:grad():copy() or core.zeros(p:shape())
        norm = norm + directions[#directions]:square():sum():item()
      end)
      norm = math.sqrt(norm)
      local function loss_at(h)
        local i = 0
        each_parameter(made, function(p)
          i = i + 1
          p:assign(p + directions[i] * (h / norm))
        end)
        local loss = made:accumulate(plan, {}, 1, 1)
        i = 0
        each_parameter(made, function(p)
          i = i + 1
          p:assign(p - directions[i] * (h / norm))
        end)
        return loss
      end
      local h = 4e-3
      assert.near(norm, (loss_at(h) - loss_at(-h)) / (2 * h), 0.01 * norm)
    end)
  end)

  it("leaves alone what the clip has reached, on the side of the advantage only", function()
    core.scope(function()
      local pipe = world({ 1, 1, 1 }, 0)
      local made = method({ form = "dance", reward = low_sum, group = 2, fraction = 1, rollout_steps = 2 }, pipe)
      local function gradient(gain, sign)
        local plan = made:plan({ step = 1, prompts = { "x" } }, core.generator(1, 1))
        for i = 1, 2 do
          plan.advantages[i] = sign
          plan.path.log_prob[1][i] = plan.path.log_prob[1][i] - gain
        end
        pipe.w:zero_grad()
        made:accumulate(plan, {}, 1, 1)
        return pipe.w:grad():totable()[1]
      end
      assert.equal(0, gradient(0.01, 1))
      assert.equal(0, gradient(-0.01, -1))
      assert.is_true(gradient(-0.01, 1) ~= 0)
      assert.is_true(gradient(0.01, -1) ~= 0)
    end)
  end)

  it("does not depend on how many images pass through the models at once", function()
    local pipe = load_pipeline()
    core.scope(function()
      local rewards, norms = {}, {}
      for _, size in ipairs { 6, 4, 1 } do
        pipe.transformer:zero_grad()
        local made = method({ form = "flow", micro_batch = size }, pipe)
        local plan = made:plan(batch(), core.generator(5, 1))
        made:accumulate(plan, {}, 1, #plan.parts)
        rewards[#rewards + 1] = plan.rewards
        local sum = 0
        each_parameter(made, function(p) sum = sum + (p:grad() and p:grad():square():sum():item() or 0) end)
        norms[#norms + 1] = math.sqrt(sum)
      end
      for k = 2, 3 do
        for i = 1, 6 do assert.near(rewards[1][i], rewards[k][i], 1e-5) end
        assert.near(norms[1], norms[k], 1e-3 * norms[1])
      end
    end)
  end)

  it("raises the reward of its images", function()
    core.scope(function()
      local pipe = world({ 1, 2, 2 }, 0)
      local made = method({ form = "dance", reward = low_sum, group = 8 }, pipe)
      local optimizer = optim.adamw { lr = 0.02, clip = 1, weight_decay = 0 }
      optimizer:bind { pipe.w }
      for number = 1, 40 do
        core.scope(function()
          made:step(batch(number), core.generator(3, number))
          optimizer:update(number, 40)
        end)
      end
      -- the image is the noise minus w: a low one wants a high w, in every element
      for _, value in ipairs(pipe.w:reshape({ 4 }):totable()) do assert.is_true(value > 0.2) end
    end)
  end)
end)

describe("the reference", function()
  it("is at no distance at the start, and stays where it was", function()
    local made = method { form = "flow", kl = 1 }
    local optimizer = optim.adamw { lr = 1e-2, clip = 1 }
    optimizer:bind(made.pipeline.transformer:parameters())
    local first, second, before, after
    core.scope(function()
      before = made.frozen.transformer:parameters()[1]:hash()
      first = made:step(batch(1), core.generator(5, 1))
      optimizer:update(1, 2)
      second = made:step(batch(2), core.generator(5, 2))
      after = made.frozen.transformer:parameters()[1]:hash()
    end)
    assert.equal(0, first.kl)
    assert.is_true(second.kl > 0)
    assert.equal(before, after)
  end)

  it("measures (mu - mu_ref)^2 / (2 s^2)", function()
    core.scope(function()
      local pipe = world({ 1, 1, 2 }, 0.3)
      local made = method({ form = "dance", reward = low_sum, eta = 0.5 }, pipe)
      made.frozen = world({ 1, 1, 2 }, 0.1)
      local steps = { sde.stochastic("dance", 0.5, 0.8, 0.6) }
      local x = core.zeros({ 1, 1, 2 })
      local mean = sde.mean(x, pipe:velocity(x), steps)
      local got = made:divergence(x, mean, core.tensor { 0.8 }, steps, {}):totable()[1]
      assert.near((steps[1].b * 0.2) ^ 2 / (2 * 0.25), got, 1e-7)
    end)
  end)

  it("is not made where nothing pulls towards it", function()
    assert.is_nil(method({ kl = 0 }).frozen)
  end)
end)

describe("several updates of one rollout", function()
  it("are applied through the trainer, and move the ratio of those that follow", function()
    local made = method { updates = 3, group = 3, noise = "per_sample" }
    local optimizer = optim.adamw { lr = 1e-2, clip = 1 }
    optimizer:bind(made.pipeline.transformer:parameters())
    core.scope(function()
      local calls = 0
      local _, ledger = made:step(batch(1, function(loss)
        calls = calls + 1
        assert.is_true(loss == loss)
        return (optimizer:update(1, 1))
      end), core.generator(5, 1))
      assert.equal(2, calls)
      local ratios, updates = {}, 0
      for _, row in ipairs(ledger) do
        if row.branch == "step" then ratios[row.update] = math.max(ratios[row.update] or 0, math.abs(row.ratio - 1)) end
        if row.branch == "update" then updates = updates + 1 end
      end
      assert.equal(0, ratios[1])
      assert.is_true(ratios[2] > 0 and ratios[3] > 0)
      assert.equal(2, updates)
    end)
  end)

  it("see every image once per epoch", function()
    local made = method { updates = 2, epochs = 2, group = 2, fraction = 1 }
    core.scope(function()
      local _, ledger = made:step(batch(1, function() return 0 end), core.generator(5, 1))
      local images = {}
      for _, row in ipairs(ledger) do
        if row.branch == "step" then images[row.update] = row.images end
      end
      assert.same({ 2, 2, 2, 2 }, images)
    end)
  end)

  it("are refused without a trainer, or where the parts cannot be shared", function()
    assert.error_matches(function() method({ updates = 2 }):step(batch(), core.generator(1)) end, "batch.update")
    local made = method { updates = 2, micro_batch = 2 }
    core.scope(function()
      assert.error_matches(function() made:step(batch(1, function() end), core.generator(1)) end,
        "6 images in parts of 2 make 3 parts")
    end)
  end)
end)

describe("the noisy steps", function()
  local function steps(window, update)
    update = update or 1
    return settings.noisy_steps(window, 9, update, core.generator(6, update))
  end

  it("are all but the last without a window", function()
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9 }, steps(nil))
  end)

  it("move with the update and start again, for MixGRPO", function()
    local window = method({ window = { size = 4, every = 25 }, rollout_steps = 10 }).window
    assert.same({ 1, 2, 3, 4 }, steps(window, 25))
    assert.same({ 2, 3, 4, 5 }, steps(window, 26))
    assert.same({ 6, 7, 8, 9 }, steps(window, 150))
    assert.same({ 1, 2, 3, 4 }, steps(window, 151))
  end)

  it("lie anywhere in the range, for the fast form", function()
    local window, seen = method({ window = { size = 2, last = 5 }, rollout_steps = 10 }).window, {}
    for update = 1, 60 do
      local chosen = steps(window, update)
      assert.equal(chosen[1] + 1, chosen[2])
      seen[chosen[1]] = true
    end
    assert.same({ true, true, true, true }, seen)
  end)

  it("are the only ones that train, and the only ones with noise", function()
    local made = method { window = { size = 1, first = 2, last = 2 }, rollout_steps = 4 }
    core.scope(function()
      local plan = made:plan(batch(), core.generator(2, 1))
      assert.equal(1, plan.passes)
      for i = 1, 4 do assert.equal(i == 2, plan.steps[i].std > 0) end
      for image = 1, 6 do assert.same({ 2 }, plan.order[image]) end
    end)
  end)
end)

describe("GRPO's settings", function()
  it("share the starting noise as asked", function()
    core.scope(function()
      local hashes = {}
      for _, noise in ipairs { "group", "shared", "per_sample" } do
        local x = method({ noise = noise }):draw_noise(2, core.generator(9))
        local distinct, count = {}, 0
        for i = 0, 5 do
          local hash = x:slice(0, i, i + 1):copy():hash()
          if not distinct[hash] then count = count + 1 end
          distinct[hash] = true
        end
        hashes[noise] = count
      end
      assert.same({ group = 2, shared = 1, per_sample = 6 }, hashes)
    end)
  end)

  it("take a relative reward: (1 + kappa) s_pos - s_neg", function()
    local made = method { relative = { control = { positive = { "Real" }, negative = { "Flat!" } }, kappa = 0.5 } }
    core.scope(function()
      local plan = made:plan(batch(), core.generator(2, 1))
      local plain = method({}, made.pipeline):score(plan.path, plan.parts, 1)
      for i, value in ipairs(plan.rewards) do
        local own = plain[i] + #PROMPTS[i <= 3 and 1 or 2] * 0.01
        local length = #PROMPTS[i <= 3 and 1 or 2] + 2
        assert.near(1.5 * (own - (length + 4) * 0.01) - (own - (length + 5) * 0.01), value, 1e-5)
      end
      assert.equal("Real. cat", (made.control(1, "cat")))
    end)
  end)

  it("come from the preset, and the recipe has the last word", function()
    local pipe = load_pipeline()
    for name, preset in pairs(settings.presets) do
      local made = grpo.new { pipeline = pipe, reward = reward, preset = name, kl = 0 }
      assert.equal(preset.rollout_steps, made.rollout_steps)
      assert.equal(preset.shift, made.schedule.shift)
      assert.equal(preset.form, made.form)
    end
    local made = grpo.new { pipeline = pipe, reward = reward, preset = "fast-flux", eta = 0.5, group = 4,
      advantage = { eps = 0.1 } }
    assert.same({ 0.5, 4, 1e-5, "cps", "squared" }, { made.eta, made.group, made.clip, made.sampler, made.log_prob })
    assert.same({ spread = "group", unbiased = false, eps = 0.1 }, made.advantage)
    assert.equal(3.5, made.guidance)
  end)

  for text, extra in pairs {
    ["the field reward"] = { reward = false },
    ["group must be a whole number from 2"] = { group = 1 },
    ['form cannot be "danse"; did you mean "dance"'] = { form = "danse" },
    ['preset cannot be "dance%-flx"; did you mean "dance%-flux"'] = { preset = "dance-flx" },
    ['there is no sampler "ddim"'] = { sampler = "ddim" },
    ["eta must be a number above 0, not 0"] = { eta = 0 },
    ["eta must be a number above 0, not %-1"] = { eta = -1 },
    ["eta of the cps sampler must lie in"] = { sampler = "cps", eta = 1.5 },
    ['no field "groop"; did you mean "group"'] = { groop = 3 },
    ["fraction must be a number in %(0, 1%]"] = { fraction = 0 },
    ["clip must be a number above 0"] = { clip = 0 },
    ["kl must be a number from 0"] = { kl = -1 },
    ["rollout_steps must be a whole number from 2"] = { rollout_steps = 1 },
    ["updates must be a whole number from 1"] = { updates = 1.5 },
    ["micro_batch must be a whole number from 1"] = { micro_batch = 0 },
    ['noise cannot be "groups"; did you mean "group"'] = { noise = "groups" },
    ["a window of 4 steps does not fit"] = { window = { size = 4 }, rollout_steps = 4 },
    ['window has no field "sise"; did you mean "size"'] = { window = { sise = 4 } },
    ["window.size must be"] = { window = {} },
    ["advantage.eps must be"] = { advantage = { eps = 0 } },
    ['advantage.spread cannot be "globe"'] = { advantage = { spread = "globe" } },
    ["relative.kappa must be a number"] = { relative = { kappa = "a" } },
    ["control.positive"] = { relative = { control = { positive = {}, negative = { "a" } } } },
    ["relative needs a reward with the method relative"] = { reward = low_sum, relative = {} },
    ["the schedule must be a flow"] = { schedule = schedule.vp {} },
  } do
    it("are refused by name: " .. text, function()
      assert.error_matches(function() method(extra) end, text)
    end)
  end

  it("need a form", function()
    assert.error_matches(function() grpo.new { pipeline = load_pipeline(), reward = reward } end, "form is needed")
  end)
end)
