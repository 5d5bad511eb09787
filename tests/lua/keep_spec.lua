-- Nothing is lost: full disks, folders that hold something else, resumed runs with other inputs, damaged checkpoints.
local core = require "syz.core"
local checkpoint = require "syz.checkpoint"
local disk = require "syz.disk"
local files = require "syz.files"
local identity = require "syz.identity"
local support = dofile "tests/lua/support.lua"

local full = ": No space left on device"

describe("a file that grows", function()
  local folder, warned, refuses, append
  before_each(function()
    folder, warned, refuses, append = support.folder(), {}, false, core.file.append
    core.file.append = function(path, lines)
      if refuses then error(path .. full, 0) end
      append(path, lines)
    end
  end)
  after_each(function() core.file.append = append end)
  teardown(support.clean)

  it("keeps lines that find no room, and writes them in order when there is some", function()
    local log = disk.log(folder .. "/a", function(line) warned[#warned + 1] = line end)
    log:add "1\n"
    refuses = true
    log:add "2\n"
    log:add "3\n"
    assert.equal("1\n", core.file.read(folder .. "/a"))
    assert.equal(1, #warned)
    refuses = false
    log:add "4\n"
    assert.equal("1\n2\n3\n4\n", core.file.read(folder .. "/a"))
    refuses = true
    log:add "5\n"
    log:close()
    assert.is_truthy(warned[3]:find("its last 1 entries are lost", 1, true))
  end)

  it("passes on what is no fault of the disk", function()
    core.file.append = function() error("a mistake", 0) end
    assert.error_matches(function() disk.log(folder .. "/a", print):add "1" end, "a mistake")
  end)
end)

describe("a checkpoint that finds no room", function()
  local folder
  before_each(function()
    folder = support.folder()
    core.file.mkdir(folder .. "/checkpoints")
  end)
  teardown(support.clean)

  local function save(step, fail)
    return checkpoint.save(folder, step, function(partial)
      core.file.write(partial .. "/state.json", "{}")
      if fail and fail() then error(partial .. "/x" .. full, 0) end
    end, { keep = 3 })
  end
  local function steps()
    local found = {}
    for i, entry in ipairs(checkpoint.list(folder)) do found[i] = entry.step end
    return found
  end

  it("takes that of the oldest but never of the last one", function()
    save(1)
    save(2)
    assert.is_truthy(save(3, function() return #steps() > 1 end))
    assert.same({ 2, 3 }, steps())
    local path, reason = save(4, function() return true end)
    assert.is_nil(path)
    assert.is_truthy(reason:find("No space left", 1, true))
    assert.same({ 3 }, steps())
    assert.is_nil((save(5, function() return true end)))
    assert.same({ 3 }, steps())
    assert.is_true(checkpoint.verify(folder .. "/checkpoints/step-000003"))
  end)

  it("does not take that of a pinned one", function()
    save(1)
    checkpoint.pin(folder, 1)
    save(2)
    assert.is_nil((save(3, function() return true end)))
    assert.same({ 1, 2 }, steps())
  end)
end)

describe("a fingerprint", function()
  local folder
  before_each(function() folder = support.folder() end)
  teardown(support.clean)

  it("changes with any byte of a small file and not with the folder's name", function()
    for _, name in ipairs { "a", "b" } do
      core.file.mkdir(folder .. "/" .. name .. "/sub")
      support.write(folder, name .. "/sub/w.safetensors", "weights")
      support.write(folder, name .. "/config.json", "{}")
    end
    support.write(folder, "b/notes.md", "not decisive")
    assert.equal(identity.of(folder .. "/a"), identity.of(folder .. "/b"))
    support.write(folder, "b/sub/w.safetensors", "weighty")
    assert.not_equal(identity.of(folder .. "/a"), identity.of(folder .. "/b"))
  end)

  it("of a large file changes with its size and with other weights", function()
    local path, bytes = folder .. "/w.safetensors", ("0123456789abcdef"):rep(2 ^ 20 + 4096)
    core.file.write(path, bytes)
    local before = identity.of(folder)
    core.file.write(path, bytes .. "x")
    assert.not_equal(before, identity.of(folder))
    core.file.write(path, (bytes:gsub("^0", "1")))
    assert.not_equal(before, identity.of(folder))
    core.file.write(path, bytes)
    assert.equal(before, identity.of(folder))
  end)
end)

describe("a run", function()
  local folder
  local options = "--quiet --set steps=4 --set model=p"
  before_each(function()
    folder = support.folder()
    os.execute(("cp tests/recipes/tiny.lua '%s' && cp -r tests/models/data/pipeline '%s/p'"):format(folder, folder))
  end)
  teardown(support.clean)

  local function fails_with(code, expected, arguments)
    local got, _, err = support.syz(folder, arguments)
    assert.equal(code, got, err)
    assert.is_truthy(err:find(expected, 1, true), err)
    return err
  end

  it("does not start among somebody's files", function()
    core.file.mkdir(folder .. "/o")
    support.write(folder, "o/recipe.lua", "mine")
    fails_with(2, "error: o holds other files (recipe.lua) and no run; choose another --out\n",
      "run tiny.lua --out o " .. options)
    assert.equal("mine", core.file.read(folder .. "/o/recipe.lua"))
    fails_with(2, "error: tiny.lua is a file; a run needs a folder\n", "run tiny.lua --out tiny.lua " .. options)
  end)

  it("is not resumed where there is none, whatever the recipe holds", function()
    support.write(folder, "bad.lua", "local x = = 1")
    fails_with(2, "error: none holds no run to resume (there is no such folder)", "run bad.lua --resume none")
    fails_with(2, "error: p holds no run to resume", "run bad.lua --resume p")
  end)

  it("is resumed with the same models only, wherever they lie", function()
    assert.equal(0, (support.syz(folder, "run tiny.lua --out o " .. options)))
    local metrics = core.file.read(folder .. "/o/metrics.jsonl")
    local path = folder .. "/p/vae/diffusion_pytorch_model.safetensors"
    local bytes = core.file.read(path)
    core.file.write(path, bytes:sub(1, -2) .. "\1")
    local err = fails_with(2, "the pipeline p differs from the one the run began with (its files changed)",
      "run tiny.lua --resume o --set steps=6")
    assert.equal(1, #support.lines(err))
    assert.equal(metrics, core.file.read(folder .. "/o/metrics.jsonl"))
    core.file.write(path, bytes)
    core.file.rename(folder .. "/p", folder .. "/q")
    local code, _, said = support.syz(folder, "run tiny.lua --resume o -q --set steps=6 --set model=q")
    assert.equal(0, code, said)
    assert.equal("", said)
  end)

  it("says when its recipe has changed, and keeps the old one", function()
    assert.equal(0, (support.syz(folder, "run tiny.lua --out o " .. options)))
    local old = core.file.read(folder .. "/tiny.lua")
    core.file.write(folder .. "/tiny.lua", old .. "-- other\n")
    local code, _, err = support.syz(folder, "run tiny.lua --resume o --quiet --set steps=6")
    assert.equal(0, code, err)
    local kept = err:match "^warning: the recipe has changed .* the old one is (recipe%-before%-%x+%.lua)\n$"
    assert.is_truthy(kept, err)
    assert.equal(old, core.file.read(folder .. "/o/" .. kept))
  end)

  it("goes on from the checkpoint before a damaged one, and from none when all are", function()
    assert.equal(0, (support.syz(folder, "run tiny.lua --out o " .. options)))
    local function flip(step)
      local path = ("%s/o/checkpoints/%s/optimizer.safetensors"):format(folder, checkpoint.name(step))
      local bytes = core.file.read(path)
      local at = math.floor(#bytes / 2)
      core.file.write(path, bytes:sub(1, at) .. string.char((bytes:byte(at + 1) + 64) % 256) .. bytes:sub(at + 2))
    end
    flip(4)
    local err = fails_with(0, "step-000004: optimizer.safetensors does not match its checksum",
      "run tiny.lua --resume o --quiet")
    assert.equal(1, #support.lines(err), err)
    assert.equal(2, files.read_json(folder .. "/o/run.json").resumed_at)
    flip(2)
    flip(4)
    local metrics = core.file.read(folder .. "/o/metrics.jsonl")
    fails_with(2, "error: o: none of its 2 checkpoints can be read back; the folder is left as it is\n",
      "run tiny.lua --resume o --quiet --set steps=6")
    assert.equal(metrics, core.file.read(folder .. "/o/metrics.jsonl"))
  end)

  it("that may write small files only says so, goes on, and ends with what it has", function()
    local code = os.execute(("cd '%s' && (ulimit -f 64; '%s' run tiny.lua --out o %s >out 2>err)"):format(folder,
      os.getenv "SYZ", options))
    assert.equal(1, math.floor(code / 256))
    local lines = support.lines(core.file.read(folder .. "/err"))
    assert.is_truthy(lines[1]:find("warning: checkpoint of step 2 not saved: o/checkpoints/.step-000002", 1, true))
    assert.is_truthy(lines[#lines]:find("error: o/model/transformer/diffusion_pytorch_model.safetensors: ", 1, true))
    assert.equal("failed", files.read_json(folder .. "/o/run.json").status)
    local _, steps = core.file.read(folder .. "/o/metrics.jsonl"):gsub('"loss"', "")
    assert.equal(4, steps)
    local resumed, _, err = support.syz(folder, "run tiny.lua --resume o --quiet")
    assert.equal(0, resumed, err)
  end)
end)
