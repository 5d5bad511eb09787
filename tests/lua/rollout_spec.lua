-- Rollouts in 8 bits: what they change, and what they must not.

local core = require "syz.core"
local pipeline = require "syz.pipeline"
local sampler = require "syz.sampler"

local EMOJI = "examples/emoji/pipeline"

-- The largest difference of two tensors.
local function apart(a, b)
  local n, worst = a:numel(), 0
  local x, y = a:reshape({ n }):totable(), b:reshape({ n }):totable()
  for i = 1, n do worst = math.max(worst, math.abs(x[i] - y[i])) end
  return worst
end

describe("a pipeline with rollout = fp8", function()
  local pipe
  setup(function() pipe = pipeline.load(EMOJI, { steps = 2, rollout = "fp8" }) end)

  local function drawn(rollout)
    return sampler.euler(pipe, { noise = pipe:noise(core.generator(7, 1), 2), schedule = pipe.schedule, steps = 2,
      cond = pipe:condition { "red apple", "blue bird" }, rollout = rollout })
  end

  it("draws nearly the same latents, and the same ones again", function()
    local exact, rounded = drawn(false), drawn()
    local distance = apart(exact, rounded)
    assert.is_true(distance > 0 and distance < 0.5, tostring(distance))
    assert.equal(0, apart(rounded, drawn "fp8"))
  end)

  it("evaluates with the weights as they are", function()
    local function image(rollout)
      return pipe:sample { prompts = { "red apple" }, steps = 2, seed = 3, rollout = rollout }
    end
    local mine = image()
    pipe.rollout = nil
    local plain = image()
    pipe.rollout = "fp8"
    assert.equal(0, apart(mine, plain))
    assert.is_true(apart(image "fp8", plain) > 0)
  end)

  it("leaves no trace in what is computed after it, also after an error", function()
    local x, cond = pipe:noise(core.generator(7, 1), 1), pipe:condition { "red apple" }
    local function velocity() return core.no_grad(function() return pipe:velocity(x, 0.5, cond, 1) end) end
    local before = velocity()
    drawn()
    assert.equal(0, apart(before, velocity()))
    local failing = setmetatable({ velocity = function() error("no velocity", 0) end }, { __index = pipe })
    assert.has_error(function()
      sampler.euler(failing, { noise = x, schedule = pipe.schedule, steps = 2, cond = cond })
    end, "no velocity")
    assert.equal(0, apart(before, velocity()))
  end)

  it("is for evaluations without gradients", function()
    local ok, why = pcall(core.fp8, true)
    assert.is_false(ok)
    assert.matches("inside no_grad", tostring(why))
  end)

  it("takes no other type", function()
    local ok, why = pcall(pipeline.load, EMOJI, { rollout = "fp4" })
    assert.is_false(ok)
    assert.matches("rollout", tostring(why))
    assert.matches("fp8", tostring(why))
  end)
end)
