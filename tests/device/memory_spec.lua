--- memory = "auto" on the emulated GPU: what is kept when it fits, checkpointed when it does not, repeated when the
--- first step says otherwise, and refused in one line when nothing helps.
local activations = require "syz.activations"
local core = require "syz.core"
local device = require "syz.device"
local support = dofile "tests/lua/methods_support.lua"

-- Costs of three passes that keep 40, 20, 10 bytes of a sample, or 4, 2, 1 checkpointed.
local function passes()
  local list = {}
  for i, name in ipairs { "transformer", "vae", "reward" } do
    local kept, flops = ({ 40, 20, 10 })[i], ({ 100, 30, 5 })[i]
    list[i] = { name = name, keep = { kept = kept, scratch = 0, flops = flops },
      checkpoint = { kept = kept / 10, scratch = 0, flops = flops } }
  end
  return list
end

describe("the choice", function()
  local function chosen(room, samples)
    local found, bytes, fits = activations.choose(passes(), samples or 1, room)
    local names = {}
    for _, name in ipairs { "transformer", "vae", "reward" } do
      if found[name] then names[#names + 1] = name end
    end
    return table.concat(names, " "), bytes, fits
  end

  it("keeps all that fits, and repeats the fewest operations else", function()
    assert.same({ "", 70, true }, { chosen(70) })
    assert.same({ "reward", 61, true }, { chosen(69) })
    assert.same({ "vae", 52, true }, { chosen(60) })
    assert.same({ "vae reward", 43, true }, { chosen(50) })
    assert.same({ "transformer", 34, true }, { chosen(40) })
    assert.same({ "transformer vae reward", 7, true }, { chosen(15) })
  end)

  it("counts every sample, and says when nothing fits", function()
    assert.same({ "vae", 104, true }, { chosen(120, 2) })
    assert.same({ "transformer vae reward", 7, false }, { chosen(5) })
  end)
end)

-- An experiment with one step, and what the first one says.
local function experiment(memory)
  local syz = require "syz"
  local pipe = support.pipeline(3)
  return syz.train {
    method = syz.methods.srpo { pipeline = pipe, reward = support.linear_reward(), rollout_steps = 3,
      control = { positive = { "a" }, negative = { "b" } } },
    prompts = support.prompts, batch = 2, steps = 1, optimizer = syz.adamw { lr = 1e-3 }, memory = memory,
    eval = { grid = 1 },
  }
end

-- An experiment that is about to make its first step.
local function ready(memory)
  local spec = experiment(memory)
  activations.place(spec)
  spec.optimizer:bind(spec.method.pipeline.transformer:parameters())
  collectgarbage()
  return spec
end

-- Make the first step as the loop does; the stats, or what was raised.
local function first_step(spec)
  local step = spec:stepper { ledger = function() end }
  return pcall(core.scope, function() return step(1, core.generator(42, 1), function() end) end)
end

local function gradient(spec)
  return core.scope(function() return support.gradient_norm(spec.method.pipeline) end)
end

describe("a first step", function()
  setup(function() device.choose "cuda" end)
  teardown(function()
    core.device_limit("cuda", 0)
    device.choose(nil)
    core.set_device "cpu"
  end)
  after_each(function() core.device_limit("cuda", 0) end)

  -- The same step in less memory: what is left is what is used now and `more` bytes.
  local function limited(more, memory)
    local spec = ready(memory)
    local left = spec.method.pipeline.transformer:parameters()[1] -- a gradient of the attempt that is broken off
    left:set_grad(core.ones(left:shape()))
    core.device_limit("cuda", core.device_memory("cuda").live + more)
    local ok, stats = first_step(spec)
    return spec, ok, stats
  end

  -- The most that a step in this mode takes above what it starts with, its stats and the norm of its gradient.
  local measured = {}
  local function need(memory)
    if not measured[memory] then
      local spec = ready(memory)
      local before = core.device_memory("cuda").live
      core.device_reset_peak "cuda"
      local ok, stats = first_step(spec)
      assert(ok, stats)
      measured[memory] = { core.device_memory("cuda").peak - before, stats, gradient(spec) }
    end
    return unpack(measured[memory])
  end

  it("takes less memory with checkpointing, and has the same numbers", function()
    local kept, wanted, norm = need "keep"
    local less, stats, found = need "checkpoint"
    assert.is_true(less < 0.9 * kept, ("%d bytes against %d"):format(less, kept))
    assert.near(wanted.loss, stats.loss, 1e-6)
    assert.near(norm, found, 1e-5 * norm)
  end)

  it("is repeated with checkpointing when it does not fit", function()
    local kept, wanted, norm = need "keep"
    local less = need "checkpoint"
    local choose = activations.choose
    activations.choose = function() return {}, 0, true end -- an estimate that is wrong
    finally(function() activations.choose = choose end)
    local spec, ok, stats = limited((kept + less) / 2)
    assert.is_true(ok, tostring(stats))
    assert.near(wanted.loss, stats.loss, 1e-6)
    assert.near(norm, gradient(spec), 1e-5 * norm)
  end)

  it("is one line with what helps when that does not help either", function()
    local _, ok, raised = limited(20000)
    assert.is_false(ok)
    assert.is_truthy(tostring(raised):find("out of memory on cuda:0: .* asked, .* in use .*; what helps: "), raised)
  end)

  it("is not repeated where the recipe has chosen", function()
    local kept, less = need "keep", need "checkpoint"
    local _, ok, raised = limited((kept + less) / 2, "keep")
    assert.is_false(ok)
    assert.is_truthy(tostring(raised):find("out of memory on cuda:0", 1, true), raised)
  end)
end)

describe("memory", function()
  it("is one of three words", function()
    local ok, raised = pcall(experiment, "little")
    assert.is_false(ok)
    assert.is_truthy(raised:find('memory cannot be "little"', 1, true) or raised:find('"little"', 1, true), raised)
  end)
end)
