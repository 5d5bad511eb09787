--- A mix of rewards: the value and the gradient of the weighted sum, and what each part pulls at.
local core = require "syz.core"
local mix = require "syz.rewards.mix"
local refl = require "syz.methods.refl"
local support = require "tests.lua.methods_support"

--- Brightness, and (nonlinear) contrast.
local bright = { score = function(_, images) return images:mean({ 1, 2, 3 }) end }
local contrast = { score = function(_, images)
  local centred = images - images:mean({ 1, 2, 3 }, true)
  return centred:square():mean({ 1, 2, 3 })
end }
for _, reward in ipairs { bright, contrast } do
  function reward:relative(images, _, _, kappa) return (1 + kappa) * self:score(images) end
  function reward:image(images) return self:score(images) end
  function reward.pair(_, features) return features end
end

local function images() return core.generator(3):rand({ 2, 4, 4, 3 }) end

describe("a mix of rewards", function()
  it("has the value and the gradient of the weighted sum", function()
    core.scope(function()
      local mixed = mix.new { { reward = bright, weight = 0.3, name = "bright" }, { reward = contrast, weight = -2 } }
      local a, b = images():requires_grad(true), images():requires_grad(true)
      local got, want = mixed:score(a, {}), 0.3 * bright:score(b) - 2 * contrast:score(b)
      for i, value in ipairs(want:totable()) do assert.near(value, got:totable()[i], 1e-6) end
      -- through something nonlinear, as a hinge would be
      got:square():sum():backward()
      want:square():sum():backward()
      local theirs = b:grad():totable()
      for i, value in ipairs(a:grad():totable()) do assert.near(theirs[i], value, 1e-6) end
    end)
  end)

  it("says how hard each part pulls at the images", function()
    core.scope(function()
      local mixed = mix.new { { reward = bright, weight = 0.3, name = "bright" },
        { reward = contrast, name = "contrast" } }
      mixed:score(images():requires_grad(true), {})
      -- the mean of 48 values has gradient 1/48 in each
      assert.near(0.3 / math.sqrt(48), mixed:report().pull_bright, 1e-6)
      assert.near(bright:score(images()):mean():item(), mixed:report().reward_bright, 1e-6)
      assert.is_true(mixed:report().pull_contrast > 0)
    end)
  end)

  it("scores without gradient, and by features, alike", function()
    core.scope(function()
      local mixed = mix.new { { reward = bright, weight = 2 }, { reward = contrast } }
      local plain = core.no_grad(function() return mixed:score(images(), {}):totable() end)
      assert.same(plain, mixed:pair(mixed:image(images()), {}):totable())
      assert.is_nil(mixed:report().pull_part1)
    end)
  end)

  it("is a reward like any other: a method logs its parts", function()
    local pipe = support.pipeline(3)
    local mixed = mix.new { { reward = bright, name = "bright" }, { reward = contrast, name = "contrast" } }
    local stats, rows = support.step(refl.new { pipeline = pipe, reward = mixed })
    assert.near(stats.reward, stats.reward_bright + stats.reward_contrast, 1e-6)
    assert.is_true(stats.pull_bright > 0 and rows[1].pull_contrast > 0 and support.gradient_norm(pipe) > 0)
    local relative = support.step(require("syz.methods.srpo").new { pipeline = support.pipeline(3), reward = mixed,
      form = "difference" })
    assert.near(relative.reward, relative.reward_bright + relative.reward_contrast, 1e-6)
  end)

  it("refuses what is no list of rewards", function()
    assert.error_matches(function() mix.new {} end, "reward_mix takes a list")
    assert.error_matches(function() mix.new { { weight = 1 } } end, "reward_mix, entry 1 needs the field reward")
    assert.error_matches(function() mix.new { { reward = bright, wieght = 1 } } end, 'did you mean "weight"')
    assert.error_matches(function() mix.new { { reward = bright, name = "a" }, { reward = bright, name = "a" } } end,
      'two entries are named "a"')
  end)
end)
