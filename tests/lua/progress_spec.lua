local core = require "syz.core"
local progress = require "syz.progress"
local text = require "syz.text"

describe("progress", function()
  local now, err, out
  local function start(opts)
    now, err, out = 0, {}, {}
    opts.clock = function() return now end
    opts.err = function(s) err[#err + 1] = s end
    opts.out = function(s) out[#out + 1] = s end
    progress.configure(opts)
  end
  teardown(function() progress.configure() end)

  local function shown() return table.concat(err) end

  it("is a bar on a terminal, never wider than it", function()
    for _, width in ipairs { 20, 33, 50, 80, 200 } do
      start { terminal = { tty = true, width = width } }
      local bar = progress.new(20, "training")
      for step = 1, 20 do
        now = now + 3.7
        bar:update(step, ("loss 0.%04d  reward 0.%04d  and a long tail of further numbers"):format(step, step))
      end
      bar:done()
      for frame in shown():gmatch("\r\27%[2K([^\r\n]*)") do
        assert.is_true(text.width(frame) < width, ("%d columns: %s"):format(width, frame))
      end
    end
  end)

  it("tells the count, the time gone and the time left", function()
    start { terminal = { tty = true, width = 100 } }
    local bar = progress.new(10, "training")
    now = 10
    bar:update(1)
    now = 30
    bar:update(3, "loss 0.5")
    assert.is_truthy(shown():find("3/10  0:30 <1:10  loss 0.5", 1, true))
  end)

  it("counts the speed of a resumed phase from where it starts", function()
    start { terminal = { tty = true, width = 100 } }
    local bar = progress.new(20, "training")
    now = 5
    bar:update(11)
    assert.is_truthy(shown():find("11/20  0:05 <0:45", 1, true))
  end)

  it("is plain lines elsewhere, few of them, without escapes", function()
    start { terminal = { tty = false, width = 80 } }
    local bar = progress.new(1000, "training")
    for step = 1, 1000 do
      now = now + 0.05
      bar:update(step, { loss = 1 / step })
    end
    bar:done()
    local lines = {}
    for line in shown():gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
    assert.is_nil(shown():find("[\r\27]"))
    assert.equal("training", lines[1])
    assert.equal("  1000/1000  0:50  loss 0.001", lines[#lines])
    assert.is_true(#lines >= 4 and #lines <= 7, #lines .. " lines")
  end)

  it("keeps silent with quiet, but for warnings", function()
    start { terminal = { tty = true, width = 80 }, quiet = true }
    local bar = progress.new(2, "training")
    bar:update(1)
    progress.note "a note"
    progress.note("warning: a disk is full", "yellow")
    bar:done()
    assert.equal("warning: a disk is full\n", shown())
  end)

  it("is one JSON object a line with json, and nothing else", function()
    start { terminal = { tty = true, width = 80 }, json = true }
    local bar = progress.new(2, "training")
    bar:update(1, "loss 1")
    progress.object { step = 1, loss = 0.5 }
    progress.note "done"
    bar:done()
    assert.equal("", shown())
    assert.same({ phase = "training", total = 2 }, core.json.decode(out[1]))
    assert.same({ step = 1, loss = 0.5 }, core.json.decode(out[2]))
    assert.same({ note = "done", level = "info" }, core.json.decode(out[3]))
    assert.equal(3, #out)
  end)

  it("leaves the bar intact under a note", function()
    start { terminal = { tty = true, width = 80 } }
    local bar = progress.new(2, "training")
    bar:update(1)
    local before = #err
    progress.note "saved"
    assert.equal("\r\27[2Ksaved\n", err[before + 1])
    assert.is_truthy(err[before + 2]:find("training", 1, true))
  end)
end)

describe("text", function()
  it("measures and cuts by characters", function()
    assert.equal(3, text.width("a→b"))
    assert.equal(1, text.width("\27[31mé\27[0m"))
    assert.equal(4, text.width(text.clip("äöüßabc", 4)))
    assert.equal("abc", text.clip("abc", 3))
  end)

  it("writes numbers, sizes and durations for people", function()
    assert.equal("1e-5", text.number(1e-5))
    assert.equal("0.3217", text.number(0.32167))
    assert.equal("20", text.number(20))
    assert.equal("12,345,678", text.count(12345678))
    assert.equal("999", text.count(999))
    assert.equal("1.5 KiB", text.bytes(1536))
    assert.equal("1:02:03", text.duration(3723))
    assert.equal("0:07", text.duration(7.4))
  end)

  it("aligns columns", function()
    assert.equal("a    x\nbbb  y\n", text.columns({ { "a", "x" }, { "bbb", "y" } }))
    assert.equal("  →   1\n  b  10\n", text.columns({ { "→", 1 }, { "b", 10 } }, 2))
  end)

  it("quotes for a shell what a shell would split", function()
    assert.equal("runs/a-b", text.shell("runs/a-b"))
    assert.equal("'it'\\''s here'", text.shell("it's here"))
  end)
end)
