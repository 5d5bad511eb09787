-- Ctrl-C and SIGTERM where no step is running: before the first one, and in an evaluation. The program leaves at once,
-- and the resumed run is the uninterrupted one.
local core = require "syz.core"
local checkpoint = require "syz.checkpoint"
local files = require "syz.files"
local support = dofile "tests/lua/support.lua"

describe("a run whose evaluations take their time", function()
  local folder
  setup(function()
    folder = support.folder()
    os.execute(("cp -r tests/models/data/pipeline '%s/p'"):format(folder))
    local recipe = core.file.read "tests/recipes/tiny.lua"
    local function variant(name, sampling)
      local text, count = recipe:gsub("every = 3, grid = 2, steps = 2", "every = 3, grid = 2, steps = " .. sampling)
      assert(count == 1)
      support.write(folder, name, text)
    end
    -- the two have one name, so that each can resume what the other began; only the second's evaluations are quick
    core.file.mkdir(folder .. "/quick")
    variant("slow.lua", 200000)
    variant("quick/slow.lua", 3)
  end)
  teardown(support.clean)

  local function read(path)
    return core.file.exists(folder .. "/" .. path) and core.file.read(folder .. "/" .. path) or ""
  end
  local function wait_for(what)
    for _ = 1, 400 do
      if what() then return end
      os.execute "sleep 0.05"
    end
    error("waited too long: " .. read "err")
  end

  -- Start, wait, send the signal: the exit code and how long the end took.
  local function stop_by(signal, out, arguments, ready)
    for _, name in ipairs { "code", "pid" } do core.file.remove(folder .. "/" .. name) end
    os.execute(("cd '%s' && { '%s' run slow.lua %s --threads 1 --set model=p >out 2>err & echo $! >pid; wait $!; "
      .. "echo $? >code; } &"):format(folder, os.getenv "SYZ", arguments))
    wait_for(ready)
    os.execute "sleep 0.3"
    os.execute(("kill -%s $(cat '%s/pid')"):format(signal, folder))
    wait_for(function() return read "code" ~= "" end)
    return tonumber(read "code"), files.read_json(("%s/%s/run.json"):format(folder, out)).status
  end

  for _, case in ipairs { { "INT", 130, "interrupted" }, { "TERM", 75, "terminated" } } do
    local signal = case[1]
    it("leaves the first one by SIG" .. signal, function()
      local out = "before-" .. signal
      local code, status = stop_by(signal, out, "--set steps=4 --out " .. out, function()
        return core.file.exists(("%s/%s/env.json"):format(folder, out))
      end)
      assert.same({ case[2], case[3] }, { code, status })
      assert.same({}, checkpoint.list(folder .. "/" .. out))
      assert.equal("", read(out .. "/metrics.jsonl"))
    end)

    it("leaves a later one by SIG" .. signal .. " with a checkpoint, and begins the resumed run with it", function()
      local out, whole = "later-" .. signal, "whole-" .. signal
      local quick = "run quick/slow.lua -q --threads 1 --set model=p --set steps=4 "
      -- two steps with quick evaluations, the third with a slow one that is broken off
      assert.equal(0, (support.syz(folder, quick .. "--set steps=2 --out " .. out)))
      local code, status = stop_by(signal, out, "--set steps=4 --resume " .. out, function()
        return select(2, read(out .. "/metrics.jsonl"):gsub('"loss"', "")) == 3
      end)
      assert.same({ case[2], case[3] }, { code, status })
      local saved = checkpoint.list(folder .. "/" .. out)
      assert.equal(3, saved[#saved].step)
      assert.is_true(files.read_json(saved[#saved].path .. "/state.json").pending)
      local resumed, _, err = support.syz(folder, quick .. "--resume " .. out)
      assert.equal(0, resumed, err)
      -- the same by one that was stopped between steps only
      assert.equal(0, (support.syz(folder, quick .. "--set steps=2 --out " .. whole)))
      assert.equal(0, (support.syz(folder, quick .. "--resume " .. whole)))
      assert.equal(read(whole .. "/metrics.jsonl"), read(out .. "/metrics.jsonl"))
      local weights = "/model/transformer/diffusion_pytorch_model.safetensors"
      assert.equal(read(whole .. weights), read(out .. weights))
    end)
  end
end)
