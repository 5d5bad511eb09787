--- Every method and reward once on the CPU and once on the emulated GPU: the same numbers from the same draws.
local core = require "syz.core"
local device = require "syz.device"
local support = dofile "tests/lua/methods_support.lua"
local syz = require "syz"

-- f() with everything made and loaded on a device.
local function on(where, f)
  device.choose(where)
  local ok, result = pcall(core.scope, f)
  device.choose(nil)
  core.set_device "cpu"
  if not ok then error(result, 0) end
  return result
end

-- A list of numbers that f gives on the CPU and on the device.
local function same(f, limit)
  local wanted, found = on("cpu", f), on("cuda", f)
  assert.equal(#wanted, #found)
  local difference, all = 0, 0
  for i, value in ipairs(wanted) do difference, all = difference + (found[i] - value) ^ 2, all + value ^ 2 end
  local apart = math.sqrt(difference / all)
  assert.is_true(apart <= (limit or 1e-4), ("%g apart"):format(apart))
end

describe("a method on a GPU", function()
  local reward, control = support.linear_reward(), { positive = { "Real" }, negative = { "Flat" } }
  local made = {
    direct_align = function(pipe) return syz.methods.direct_align { pipeline = pipe, reward = reward } end,
    ["srpo as released"] = function(pipe)
      return syz.methods.srpo { pipeline = pipe, reward = reward, control = control, compat = "srpo-81e5898" }
    end,
    ["srpo, two views at once"] = function(pipe)
      return syz.methods.srpo { pipeline = pipe, reward = reward, control = control, views_at_once = 2,
        train_guidance = 2 }
    end,
    draft = function(pipe) return syz.methods.draft { pipeline = pipe, reward = reward, preset = "lv" } end,
    refl = function(pipe) return syz.methods.refl { pipeline = pipe, reward = reward } end,
    drtune = function(pipe) return syz.methods.drtune { pipeline = pipe, reward = reward } end,
    flowbp = function(pipe) return syz.methods.flowbp { pipeline = pipe, reward = reward } end,
    leapalign = function(pipe) return syz.methods.leapalign { pipeline = pipe, reward = reward } end,
    grpo = function(pipe)
      return syz.methods.grpo { pipeline = pipe, reward = reward, form = "flow", group = 4, kl = 0.1,
        rollout_steps = 3 }
    end,
    ["a mix of rewards"] = function(pipe)
      local mix = syz.reward_mix { { reward = reward, weight = 2 }, { reward = support.linear_reward(1) } }
      return syz.methods.refl { pipeline = pipe, reward = mix }
    end,
  }
  for name, make in pairs(made) do
    it(name .. " takes the CPU's step", function()
      same(function()
        local pipe = support.pipeline(5)
        local method = make(pipe)
        method.ledger = true
        core.scope(function()
          local batch = { step = 1, prompts = support.prompts, cond = pipe:condition(support.prompts) }
          method.first = method:step(batch, core.generator(5, 1), function() end)
        end)
        return { method.first.loss, support.gradient_norm(pipe) }
      end)
    end)
  end
end)

describe("a reward on a GPU", function()
  local DATA = "tests/models/data/"
  local made = {
    clip = function() return syz.reward.clip(support.clip_folder) end,
    hps = function() return syz.reward.hps(support.clip_folder) end,
    image_reward = function() return syz.reward.image_reward(DATA .. "image_reward_pt") end,
  }
  local files = dofile "tests/lua/support.lua"
  setup(function() support.clip_folder = files.clip(files.folder(), 3) end)
  teardown(files.clean)

  for name, make in pairs(made) do
    it(name .. " scores as on the CPU, also after it has been moved", function()
      same(function()
        local reward = make()
        local images = core.generator(4):rand { 2, 40, 32, 3 }:requires_grad(true)
        local scores = reward:relative(images, { "a cat" }, { "a dog" }, 0.2)
        scores:sum():backward()
        local list = scores:totable()
        list[#list + 1] = images:grad():square():sum():sqrt():item()
        local moved = reward:to "cpu":score(images:detach():to "cpu", { "a cat" })
        assert.equal("cpu", moved:device())
        for _, value in ipairs(moved:totable()) do list[#list + 1] = value end
        return list
      end)
    end)
  end
end)

describe("on a GPU", function()
  it("large images pass through the autoencoder in tiles", function()
    same(function()
      local pipe = syz.pipeline("tests/models/data/pipeline", { size = { 64, 64 }, vae_tiling = { size = 32 } })
      return pipe:sample({ prompts = { "a" }, steps = 1 }):mean { 1 }:totable()
    end)
  end)

  it("pixels stay on the CPU until they are asked for", function()
    same(function()
      local images = require("syz.data").images_of({ {}, {} }, {
        core.tensor({ 0, 50, 100, 150, 200, 255 }, { 1, 1, 2, 3 }, "u8"),
        core.tensor({ 1, 2, 3, 4, 5, 6 }, { 1, 1, 2, 3 }, "u8") })
      assert.equal("cpu", images.pixels:device())
      local batch = images:batch { 2, 1 }
      assert.equal(device.current(), batch:device())
      return batch:totable()
    end, 1e-7)
  end)

  it("a pipeline moves there and back, in the type of its weights", function()
    local pipe = support.pipeline(2)
    local wanted = pipe:sample { prompts = { "a" }, steps = 2 }:totable()
    assert.equal(pipe, pipe:to "cuda")
    assert.equal("cuda:0", pipe.transformer:device())
    assert.equal("f32", pipe.transformer:parameters()[1]:dtype())
    pipe:to "cpu"
    assert.same(wanted, pipe:sample({ prompts = { "a" }, steps = 2 }):totable())
    pipe:to("cuda", "bf16")
    for _, part in ipairs { "transformer", "vae", "text_encoder" } do
      assert.equal("bf16", pipe[part]:parameters()[1]:dtype())
    end
    local images = core.no_grad(function()
      return pipe:decode(pipe:noise(core.generator(1), 1):to "cuda")
    end)
    assert.equal("f32", images:dtype())
  end)
end)
