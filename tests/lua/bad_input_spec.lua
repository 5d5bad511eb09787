-- Broken models and broken recipes, given to the program itself: one line that names the thing, and the exit code.
local core = require "syz.core"
local support = dofile "tests/lua/support.lua"

local source = core.file.real "tests/models/data/pipeline"

-- The one line of an error, without "error: ".
local function line_of(err)
  local lines = support.lines(err)
  assert.equal(1, #lines, err)
  return (assert(lines[1]:match "^error: (.*)$", err))
end

describe("a broken model", function()
  local folder
  before_each(function()
    folder = support.folder()
    os.execute(("cp -r '%s' '%s/p'"):format(source, folder))
  end)
  teardown(support.clean)

  local function change(path, from, to)
    local name = folder .. "/p/" .. path
    local text, count = core.file.read(name):gsub(from, to)
    assert.is_true(count > 0)
    core.file.write(name, text)
  end
  local function cut(path, size)
    local name = folder .. "/p/" .. path
    core.file.write(name, core.file.read(name):sub(1, size))
  end
  local weights = "transformer/diffusion_pytorch_model.safetensors"

  local cases = {
    ["without weights"] = { function() core.file.remove(folder .. "/p/" .. weights) end,
      "p/transformer: holds no weights" },
    ["with torn weights"] = { function() cut(weights, 90000) end, weights .. ": the tensors end at data byte" },
    ["with empty weights"] = { function() cut(weights, 0) end, weights .. ": has 0 bytes" },
    ["from a clone without Git LFS"] = {
      function() core.file.write(folder .. "/p/" .. weights, "version https://git-lfs.github.com/spec/v1\noid x\n") end,
      "is a Git LFS pointer, not the weights: run `git lfs pull`" },
    ["whose configuration has more layers"] = {
      function() change("transformer/config.json", '"num_layers": 1', '"num_layers": 2') end,
      '"transformer_blocks.1.norm1.linear.weight" is missing' },
    ["whose configuration has another width"] = {
      function() change("transformer/config.json", '"num_attention_heads": 2', '"num_attention_heads": 4') end,
      "has shape [16,256], the configuration expects [32,256]" },
    ["with a torn configuration"] = { function() cut("vae/config.json", 60) end, "p/vae/config.json:" },
    ["without a scheduler"] = { function() core.file.remove_tree(folder .. "/p/scheduler") end,
      "p/scheduler/scheduler_config.json: cannot open" },
    ["with a torn scheduler"] = { function() cut("scheduler/scheduler_config.json", 30) end,
      "p/scheduler/scheduler_config.json: JSON line 2" },
    ["with a torn index"] = { function() cut("model_index.json", 30) end, "p/model_index.json: JSON line 2" },
    ["without a part"] = { function() core.file.remove_tree(folder .. "/p/vae") end,
      "p lacks the folder vae with the weights of AutoencoderKL" },
    ["with another model in a part's place"] = {
      function()
        core.file.remove_tree(folder .. "/p/transformer")
        os.execute(("cp -r '%s/p/vae' '%s/p/transformer'"):format(folder, folder))
      end, "p/transformer holds AutoencoderKL weights; those of FluxTransformer2DModel are needed there" },
    ["without merges"] = { function() core.file.remove(folder .. "/p/tokenizer/merges.txt") end,
      "p/tokenizer/merges.txt: cannot open" },
    ["with another model's tokenizer"] = {
      function()
        os.execute(("cp tests/models/data/clip_text_b/* '%s/p/text_encoder'"):format(folder))
        change("text_encoder/config.json", '"CLIPTextModelWithProjection"', '"CLIPTextModel"')
        core.scope(function()
          local path = folder .. "/p/text_encoder/model.safetensors"
          local tensors = core.safetensors.read(path)
          tensors["text_projection.weight"] = nil
          core.safetensors.write(path .. ".new", tensors, {})
          core.file.rename(path .. ".new", path)
        end)
      end, "they do not belong together" },
    ["that lacks a shard"] = {
      function()
        local shard = "diffusion_pytorch_model-00001-of-00002.safetensors"
        core.file.rename(folder .. "/p/" .. weights, folder .. "/p/transformer/" .. shard)
        core.file.write(folder .. "/p/" .. weights .. ".index.json", core.json.encode { weight_map = {
          ["x_embedder.bias"] = shard, zzz = "diffusion_pytorch_model-00002-of-00002.safetensors" } })
      end, "p/transformer/diffusion_pytorch_model-00002-of-00002.safetensors: cannot open" },
  }
  for name, case in pairs(cases) do
    it(name .. " is named", function()
      case[1]()
      local code, out, err = support.syz(folder, "sample -q --model p --prompt cat --n 1 --steps 1")
      assert.equal(1, code, err)
      assert.equal("", out)
      assert.is_truthy(line_of(err):find(case[2], 1, true), err)
      assert.is_nil(core.file.exists(folder .. "/sample.png"))
    end)
  end

  it("is told from a path that is no model at all", function()
    for path, expected in pairs { nowhere = "nowhere: no such folder", ["p/model_index.json"] = "is a file",
                                  ["p/vae"] = "is not a pipeline folder" } do
      local code, _, err = support.syz(folder, "sample -q --prompt cat --model " .. path)
      assert.equal(1, code)
      assert.is_truthy(line_of(err):find(expected, 1, true), err)
    end
    local code, _, err = support.syz(folder, "score --reward p --prompt cat x.png")
    assert.equal(1, code)
    assert.is_truthy(line_of(err):find("p is a pipeline folder; a reward's folder holds a CLIPModel", 1, true))
  end)

  it("is shown as far as it goes by inspect, which fails", function()
    core.file.remove_tree(folder .. "/p/vae")
    cut("transformer/config.json", 60)
    local code, out = support.syz(folder, "inspect p")
    assert.equal(1, code)
    assert.is_truthy(out:find("Broken", 1, true))
    assert.is_truthy(out:find("vae +is not there"))
    assert.is_truthy(out:find("p/transformer/config.json: JSON line", 1, true))
    assert.is_truthy(out:find("text_encoder", 1, true))
    assert.equal(0, (support.syz(folder, "inspect '" .. source .. "'")))
  end)

  it("does not cost a picture that was asked for at an impossible place", function()
    for path, expected in pairs { ["a.gif"] = "images are saved as", ["no/a.png"] = "there is no folder no" } do
      local code, _, err = support.syz(folder, "sample -q --model p --prompt cat --out " .. path)
      assert.equal(2, code)
      assert.is_truthy(err:find(expected, 1, true), err)
    end
  end)
end)

describe("a text", function()
  local folder
  before_each(function() folder = support.folder() end)
  teardown(support.clean)

  it("of ten thousand characters is cut, and that is said once", function()
    local prompt = ("red cat "):rep(1250)
    local code, _, err = support.syz(folder, ("sample -q --model '%s' -p '%s' -p '%s' --n 1 --steps 1"):format(source,
      prompt, prompt .. "x"))
    assert.equal(0, code, err)
    local lines = support.lines(err)
    assert.equal(1, #lines, err)
    assert.is_truthy(lines[1]:find("tokens and the pipeline's text encoder reads 12", 1, true), err)
  end)

  it("that is not UTF-8 is named", function()
    local code, _, err = support.syz(folder, ("sample -q --model '%s' -p 'caf\233' --n 1 --steps 1"):format(source))
    assert.equal(1, code)
    assert.is_truthy(line_of(err):find('the text "caf?" cannot be read: text is not UTF-8', 1, true), err)
  end)
end)

describe("a broken recipe", function()
  local folder
  before_each(function() folder = support.folder() end)
  teardown(support.clean)

  local head = 'local syz = require "syz"\nlocal opt = syz.options { steps = { 2, "steps" } }\n'
  local cases = {
    ["a syntax error"] = { "local x = = 3", "r.lua:3: unexpected symbol near '='" },
    ["nil indexed in a function"] = { "local function f(x) return x.y end\nlocal y = f()\nreturn y",
      "r.lua:3: attempt to index local 'x' (a nil value)" },
    ["a misspelt option"] = { "print(opt.stesp)",
      'r.lua:3: this recipe declares no option "stesp"; did you mean "steps"?' },
    ["a misspelt function"] = { "syz.trian {}", 'r.lua:3: there is no syz.trian; did you mean "train"?' },
    ["a misspelt method"] = { "local x = syz.methods.spro",
      'r.lua:3: there is no syz.methods.spro; did you mean "srpo"?' },
    ["a misspelt field in a returned call"] = { 'return syz.train {\n  metod = {},\n}',
      'r.lua:3: syz.train has no field "metod"; did you mean "method"?' },
    ["half a step"] = { "return syz.train { method = {}, prompts = {}, optimizer = {}, steps = 1.5 }",
      "r.lua:3: syz.train: steps must be a whole number from 1, not 1.5" },
    ["an empty batch"] = { "return syz.train { method = {}, prompts = {}, optimizer = {}, steps = 1, batch = 0 }",
      "r.lua:3: syz.train: batch must be a whole number from 1, not 0" },
    ["a value of the wrong type"] = { 'local o = syz.adamw { lr = "fast" }\nreturn o',
      'r.lua:3: adamw: lr must be a number, not "fast"' },
    ["a value out of range"] = { 'local o = syz.adamw { lr = -1 }\nreturn o',
      "r.lua:3: adamw: lr must be a finite number from 0, not -1" },
    ["a misspelt field of a schedule"] = { "local s = syz.schedule.flow { step = 3 }\nreturn s",
      'r.lua:3: syz.schedule.flow has no field "step"; did you mean "steps"?' },
    ["a table as error"] = { "error { code = 3 }", "r.lua:3: a table was raised as error; raise a text" },
    ["a lying table as error"] = { 'error(setmetatable({}, { __tostring = function() error "deep" end }))',
      "r.lua:3: a table was raised as error; raise a text" },
    ["nothing as error"] = { "error()", "r.lua:3: an error without a message" },
    ["an error of several lines"] = { 'error "one\\ntwo\\27[31m"', "r.lua:3: one two [31m" },
    ["no experiment"] = { "local x = 3", "r.lua: a recipe ends with `return syz.train { ... }`" },
    ["a number as experiment"] = { "return 3", "r.lua: a recipe ends with `return syz.train { ... }`" },
    ["recursion without end"] = { "local function f() return 1 + f() end\nf()",
      "stack overflow: a function calls itself without end" },
    ["a string of many gigabytes"] = { 'local s = ("x"):rep(1e12)', "r.lua:3: string.rep: the result would exceed" },
    ["a tensor of many terabytes"] = { "local t = syz.zeros { 1e15 }",
      "r.lua:3: out of memory: 4000000000000000 bytes" },
    ["a missing prompts file"] = { 'local p = syz.prompts "none.txt"\nreturn p',
      "r.lua:3: none.txt: cannot open: No such file or directory" },
    ["a file that it has not"] = { 'require "helper"', 'r.lua:3: require "helper": there is no ./helper.lua' },
  }
  for name, case in pairs(cases) do
    it("with " .. name .. " fails with its line", function()
      support.write(folder, "r.lua", head .. case[1] .. "\n")
      local code, _, err = support.syz(folder, "run r.lua --out o")
      assert.equal(1, code, err)
      assert.is_truthy(line_of(err):find(case[2], 1, true), err)
      assert.is_nil(core.file.exists(folder .. "/o"))
    end)
  end

  it("whose data outgrow the memory limit fails with its line, also after it caught the error", function()
    support.write(folder, "r.lua", "local function grow()\n  local t = {}\n  while true do t[#t + 1] = {} end\nend\n"
      .. "print(pcall(grow))\nlocal x = grow()\nreturn x\n")
    local program = assert(os.getenv "SYZ")
    local command = ("cd '%s' && SYZ_LUA_MEMORY=40 '%s' run r.lua >out 2>err; echo $? >code"):format(folder, program)
    os.execute(command)
    assert.equal("1\n", core.file.read(folder .. "/code"))
    assert.equal("r.lua:3: Lua data outgrew 40 MiB (SYZ_LUA_MEMORY sets the limit; keep bulk data in tensors)",
      line_of(core.file.read(folder .. "/err")))
    assert.is_truthy(core.file.read(folder .. "/out"):find("false\tr.lua:3: Lua data outgrew", 1, true))
  end)

  it("whose experiment fails leaves a run that says why", function()
    for body, expected in pairs {
      ["local x = nil\n  return x.y"] = "r.lua:3: attempt to index local 'x' (a nil value)",
      ["error { 1 }"] = "r.lua:2: a table was raised as error; raise a text",
    } do
      support.write(folder, "r.lua", "return { execute = function()\n  " .. body .. "\nend }\n")
      local code, _, err = support.syz(folder, "run r.lua --out o")
      assert.equal(1, code)
      local lines = support.lines(err)
      assert.is_truthy(lines[#lines]:find(expected, 1, true), err)
      local record = core.json.decode(core.file.read(folder .. "/o/run.json"))
      assert.equal("failed", record.status)
      assert.is_truthy(record.reason:find(expected, 1, true))
      core.file.remove_tree(folder .. "/o")
    end
  end)

  it("is told from what is no recipe", function()
    core.file.mkdir(folder .. "/d")
    support.write(folder, "d/recipe.lua", "return 1")
    support.write(folder, "binary.lua", "\27LJ\2\0")
    for path, expected in pairs { ["none.lua"] = "none.lua: no such recipe",
                                  d = "d is a folder, a recipe is a .lua file: its recipe is d/recipe.lua" } do
      local code, _, err = support.syz(folder, "run " .. path)
      assert.equal(2, code)
      assert.equal(expected, line_of(err))
    end
    local code, _, err = support.syz(folder, "run binary.lua")
    assert.equal(1, code)
    assert.equal("binary.lua: not Lua text (a recipe is a text file)", line_of(err))
  end)
end)
