local core = require "syz.core"
local recipe = require "syz.recipe"
local support = dofile "tests/lua/support.lua"

describe("a recipe", function()
  local folder
  before_each(function() folder = support.folder() end)
  teardown(support.clean)

  local good = [[
local syz = require "syz"
local opt = syz.options { steps = { 3, "steps" }, lr = 0.1 }
return { execute = function() return opt.steps end }
]]

  it("declares options and returns an experiment", function()
    local loaded = assert(recipe.load(support.write(folder, "good.lua", good),
      { sets = { { key = "steps", value = "5" } } }))
    assert.equal("good", loaded.name)
    assert.equal(5, loaded.values.steps)
    assert.equal(5, loaded.experiment:execute())
    assert.equal(good, loaded.source)
  end)

  it("takes a YAML file, and refuses one that is none", function()
    local path = support.write(folder, "good.lua", good)
    assert.equal(8, assert(recipe.load(path, { config = support.write(folder, "a.yaml", "steps: 8\n") })).values.steps)
    assert.equal(3, assert(recipe.load(path, { config = support.write(folder, "e.yaml", "") })).values.steps)
    local loaded, reason, kind = recipe.load(path, { config = support.write(folder, "b.yaml", "[1, 2]\n") })
    assert.is_nil(loaded)
    assert.equal("usage", kind)
    assert.is_truthy(reason:find("b.yaml", 1, true))
    loaded, reason = recipe.load(path, { config = folder .. "/none.yaml" })
    assert.is_nil(loaded)
    assert.is_truthy(reason:find("none.yaml", 1, true))
  end)

  it("stops after its options when only help is wanted", function()
    local path = support.write(folder, "help.lua", [[
      require("syz").options { steps = { 3, "steps" } }
      error "must not come here"
    ]])
    local loaded = assert(recipe.load(path, { help = true }))
    assert.equal("steps", loaded.declared[1].name)
    assert.is_nil(loaded.experiment)
  end)

  it("is told apart from a misused command line", function()
    local path = support.write(folder, "good.lua", good)
    local _, reason, kind = recipe.load(path, { sets = { { key = "stps", value = "5" } } })
    assert.equal("usage", kind)
    assert.is_truthy(reason:find('did you mean "steps"', 1, true))
    _, reason, kind = recipe.load(folder .. "/none.lua")
    assert.equal("usage", kind)
    assert.is_truthy(reason:find("no such recipe", 1, true))
    _, reason, kind = recipe.load(support.write(folder, "plain.lua", "return { execute = function() end }"),
      { sets = { { key = "a", value = "1" } } })
    assert.equal("usage", kind)
    assert.is_truthy(reason:find("declares no options", 1, true))
  end)

  it("fails with its own file and line", function()
    local function failure(source)
      local path = support.write(folder, "bad.lua", source)
      local loaded, reason, kind = recipe.load(path)
      assert.is_nil(loaded)
      assert.equal("recipe", kind)
      assert.equal(path, reason:sub(1, #path))
      assert.is_nil(reason:find("\n", 1, true))
      return reason:sub(#path + 1)
    end
    assert.equal(":2: oh no", failure "\nerror 'oh no'")
    assert.is_truthy(failure("\n\nlocal x = nil + 1"):find("^:3: attempt to perform arithmetic"))
    assert.is_truthy(failure("return +"):find("^:1: unexpected symbol"))
    -- raised deep in the engine's binding, and told by the recipe's line
    assert.is_truthy(failure("local syz = require 'syz'\nsyz.tensor{1,2} :reshape{3}"):find("^:2: "))
    assert.is_truthy(failure("local syz = require 'syz'\nsyz.options { a = print }"):find("^:2: .*number, boolean"))
    assert.is_truthy(failure("return 3"):find("a recipe ends with", 1, true))
  end)

  it("brings along the files it requires", function()
    support.write(folder, "mine.lua", "return { steps = 4 }")
    local path = support.write(folder, "uses.lua",
      "local mine = require 'mine'\nreturn { execute = function() return mine.steps end }")
    local loaded = assert(recipe.load(path))
    assert.equal(4, loaded.experiment:execute())
    assert.same({ ["mine.lua"] = folder .. "/mine.lua" }, loaded.required)
  end)

  it("in a run's folder bears the name of that run", function()
    support.write(folder, "run.json", core.json.encode { name = "srpo" })
    assert.equal("srpo", recipe.name(folder .. "/recipe.lua"))
    assert.equal("other", recipe.name("recipes/other.lua"))
  end)
end)
