--- Recipes on the emulated GPU, run by the program: the numbers of the CPU, its files, and one clear line where there
--- is no such device.
local core = require "syz.core"
local files = require "syz.files"
local support = dofile "tests/device/support.lua"

local TINY = "tests/recipes/tiny.lua"

local run, close, weights_apart = support.run, support.close, support.weights_apart

describe("a recipe on a GPU", function()
  teardown(support.clean)

  it("has the loss curve of the CPU, and says what its memory was used for", function()
    local wanted = run(TINY, "--quiet")
    local found, err = run(TINY, "--device cuda")
    close(found, wanted, 1e-4)
    assert.is_true(weights_apart(found, wanted) < 2e-3)
    local choice = 'memory = "auto": activations are kept in transformer, vae; checkpointed in none'
    assert.is_truthy(err:find(choice, 1, true), err)
    local line = "cuda:0  peak memory [^\n]*%(weights .*, gradients .*, optimizer .*, activations .*%)"
    assert.is_truthy(err:find(line), err)
    local record = files.read_json(found .. "/run.json")
    assert.equal("cuda:0", record.device)
    local memory = files.read_json(found .. "/summary.json").device_memory
    assert.same(memory, record.device_memory)
    local parameters = core.model.load("tests/models/data/pipeline/transformer"):numel()
    assert.is_true(memory.gradients >= 4 * parameters and memory.optimizer >= 8 * parameters)
    assert.is_true(memory.peak >= memory.weights + memory.optimizer)
    assert.equal("cuda:0", files.read_json(found .. "/env.json").device)
    assert.equal("cpu", files.read_json(wanted .. "/run.json").device)
  end)

  local kinds = {
    lora = "--set rank=3 --set ema=0.8", grpo = "--set method=grpo --set steps=3",
    bf16 = "--set dtype=bf16 --set ema=0.8", ["8 bit"] = "--set moments=8bit",
  }
  for name, settings in pairs(kinds) do
    it("has it too with " .. name, function()
      local wanted, found = run(TINY, "--quiet " .. settings), run(TINY, "--quiet --device cuda " .. settings)
      close(found, wanted, name == "bf16" and 0.1 or 1e-4)
    end)
  end

  it("keeps the files of the CPU: a run goes on there, and back", function()
    local wanted = run(TINY, "--quiet")
    local folder = run(TINY, "--quiet --set steps=2")
    local config = "--config '" .. folder .. "/config.yaml'"
    run(TINY, ("--quiet --resume %s --device cuda --set steps=4"):format(config), folder)
    assert.equal("cuda:0", files.read_json(folder .. "/run.json").device)
    local _, err = run(TINY, ("--resume %s --set device=cpu --set steps=6"):format(config), folder)
    assert.is_truthy(err:find("from step 4", 1, true), err)
    assert.equal("cpu", files.read_json(folder .. "/run.json").device)
    assert.equal(6, files.read_json(folder .. "/summary.json").steps)
    assert.is_true(weights_apart(folder, wanted) < 2e-3)
  end)

  it("goes on where it ran", function()
    local folder = run(TINY, "--quiet --set device=cuda --set steps=2")
    run(TINY, ("--quiet --resume --config '%s/config.yaml' --set steps=4"):format(folder), folder)
    assert.equal("cuda:0", files.read_json(folder .. "/run.json").device)
  end)

  it("ends in one line when the GPU is full, and goes on from the last checkpoint when it is not", function()
    local wanted = run(TINY, "--quiet --device cuda")
    local folder, err, _, code = run(TINY, "--quiet --device cuda --set full=9")
    assert.equal(1, code)
    assert.is_truthy(err:find("out of memory on cuda:0: .* asked, .* in use .*; what helps: "), err)
    assert.equal(1, #support.lines(err), err)
    assert.is_falsy(core.file.exists(folder .. "/summary.json"))
    local _, resumed, _, again = run(TINY, "--device cuda --resume --set full=0", folder)
    assert.equal(0, again)
    assert.is_truthy(resumed:find("from step 2", 1, true), resumed)
    assert.equal(6, files.read_json(folder .. "/summary.json").steps)
    assert.equal(0, weights_apart(folder, wanted))
  end)

  it("may name the device itself; the command line comes first", function()
    local folder = support.folder()
    local source = core.file.read(TINY):gsub("return syz.train {", '%0 device = "cuda:1", memory = "checkpoint",')
    local recipe = support.write(folder, "recipe.lua", source)
    local found = run(recipe, "--quiet --set steps=1")
    assert.equal("cuda:1", files.read_json(found .. "/run.json").device)
    local wanted, err = run(recipe, "--set steps=1 --device cpu")
    assert.equal("cpu", files.read_json(wanted .. "/run.json").device)
    assert.is_nil(err:find("memory =", 1, true))
    close(found, wanted, 1e-4)
  end)

  it("is one line when there is no such device", function()
    local line = "there is no device cuda:7: this machine has cuda:0 to cuda:1"
    for _, flags in ipairs { "--device cuda:7", "--set device=cuda:7" } do
      local _, err, _, code = run(TINY, flags)
      assert.equal(2, code)
      assert.equal("error: " .. line .. "\n", err)
    end
    local recipe = support.write(support.folder(), "recipe.lua",
      (core.file.read(TINY):gsub("return syz.train {", '%0 device = "cuda:7",')))
    local _, err, _, code = run(recipe)
    assert.equal(1, code)
    assert.is_truthy(err:find("recipe.lua:%d+: " .. line), err)
  end)

  it("tries itself there", function()
    local code, out, err = support.syz(".", "run " .. TINY .. " --dry-run --device cuda --json --quiet")
    assert.equal(0, code, err)
    local report = core.json.decode(out:match "([^\n]+)\n$")
    assert.equal("cuda:0", report.device)
    assert.is_true(report.uses.weights > 0 and report.uses.peak == report.peak)
    local _, wanted = support.syz(".", "run " .. TINY .. " --dry-run --device cpu --json --quiet")
    assert.equal(core.json.decode(wanted:match "([^\n]+)\n$").flops, report.flops)
  end)
end)
