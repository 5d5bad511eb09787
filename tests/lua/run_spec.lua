local core = require "syz.core"
local checkpoint = require "syz.checkpoint"
local events = require "syz.events"
local files = require "syz.files"
local progress = require "syz.progress"
local run = require "syz.run"
local support = dofile "tests/lua/support.lua"

local function loaded(name)
  return { name = name or "toy", path = "toy.lua", source = "return {}\n", values = { steps = 3 }, required = {},
           declared = { { name = "steps", kind = "number", default = 3, help = "steps" } } }
end

local function open(opts)
  opts.recipe = opts.recipe or loaded()
  return run.open(opts)
end

local function weights(step)
  return function(folder)
    core.scope(core.safetensors.write, folder .. "/model.safetensors", { w = core.tensor { step, 2, 3 } }, {})
    core.file.write(folder .. "/state.json", ('{"step": %d}\n'):format(step))
  end
end

-- A training whose every step depends on the step alone, as the real one does by its counter-based generator.
local function train(opened, last, until_step)
  local _, step = opened:latest()
  for i = (step or 0) + 1, until_step or last do
    opened:ledger(i, { { m = i * 7 % 5 }, { m = i * 11 % 5 } })
    opened:log(i, { loss = 1 / i })
    if i % 4 == 0 then opened:checkpoint(i, weights(i)) end
  end
end

describe("a run's folder", function()
  local folder, noted
  before_each(function()
    folder, noted = support.folder(), {}
    progress.configure { terminal = { tty = false, width = 80 }, err = function(s) noted[#noted + 1] = s end }
  end)
  teardown(function()
    support.clean()
    progress.configure()
  end)

  it("says what runs, where and how it ended", function()
    local opened = assert(open { out = folder .. "/a", command = "syz run toy.lua" })
    assert.equal("running", run.record(folder .. "/a").status)
    opened:log(3, { loss = 0.5 })
    opened:close("finished")
    local record = run.record(folder .. "/a")
    assert.equal("finished", record.status)
    assert.equal(3, record.step)
    assert.equal("return {}\n", core.file.read(folder .. "/a/recipe.lua"))
    assert.same({ steps = 3 }, core.yaml.decode(core.file.read(folder .. "/a/config.yaml")))
    local env = files.read_json(folder .. "/a/env.json")
    assert.equal(core.version(), env.version)
    assert.equal(core.sha256 "return {}\n", env.recipe_sha256)
    assert.equal("syz run toy.lua", env.command)
  end)

  it("gets a name of its own, also within one second", function()
    local one, two = assert(open { root = folder }), assert(open { root = folder })
    assert.is_truthy(one.folder:match("/toy%-%d%d%d%d%d%d%d%d%-%d%d%d%d%d%d"))
    assert.not_equal(one.folder, two.folder)
    one:close("finished")
    two:close("finished")
  end)

  it("is never overwritten", function()
    assert(open { out = folder .. "/a" }):close("finished")
    local opened, reason = open { out = folder .. "/a" }
    assert.is_nil(opened)
    assert.is_truthy(reason:find("already holds a run; add --resume", 1, true))
    opened, reason = open { out = folder .. "/b", resume = true }
    assert.is_nil(opened)
    assert.is_truthy(reason:find("holds no run to resume", 1, true))
    assert.is_nil(core.file.exists(folder .. "/b"))
  end)

  it("finds the newest run of a recipe", function()
    for i, name in ipairs { "toy", "toy", "other" } do
      core.file.mkdir(folder .. "/" .. i)
      files.write_json(("%s/%d/run.json"):format(folder, i), { name = name, started = i == 1 and 9 or i })
    end
    assert.equal(folder .. "/1", run.newest("toy", folder))
    assert.equal(folder .. "/3", run.newest("other", folder))
    assert.is_nil(run.newest("none", folder))
  end)

  it("keeps metrics as one object a line, with null where a number is not finite", function()
    local opened = assert(open { out = folder .. "/a" })
    opened:log(1, { loss = 0.5, reward = 0 / 0 })
    opened:log(2, { loss = math.huge })
    opened:close("finished")
    local lines = support.lines(core.file.read(folder .. "/a/metrics.jsonl"))
    assert.same({ step = 1, loss = 0.5, reward = core.null }, core.json.decode(lines[1]))
    assert.same({ step = 2, loss = core.null }, core.json.decode(lines[2]))
  end)

  it("lays samples out as a grid", function()
    local opened = assert(open { out = folder .. "/a" })
    local path = core.scope(function()
      local batch = core.ops.concat({ core.zeros { 1, 4, 6, 3 }, core.full({ 2, 4, 6, 3 }, 0.5) }, 0)
      return opened:sample(10, batch)
    end)
    opened:close("finished")
    assert.equal(folder .. "/a/samples/step-000010.png", path)
    core.scope(function()
      local picture = core.image.read(path)
      assert.same({ 4 * 2 + 2, 6 * 2 + 2, 3 }, picture:shape())
      local bytes = picture:totable()
      local function at(y, x) return bytes[(y * 14 + x) * 3 + 1] end
      assert.equal(0, at(0, 0)) -- the first image
      assert.equal(0, at(3, 5))
      assert.equal(255, at(0, 6)) -- the gap
      assert.is_true(math.abs(at(0, 8) - 127.5) <= 1) -- the second
      assert.is_true(math.abs(at(6, 0) - 127.5) <= 1) -- the third
      assert.equal(255, at(9, 13)) -- no fourth
    end)
    assert.same({ ["step-000010"] = { count = 3, columns = 2, width = 6, height = 4, gap = 2, step = 10 } },
      files.read_json(folder .. "/a/samples/layout.json"))
  end)

  it("adds to its summary", function()
    local opened = assert(open { out = folder .. "/a" })
    opened:summary { sgp = { before = 1, after = 2 } }
    opened:summary { seconds = 3 }
    opened:close("finished")
    assert.same({ sgp = { before = 1, after = 2 }, seconds = 3 }, files.read_json(folder .. "/a/summary.json"))
  end)

  it("resumed, equals one that was never interrupted", function()
    local whole = assert(open { out = folder .. "/whole" })
    train(whole, 12)
    whole:close("finished")
    local first = assert(open { out = folder .. "/torn" })
    train(first, 12, 10) -- the last checkpoint is that of step 8
    first:close("interrupted")
    core.file.append(folder .. "/torn/metrics.jsonl", '{"step":11,"lo')
    core.file.mkdir(folder .. "/torn/checkpoints/.step-000012.partial")
    local second = assert(open { out = folder .. "/torn", resume = true })
    assert.equal(8, second.resumed.step)
    train(second, 12)
    second:close("finished")
    for _, name in ipairs { "metrics.jsonl", "ledger.jsonl", "config.yaml", "recipe.lua",
                            "checkpoints/step-000012/model.safetensors", "checkpoints/step-000012/manifest.json" } do
      assert.equal(core.file.read(folder .. "/whole/" .. name), core.file.read(folder .. "/torn/" .. name), name)
    end
    assert.is_nil(core.file.exists(folder .. "/torn/checkpoints/.step-000012.partial"))
    local steps = {}
    local bytes = core.file.read(folder .. "/torn/events.out.tfevents.0.syz")
    local at = 1
    while at <= #bytes do
      local length = bytes:byte(at) + bytes:byte(at + 1) * 256
      steps[#steps + 1] = events.step(bytes:sub(at + 12, at + 11 + length))
      at = at + 16 + length
    end
    assert.same({ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }, steps)
  end)

  it("without a checkpoint starts anew when resumed", function()
    local first = assert(open { out = folder .. "/a" })
    train(first, 12, 3)
    first:close("terminated")
    local second = assert(open { out = folder .. "/a", resume = true })
    assert.is_nil(second.resumed)
    train(second, 4)
    second:close("finished")
    assert.equal(4, #support.lines(core.file.read(folder .. "/a/metrics.jsonl")))
  end)
end)

describe("a checkpoint", function()
  local folder, warned
  local function warn(line) warned[#warned + 1] = line end
  local function save(step, opts) return checkpoint.save(folder, step, weights(step), opts or { keep = 2 }) end
  local function steps()
    local found = {}
    for i, entry in ipairs(checkpoint.list(folder)) do found[i] = entry.step end
    return found
  end

  before_each(function()
    folder, warned = support.folder(), {}
    core.file.mkdir(folder .. "/checkpoints")
  end)
  teardown(support.clean)

  it("is named, summed and found", function()
    local path = assert(save(20))
    assert.equal(folder .. "/checkpoints/step-000020", path)
    local manifest = files.read_json(path .. "/manifest.json")
    assert.equal(core.sha256(core.file.read(path .. "/model.safetensors")), manifest.files["model.safetensors"])
    assert.same({ path, 20 }, { checkpoint.latest(folder, warn) })
  end)

  it("makes older ones go, by number and never the pinned one", function()
    save(999998)
    save(999999, { keep = 2, best = true })
    save(1000000)
    save(1000001)
    assert.same({ 999999, 1000000, 1000001 }, steps())
    assert.equal(999999, checkpoint.pinned(folder))
  end)

  it("that is damaged is passed over with a warning", function()
    for _, damage in ipairs {
      function(path) core.file.write(path .. "/model.safetensors", "torn") end,
      function(path) core.file.remove(path .. "/state.json") end,
      function(path) core.file.remove(path .. "/manifest.json") end,
      function(path) core.file.write(path .. "/manifest.json", '{"step"') end,
    } do
      save(10)
      damage(assert(save(20)))
      local _, step = checkpoint.latest(folder, warn)
      assert.equal(10, step)
      assert.is_truthy(warned[#warned]:find("step-000020", 1, true))
      files.remove_folder(folder .. "/checkpoints/step-000020")
    end
  end)

  it("costs nothing but itself when the disk is full", function()
    save(10)
    local path, reason = checkpoint.save(folder, 20, function(partial)
      core.file.write(partial .. "/half", "half")
      error(partial .. "/model.safetensors: cannot reserve 100 bytes: No space left on device", 0)
    end, { keep = 1 })
    assert.is_nil(path)
    assert.is_truthy(reason:find("No space left", 1, true))
    assert.same({ 10 }, steps())
    assert.is_nil(core.file.exists(folder .. "/checkpoints/.step-000020.partial"))
    assert.is_truthy(save(30, { keep = 1 }))
    assert.same({ 30 }, steps())
  end)

  it("does not hide a mistake in what writes it", function()
    assert.error_matches(function()
      checkpoint.save(folder, 20, function() error("attempt to index a nil value", 0) end, { keep = 1 })
    end, "attempt to index")
    assert.same({}, steps())
  end)
end)
