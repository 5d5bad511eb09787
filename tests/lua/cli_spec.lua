local core = require "syz.core"
local args = require "syz.cli.args"
local cli = require "syz.cli"
local files = require "syz.files"
local support = dofile "tests/lua/support.lua"

local command = {
  name = "try", summary = "try", positional = { { name = "FILE" } },
  flags = {
    { name = "set", value = "K=V", many = true, help = "set" },
    { name = "out", short = "o", value = "DIR", help = "out" },
    { name = "resume", value = "DIR", optional = true, help = "resume",
      accepts = function(word) return word == "runs/a" end },
    { name = "guidance", value = "G", kind = "number", help = "guidance" },
  },
}

describe("a command line", function()
  local function parse(...) return args.parse(command, { ... }) end

  it("is read into flags and arguments", function()
    assert.same({ "a.lua", set = { "x=1", "y=2=3" }, out = "d", guidance = 2.5, threads = 2, quiet = true },
      parse("a.lua", "--set", "x=1", "--set=y=2=3", "-o", "d", "--guidance", "2.5", "--threads=2", "-q"))
    assert.same({ "-a.lua" }, parse("--", "-a.lua"))
    assert.same({ "a.lua", out = "" }, parse("a.lua", "--out="))
  end)

  it("may leave out an optional value", function()
    assert.same({ "a.lua", resume = true }, parse("--resume", "a.lua"))
    assert.same({ "a.lua", resume = "runs/a" }, parse("--resume", "runs/a", "a.lua"))
    assert.same({ "a.lua", resume = "b" }, parse("a.lua", "--resume=b"))
    assert.same({ "a.lua", resume = true, quiet = true }, parse("a.lua", "--resume", "-q"))
  end)

  it("is refused with a reason", function()
    local function refused(...) return select(2, parse(...)) end
    assert.equal('unknown flag --ot; did you mean "--out"?', refused("a", "--ot", "x"))
    assert.equal("--out needs a value: --out DIR", refused("a", "--out"))
    assert.equal("--quiet takes no value", refused("a", "--quiet=1"))
    assert.equal('--threads takes a whole number, not "two"', refused("a", "--threads", "two"))
    assert.equal('--seed takes a whole number, not "1.5"', refused("a", "--seed", "1.5"))
    assert.equal('--guidance takes a number, not "nan"', refused("a", "--guidance", "nan"))
    assert.equal("needs FILE", refused())
    assert.equal('does not know what to do with "b"', refused("a", "b"))
  end)
end)

local recipe = [[
local syz = require "syz"
local opt = syz.options { steps = { 6, "steps" }, stop = { 0, "step at which it stops" },
                          way = { "error", "how it stops", { "error", "terminated", "interrupted" } }, seed = 1 }
return { execute = function(_, run)
  local _, first = run:latest()
  local image = syz.full({ 1, 4, 4, 3 }, 0.5)
  if not first then run:sample(0, image, "before") end
  run:prompts { "a <b>bold</b> prompt" }
  for step = (first or 0) + 1, opt.steps do
    if step == opt.stop and opt.way == "error" then error("the loss is not finite") end
    if step == opt.stop then return opt.way end
    run:log(step, { loss = syz.generator(opt.seed, step):number() })
    if step % 2 == 0 then
      run:checkpoint(step, function(folder)
        syz.safetensors.write(folder .. "/w.safetensors", { w = syz.full({ 2 }, step) }, {})
      end)
    end
  end
  run:sample(opt.steps, image * 0.5, "after")
  run:summary { sgp = { before = 0.1, after = 0.3 }, seconds = 1 }
end }
]]

describe("syz", function()
  local folder
  local function syz(arguments) return support.syz(folder, arguments) end
  before_each(function()
    folder = support.folder()
    support.write(folder, "toy.lua", recipe)
  end)
  teardown(support.clean)

  it("alone shows every command", function()
    local code, out, err = syz ""
    assert.equal(0, code)
    assert.equal("", err)
    for _, name in ipairs(cli.commands) do assert.is_truthy(out:find("\n  " .. name, 1, true), name) end
    assert.is_nil(out:find("\27", 1, true))
  end)

  it("helps with every command, with examples where there is something to show", function()
    for _, name in ipairs(cli.commands) do
      local code, out = syz(name .. " --help")
      assert.equal(0, code, name)
      assert.is_truthy(out:find("syz " .. name, 1, true), name)
      assert.is_truthy(out:find("--threads", 1, true), name)
    end
    assert.equal(0, (syz "help run"))
    assert.equal(2, (syz "help rnu"))
  end)

  it("tells its version", function()
    assert.same({ 0, "syz " .. core.version() .. "\n", "" }, { syz "--version" })
    assert.equal(core.version(), core.json.decode(select(2, syz "version --json")).version)
  end)

  it("answers misuse with one line, the nearest name and exit code 2", function()
    local function misuse(arguments, expected)
      local code, out, err = syz(arguments)
      assert.equal(2, code, arguments)
      assert.equal("", out)
      assert.is_truthy(support.lines(err)[1]:find(expected, 1, true), err)
    end
    misuse("rnu toy.lua", 'unknown command "rnu"; did you mean "run"?')
    misuse("toy.lua", "to run a recipe: syz run toy.lua")
    misuse("run toy.lua --resum", 'unknown flag --resum; did you mean "--resume"?')
    misuse("run", "needs RECIPE")
    misuse("run none.lua", "none.lua: no such recipe")
    misuse("run toy.lua --set stesp=2", 'no option "stesp"; did you mean "steps"?')
    misuse("run toy.lua --set steps", '--set takes NAME=VALUE, not "steps"')
    misuse("run toy.lua --resume", "no run of toy under runs/ to resume")
    misuse("sample x", "needs --model DIR")
    misuse("sample x --model a --rollout fp4", "--rollout takes fp8")
    misuse("sample x --model a --compare", "--compare needs --rollout fp8")
    misuse("completion fish", "knows bash and zsh")
  end)

  it("lists what a recipe lets one turn", function()
    local code, out = syz "run toy.lua --help"
    assert.equal(0, code)
    assert.is_truthy(out:find("steps%s+6%s+steps"))
    assert.is_truthy(out:find("how it stops (error, terminated, interrupted)", 1, true))
    assert.is_nil(core.file.exists(folder .. "/runs"))
  end)

  it("takes a recipe's yes/no options as flags", function()
    support.write(folder, "switch.lua", [[
      local syz = require "syz"
      local opt = syz.options { quick = { false, "a short one" }, ledger = { false, "also a flag of run" }, n = 3 }
      return { execute = function(_, run) run:show(("quick %s ledger %s\n"):format(opt.quick, opt.ledger)) end }
    ]])
    assert.equal("quick false ledger false\n", select(2, syz "run switch.lua --out a"))
    assert.equal("quick true ledger false\n", select(2, syz "run --quick switch.lua --out b"))
    assert.equal("quick: true\n", core.file.read(folder .. "/b/config.yaml"):match("quick: %a+\n"))
    assert.equal("quick false ledger false\n", select(2, syz "run switch.lua --ledger --out c"))
    local function misuse(arguments, expected)
      local code, _, err = syz("run switch.lua --out d " .. arguments)
      assert.equal(2, code)
      assert.equal("error: syz run: " .. expected, support.lines(err)[1])
    end
    misuse("--quik", 'unknown flag --quik; did you mean "--quick"?')
    misuse("--n", "unknown flag --n")
    misuse("--quick=false", "--quick takes no value; there is --set quick=false")
    assert.is_nil(core.file.exists(folder .. "/d"))
    assert.is_truthy(select(2, syz "run switch.lua --help"):find("Plain flags: --quick.", 1, true))
  end)

  it("runs a recipe, and repeats it from its folder", function()
    local code, out, err = syz "run toy.lua --set steps=4 --seed 7 --out one"
    assert.equal(0, code, err)
    assert.is_truthy(out:find("sgp  0.1  →  0.3  +0.2", 1, true), out)
    assert.is_truthy(out:find("one/report.html", 1, true))
    assert.same({ "run one" }, support.lines(err))
    code = syz "run one/recipe.lua --config one/config.yaml --out two"
    assert.equal(0, code)
    assert.equal(core.file.read(folder .. "/one/metrics.jsonl"), core.file.read(folder .. "/two/metrics.jsonl"))
    assert.equal("toy", files.read_json(folder .. "/two/run.json").name)
    code, out, err = syz "run toy.lua --out one"
    assert.equal(2, code)
    assert.equal("", out)
    assert.is_truthy(err:find("already holds a run; add --resume", 1, true))
  end)

  it("resumes the newest run with its own settings", function()
    assert.equal(75, (syz "run toy.lua --set stop=4 --set way=terminated --set steps=5"))
    local code, out, err = syz "run toy.lua --resume --set stop=0"
    assert.equal(0, code, err)
    assert.is_truthy(err:find("from step 2", 1, true))
    local name = core.file.list(folder .. "/runs")[1]
    assert.is_truthy(out:find("runs/" .. name .. "/report.html", 1, true))
    assert.equal(5, #support.lines(core.file.read(folder .. "/runs/" .. name .. "/metrics.jsonl")))
  end)

  it("exits with a code that says how it ended", function()
    local code, _, err = syz "run toy.lua --set stop=3 --set way=interrupted --out a"
    assert.equal(130, code)
    assert.is_truthy(err:find("to go on: syz run toy.lua --resume a", 1, true))
    code, _, err = syz "run toy.lua --set stop=3 --out b"
    assert.equal(1, code)
    assert.equal("error: toy.lua:10: the loss is not finite", support.lines(err)[2])
    assert.equal("failed", files.read_json(folder .. "/b/run.json").status)
    support.write(folder, "bad.lua", "return {")
    code, _, err = syz "run bad.lua"
    assert.equal(1, code)
    assert.is_truthy(err:find("^error: bad.lua:1: unexpected symbol"), err)
    assert.equal(1, #support.lines(err))
  end)

  it("logs JSON and nothing else with --json", function()
    local code, out, err = syz "run toy.lua --json --out a"
    assert.equal(0, code)
    assert.equal("", err)
    local steps = 0
    for _, line in ipairs(support.lines(out)) do
      local object = assert(core.json.decode(line))
      if object.step then steps = steps + 1 end
    end
    assert.equal(6, steps)
    assert.equal("finished", core.json.decode(support.lines(out)[#support.lines(out)]).status)
  end)

  it("inspects what it finds", function()
    assert.equal(0, (syz "run toy.lua --out a"))
    local code, out = syz "inspect a"
    assert.equal(0, code)
    assert.is_truthy(out:find("checkpoints  4, 6", 1, true), out)
    code, out = syz "inspect a/checkpoints/step-000006/w.safetensors"
    assert.equal(0, code)
    assert.is_truthy(out:find("parameters  2", 1, true), out)
    assert.is_truthy(out:find("w  F32  [2]", 1, true), out)
    code, out = syz "inspect a/samples/before.png"
    assert.equal(0, code)
    assert.is_truthy(out:find("4 × 4", 1, true), out)
    local err
    code, out, err = syz "inspect none"
    assert.equal("", out)
    assert.equal(1, code)
    assert.is_truthy(err:find("none: no such file or folder", 1, true))
    support.write(folder, "torn.safetensors", "12345")
    code, out, err = syz "inspect torn.safetensors"
    assert.equal(1, code)
    assert.equal("", out)
    assert.equal(1, #support.lines(err))
    assert.is_truthy(err:find("torn.safetensors", 1, true))
  end)

  it("inspects weights of torch.save, and refuses those that are programs", function()
    local data = assert(io.open("tests/unit/data/torch/training.pt", "rb"))
    support.write(folder, "training.ckpt", data:read("*a"))
    data:close()
    local code, out = syz "inspect training.ckpt"
    assert.equal(0, code)
    assert.is_truthy(out:find("training.ckpt  PyTorch weights", 1, true), out)
    assert.is_truthy(out:find("0.weight               F32  [2, 3]", 1, true), out)
    data = assert(io.open("tests/fuzz/corpus/torch/legacy.pt", "rb"))
    local bytes = data:read("*a"):gsub("torch\nFloatStorage", "os\nsystem")
    data:close()
    support.write(folder, "hostile.pt", bytes)
    local err
    code, out, err = syz "inspect hostile.pt"
    assert.equal(1, code)
    assert.equal("", out)
    assert.equal(1, #support.lines(err))
    assert.is_truthy(err:find("GLOBAL at byte %d+ asks for os%.system; nothing is executed"), err)
  end)

  it("examines the machine", function()
    local code, out = syz "doctor --json"
    assert.is_true(code == 0 or code == 1)
    local names = {}
    for _, finding in ipairs(core.json.decode(out)) do names[finding.name] = finding.value end
    for _, name in ipairs { "processor", "threads", "memory", "oneDNN", "LuaJIT", "GPU", "Landlock", "runs/" } do
      assert.is_truthy(names[name], name)
    end
    assert.is_nil(core.file.exists(folder .. "/runs"))
  end)

  it("gives examples whose files exist", function()
    local named = 0
    for _, name in ipairs(cli.commands) do
      for _, example in ipairs(cli.command(name).examples or {}) do
        for path in example:gmatch "%f[%w][%w_]*/[%w_/.-]+" do
          if path:match "^examples/" or path:match "^recipes/" then
            named = named + 1
            assert.is_truthy(core.file.exists(path), example)
          end
        end
      end
    end
    assert.is_true(named > 5)
  end)

  it("completes commands, flags and files in bash", function()
    local _, script = syz "completion bash"
    local path = support.write(folder, "completion", script)
    local function complete(...)
      local words = { ... }
      local try = ("source '%s'; cd '%s'; COMP_WORDS=(%s); COMP_CWORD=%d; _syz; echo ${COMPREPLY[*]}"):format(path,
        folder, "'" .. table.concat(words, "' '") .. "'", #words - 1)
      local pipe = io.popen("bash -c " .. ("%q"):format(try):gsub("%$", "\\$"))
      local line = pipe:read("*l")
      pipe:close()
      return line
    end
    assert.equal("run report", complete("syz", "r"))
    assert.equal("--set --seed", complete("syz", "run", "--se"))
    assert.equal("toy.lua", complete("syz", "run", "t"))
    assert.equal("steps= stop=", complete(os.getenv "SYZ", "run", "toy.lua", "--set", "st"))
    core.file.mkdir(folder .. "/a/checkpoints/step-000020")
    assert.equal("--prompts", complete("syz", "eval", "--p"))
    assert.equal("a", complete("syz", "eval", "a"))
    assert.equal("step-000020", complete("syz", "eval", "a", "--checkpoint", "s"))
    assert.equal("a", complete("syz", "sample", "red apple", "-m", "a"))
    assert.equal("a", complete("syz", "score", "x.png", "-r", "a"))
    assert.equal("bf16", complete("syz", "merge", "a", "b", "c", "--dtype", "b"))
    assert.equal("cuda", complete("syz", "run", "recipes/srpo.lua", "--device", "cu"))
  end)
end)
