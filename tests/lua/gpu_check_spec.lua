-- The verdicts of tests/gpu/check.sh: its table, made of invented measurements, and its loss curves, which must be able
-- to fail. That the whole of it runs is the test gpu_check_tiny.

local core = require "syz.core"
local support = dofile "tests/lua/support.lua"

-- Exit code and output of a program of tests/gpu.
local function run(program, ...)
  local words, out = { "luajit tests/gpu/" .. program }, os.tmpname()
  for _, word in ipairs { ... } do words[#words + 1] = "'" .. word .. "'" end
  local code = os.execute(table.concat(words, " ") .. " >" .. out .. " 2>&1")
  local text = core.file.read(out)
  os.remove(out)
  return code > 255 and code / 256 or code, text
end

local function lines(folder, name, about, rows)
  local list = { core.json.encode { about = about } }
  for part, row in pairs(rows) do
    row.part = part
    list[#list + 1] = core.json.encode(row)
  end
  support.write(folder, name .. ".jsonl", "W0000 a warning of some library\n" .. table.concat(list, "\n") .. "\n")
end

-- A run on a card that does 800 TF/s in a product, and an iteration of 1200 TF in `seconds`.
local function measured(folder, seconds, changes)
  local rows = {
    product = { ms = 1, flops = 8e11 }, copy = { ms = 2, bytes = 8e9 },
    ["forward/720"] = { ms = 50, flops = 37e12, peak = 30 * 2 ^ 30 },
    ["iteration/720"] = { ms = 1e3 * seconds, flops = 1200e12 },
    ["fine-tune/720"] = { ms = 2100, flops = 1200e12, peak = 137 * 2 ^ 30 },
  }
  for part, row in pairs(changes or {}) do rows[part] = row end
  lines(folder, "ours", { side = "ours", card = "NVIDIA Card 9", version = "1", size = "full" }, rows)
  lines(folder, "eager", { side = "eager", version = "2" }, { ["iteration/720"] = { ms = 4000 },
    product = { ms = 0.8 } })
  lines(folder, "compiled", { side = "compiled", version = "2" }, { ["iteration/720"] = { ms = 2700 } })
  support.write(folder, "correctness.tsv", "PASS\tmodels\tall of them\n")
end

-- The line of a text that begins with or holds `what`.
local function line_of(text, what)
  for line in text:gmatch "[^\n]+" do
    if line:find(what, 1, true) then return line end
  end
  error(("no line has %q in\n%s"):format(what, text))
end

describe("the table of a GPU", function()
  teardown(support.clean)

  it("compares with PyTorch and with the card's own rates, ours or PyTorch's", function()
    local folder = support.folder()
    measured(folder, 2)
    local code, text = run("table.lua", folder, "tests/gpu/check.sh")
    assert.equal(0, code)
    -- 600 TF/s of the 1000 that PyTorch's product reached
    assert.matches("2000%s+4000%s+2700%s+2.00%s+1.35%s+600 TF/s%s+60 %%", line_of(text, "branches), trained"))
    assert.matches("4000 GB/s%s+100 %%", line_of(text, "copy of 4.0 GiB"))
    assert.matches("^PASS%s.*600 TF/s$", line_of(text, "at least 600 TF/s"))
    assert.matches("^PASS%s.*1.35 times$", line_of(text, "compiled PyTorch"))
    assert.matches("^PASS%s.*137.0 GiB$", line_of(text, "fine-tune in at most"))
    local page = core.file.read(folder .. "/gpu-card-9.md")
    assert.matches("# On NVIDIA Card 9", page, 1, true)
    assert.matches(os.date "!%Y-%m-%d" .. " by\n\n    tests/gpu/check.sh\n", page, 1, true)
  end)

  it("misses targets without failing, and says so", function()
    local folder = support.folder()
    measured(folder, 2.1, { ["fine-tune/720"] = { ms = 1, peak = 140 * 2 ^ 30 } })
    local code, text = run("table.lua", folder, "check")
    assert.equal(0, code)
    assert.matches("^FAIL%s.*571 TF/s$", line_of(text, "at least 600 TF/s"))
    assert.matches("^FAIL%s.*1.29 times$", line_of(text, "compiled PyTorch"))
    assert.matches("^FAIL%s.*140.0 GiB$", line_of(text, "fine-tune in at most"))
  end)

  it("says what is missing, and judges the frozen iteration where the gradients do not fit", function()
    local folder = support.folder()
    measured(folder, 2, { ["iteration/720"] = { failed = "out of device memory" },
      ["fine-tune/720"] = { failed = "out of device memory" },
      ["frozen-iteration/720"] = { ms = 1500, flops = 1200e12 } })
    os.remove(folder .. "/compiled.jsonl")
    local code, text = run("table.lua", folder, "check")
    assert.equal(0, code)
    assert.matches("no memory%s+4000%s+skipped", line_of(text, "two branches), trained"))
    assert.matches("not finished%s+not finished%s+skipped", line_of(text, "transformer forward, 1024²"))
    assert.matches("^PASS%s.*800 TF/s, frozen", line_of(text, "at least 600 TF/s"))
    assert.matches("^not measured", line_of(text, "compiled PyTorch"))
    assert.matches("^not measured", line_of(text, "fine-tune in at most"))
    line_of(text, "failed: ours, fine-tune/720: out of device memory")
  end)

  it("fails with a part about correctness", function()
    for _, verdict in ipairs { "FAIL", "not finished" } do
      local folder = support.folder()
      measured(folder, 2)
      support.write(folder, "correctness.tsv", "PASS\tmodels\tall\n" .. verdict .. "\tcurve\tfar off\n")
      local code, text = run("table.lua", folder, "check")
      assert.equal(1, code)
      assert.matches("^" .. verdict .. "%s+curve%s+far off$", line_of(text, "curve"))
    end
    local code, text = run("table.lua", support.folder(), "check") -- nothing ran at all
    assert.equal(1, code)
    line_of(text, "no part of it left a result")
  end)
end)

describe("the loss curve of a device", function()
  teardown(support.clean)

  it("is refused when another seed made it", function()
    local code, text = run("curve.lua", os.getenv "SYZ", "cpu", support.folder(), "steps=2", "batch=2", "rollout=2",
      "--device-set", "seed=7")
    assert.equal(1, code)
    line_of(text, "FAIL  f32   loss")
    line_of(text, "FAIL  bf16  loss")
  end)
end)

describe("check.sh", function()
  local function check(arguments)
    local out = os.tmpname()
    local code = os.execute(("tests/gpu/check.sh %s >%s 2>&1"):format(arguments, out)) / 256
    local text = core.file.read(out)
    os.remove(out)
    return code, text
  end

  it("refuses what it does not know", function()
    for arguments, said in pairs { ["--fast"] = "unknown flag --fast", ["a b"] = "one build folder, not a and b",
                                   ["--out"] = "--out needs a value", ["nowhere"] = "nowhere holds no build" } do
      local code, text = check(arguments)
      assert.equal(2, code)
      assert.matches(said, text, 1, true)
    end
  end)

  it("says why there is no GPU, with the remedy", function()
    local obstacle = require("syz.cuda").obstacle()
    if not obstacle then return end
    local code, text = check(os.getenv("SYZ"):match("^(.*)/syz$"))
    assert.equal(2, code)
    assert.matches("no GPU can be used: ", text, 1, true)
    assert.matches(obstacle, text, 1, true)
  end)
end)
