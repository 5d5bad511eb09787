-- Ctrl-C and SIGTERM in the middle of a training by the program itself.
local core = require "syz.core"
local checkpoint = require "syz.checkpoint"
local files = require "syz.files"
local support = dofile "tests/lua/support.lua"

local recipe = [[
local syz = require "syz"
local opt = syz.options { steps = { 100000, "steps" } }
local model = syz.model.create(syz.json.decode(syz.file.read "config.json"))
model:init(3)
local ids = syz.tensor({ 1, 2, 3, 4 }, { 1, 4 }, "i64"):keep()
return syz.fit {
  modules = { text = model }, steps = opt.steps, optimizer = syz.adamw { lr = 1e-3, clip = 1 }, log_every = 1,
  checkpoint_every = 1000000,
  loss = function(_, generator)
    local hidden = model:forward(ids)
    return (hidden * generator:randn(hidden:shape())):mean()
  end,
}
]]

local function count_lines(path)
  local _, lines = (core.file.exists(path) and core.file.read(path) or ""):gsub("\n", "")
  return lines
end

describe("a training", function()
  local folder
  before_each(function()
    folder = support.folder()
    support.write(folder, "fit.lua", recipe)
    support.write(folder, "config.json", core.file.read "tests/models/data/clip_text_b/config.json")
  end)
  teardown(support.clean)

  -- Start, wait until a few steps are logged, send the signal, wait for the end: exit code and the step it stopped at.
  local function stop_by(signal)
    local command = "{ '%s' run fit.lua --out a --threads 1 >out 2>err & echo $! >pid; wait $!; echo $? >code; } &"
    os.execute(("cd '%s' && "):format(folder) .. command:format(os.getenv "SYZ"))
    local function wait_for(what)
      for _ = 1, 400 do
        if what() then return end
        os.execute "sleep 0.05"
      end
      error("waited too long: " .. (core.file.read(folder .. "/err") or ""))
    end
    wait_for(function() return count_lines(folder .. "/a/metrics.jsonl") >= 5 end)
    os.execute(("kill -%s $(cat '%s/pid')"):format(signal, folder))
    wait_for(function() return (core.file.read(folder .. "/code") or "") ~= "" end)
    local saved = checkpoint.list(folder .. "/a")
    assert.equal(1, #saved)
    assert.equal(count_lines(folder .. "/a/metrics.jsonl"), saved[1].step)
    return tonumber(core.file.read(folder .. "/code")), saved[1].step
  end

  local function weights(run, step)
    return core.file.sha256(("%s/%s/checkpoints/%s/text/model.safetensors"):format(folder, run, checkpoint.name(step)))
  end

  for _, case in ipairs { { "INT", 130, "interrupted" }, { "TERM", 75, "terminated" } } do
    it("stopped by SIG" .. case[1] .. " saves its step, and goes on as if nothing had happened", function()
      local code, step = stop_by(case[1])
      assert.equal(case[2], code)
      assert.equal(case[3], files.read_json(folder .. "/a/run.json").status)
      local last = step + 4
      local resumed, _, err = support.syz(folder, ("run fit.lua --resume a --threads 1 --set steps=%d"):format(last))
      assert.equal(0, resumed, err)
      assert.equal(0, (support.syz(folder, ("run fit.lua --out b --threads 1 --set steps=%d"):format(last))))
      assert.is_truthy(weights("a", last))
      assert.equal(weights("b", last), weights("a", last))
      assert.equal(core.file.read(folder .. "/b/metrics.jsonl"), core.file.read(folder .. "/a/metrics.jsonl"))
    end)
  end
end)
