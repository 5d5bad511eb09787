--- The moving average of trained parameters: its numbers, and what checkpoints and the end of a run hold.
local core = require "syz.core"
local average = require "syz.average"
local loop = require "syz.loop"
local nn = require "syz.nn"
local optim = require "syz.optim"
local progress = require "syz.progress"
local trainer = require "syz.trainer"
local support = dofile "tests/lua/support.lua"

local function number(value) return core.scope(function() return core.tensor { value }:keep() end) end

local function set(tensor, value) core.scope(function() tensor:assign(core.tensor { value }) end) end

describe("a moving average", function()
  teardown(support.clean)

  it("follows by its decay, every so many updates, and trades places with the parameters", function()
    local p = number(1)
    local mean = average.new({ p }, { decay = 0.75, every = 2 })
    local expected = 1
    for update = 1, 6 do
      set(p, update * 10)
      mean:update(update)
      if update % 2 == 0 then expected = 0.75 * expected + 0.25 * update * 10 end
    end
    mean:swap()
    assert.near(expected, p:item(), 1e-5)
    mean:swap()
    assert.equal(60, p:item())
  end)

  it("leaves its start sooner with a ramp", function()
    local p, expected = number(0), 0
    local mean = average.new({ p }, { decay = 0.5, every = 4, ramp = true })
    for update = 1, 16 do
      set(p, update)
      mean:update(update)
      local decay = math.min(0.5, update / (9 + update))
      if update % 4 == 0 then expected = decay * expected + (1 - decay) * update end
    end
    mean:swap()
    assert.near(expected, p:item(), 1e-5)
  end)

  it("is refused with a decay or a rhythm that make no sense", function()
    local method = { pipeline = { schedule = {} }, modules = {} }
    for _, case in ipairs { { 1, "ema must be a decay from 0 and below 1, not 1" }, { -0.1, "not -0.1" },
                            { 0 / 0, "ema must be a decay" }, { { decay = 0.9, each = 2 }, 'ema has no field "each"' },
                            { { decay = 0.9, every = 0 }, "ema.every must be a whole number from 1, not 0" },
                            { { every = 2 }, "ema must be a decay" } } do
      local ok, raised = pcall(trainer.experiment, { method = method, prompts = { "a" }, steps = 1, ema = case[1],
                                                     optimizer = optim.adamw {} })
      assert.is_false(ok)
      assert.is_truthy(tostring(raised):find(case[2], 1, true), tostring(raised))
    end
  end)
end)

describe("a loop with an average", function()
  setup(function() progress.configure { quiet = true, err = function() end } end)
  teardown(function()
    progress.configure()
    support.clean()
  end)

  -- What the loop wants of a run; checkpoints go into a folder each.
  local function run_in(folder, from)
    local run = { folder = folder, saved = {} }
    function run.latest() return from end
    function run.checkpoint(_, step, write)
      run.saved[step] = ("%s/%d"):format(folder, step)
      core.file.mkdir(run.saved[step])
      write(run.saved[step])
    end
    function run.mark() return 0 end
    function run.log() end
    function run.stopping() end
    function run.warn(_, line) error(line, 0) end
    return run
  end

  -- A parameter that every step pushes by about the learning rate. Returns what it was after each step, the average
  -- that `after` saw, the run and the module.
  local function train(folder, steps, ema, from)
    local module = nn.module({ { "p", { 1 }, "zeros" } }, 0)
    module:requires_grad(true)
    local p, run, raw, seen = module:param "p", run_in(folder, from), {}, {}
    loop.run(run, {
      steps = steps, seed = 1, modules = { m = module }, optimizer = optim.adamw { lr = 1, clip = 0, weight_decay = 0 },
      ema = ema, checkpoint_every = 1,
      step = function(step)
        raw[step - 1] = p:item()
        local loss = (p * -step):sum()
        loss:backward()
        return { loss = 0 }
      end,
      after = function(step) seen[step] = p:item() end,
    })
    return raw, seen, run, p
  end

  local function stored(path, file, name)
    return core.scope(function() return core.safetensors.read(path .. file)[name]:item() end)
  end

  it("shows it to evaluations, checkpoints and whoever uses what was trained", function()
    local raw, seen, run, p = train(support.folder(), 4, 0.5)
    local mean = 0
    for step = 1, 3 do
      mean = 0.5 * mean + 0.5 * raw[step]
      assert.near(mean, seen[step], 1e-6)
      assert.near(mean, stored(run.saved[step], "/m/model.safetensors", "p"), 1e-6)
      assert.equal(raw[step], stored(run.saved[step], "/unaveraged.safetensors", "00001"))
    end
    assert.is_true(raw[3] > 2.5 and seen[3] < 0.8 * raw[3])
    assert.equal(seen[4], p:item())
  end)

  it("goes on from a checkpoint to the same bits", function()
    local folder = support.folder()
    local _, seen, run, p = train(folder, 6, { decay = 0.9, every = 2 })
    local _, again, _, q = train(support.folder(), 6, { decay = 0.9, every = 2 }, run.saved[3])
    for step = 4, 6 do assert.equal(seen[step], again[step]) end
    assert.equal(p:item(), q:item())
  end)

  it("may be left out when a run goes on, or be begun then", function()
    local raw, _, run = train(support.folder(), 4, 0.5)
    local _, seen = train(support.folder(), 4, nil, run.saved[3])
    local plain, _, plain_run = train(support.folder(), 4)
    assert.equal(plain[3], raw[3])
    assert.is_true(seen[4] > raw[3]) -- the parameter itself, not its average
    local _, late = train(support.folder(), 4, 0.5, plain_run.saved[3])
    assert.near(0.5 * plain[3] + 0.5 * seen[4], late[4], 1e-5)
  end)
end)
