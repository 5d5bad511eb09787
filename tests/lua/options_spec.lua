local core = require "syz.core"
local nearest = require "syz.nearest"
local options = require "syz.options"

describe("nearest", function()
  it("counts insertions, deletions, changes and swaps of neighbours", function()
    assert.equal(0, nearest.distance("steps", "steps"))
    assert.equal(1, nearest.distance("stps", "steps"))
    assert.equal(1, nearest.distance("setps", "steps"))
    assert.equal(3, nearest.distance("kitten", "sitting"))
    assert.equal(5, nearest.distance("", "steps"))
  end)

  it("names what was meant, and nothing when nothing is close", function()
    local known = { "steps", "seed", "lr", "reward" }
    assert.equal("steps", nearest.nearest("stesp", known))
    assert.equal("reward", nearest.nearest("rew", known))
    assert.is_nil(nearest.nearest("xyzzy", known))
    assert.equal('; did you mean "seed"?', nearest.hint("sed", known))
    assert.equal("; there is lr, reward, seed, steps", nearest.hint("xyzzy", known))
  end)
end)

local spec = {
  steps = { 20, "optimizer steps" }, lr = { 1e-5, "learning rate" }, fast = { false, "skip the evaluation" },
  model = "a/b", words = { { "3D render", "clay" }, "words" }, window = { { 5, 25 }, "from, to" },
  form = { "inversion", "the form", { "inversion", "difference" } },
  even = { 2, "an even number", function(n) return n % 2 == 0, "must be even" end },
}

local function resolve(config, ...)
  local sets = {}
  for i, word in ipairs { ... } do
    local key, value = word:match("^(.-)=(.*)$")
    sets[i] = { key = key, value = value }
  end
  return options.resolve(options.declare(spec), config, sets)
end

describe("options", function()
  it("have their defaults", function()
    local values = assert(resolve())
    assert.equal(20, values.steps)
    assert.equal("a/b", values.model)
    assert.same({ "3D render", "clay" }, values.words)
  end)

  it("take values from YAML, and the command line over YAML", function()
    local values = assert(resolve({ steps = 7, lr = 0.5 }, "steps=9"))
    assert.equal(9, values.steps)
    assert.equal(0.5, values.lr)
  end)

  it("are typed by their default", function()
    local values = assert(resolve(nil, "lr=2e-4", "fast=yes", "words=flat, ink", "window=1,2.5", "model=7"))
    assert.equal(2e-4, values.lr)
    assert.is_true(values.fast)
    assert.same({ "flat", "ink" }, values.words)
    assert.same({ 1, 2.5 }, values.window)
    assert.equal("7", values.model)
    assert.same({ "a, b", "c" }, assert(resolve(nil, 'words=["a, b", c]')).words)
    assert.same({}, assert(resolve(nil, "words=")).words)
  end)

  it("refuse a wrong type in one line", function()
    local function refused(word)
      local values, reason = resolve(nil, word)
      assert.is_nil(values)
      return reason
    end
    assert.equal('--set steps=abc: steps is a number such as 20, not "abc"', refused "steps=abc")
    assert.equal('--set steps=nan: steps is a number such as 20, not "nan"', refused "steps=nan")
    assert.equal('--set fast=maybe: fast is a boolean such as false, not "maybe"', refused "fast=maybe")
    assert.equal('--set window=1,b: window is a list of numbers (a,b,c) such as 5,25, not "1,b"', refused "window=1,b")
    assert.equal('--set form=invesion: form cannot be "invesion"; did you mean "inversion"?', refused "form=invesion")
    assert.equal("--set even=3: even = 3: must be even", refused "even=3")
    assert.equal('--set stesp=3: no option "stesp"; did you mean "steps"?', refused "stesp=3")
    local _, reason = resolve { model = true }
    assert.equal('--config: model is a string such as a/b, not "true"', reason)
  end)

  it("answer with an error to a name that was not declared", function()
    local values = assert(resolve())
    assert.error_matches(function() return values.step end, 'no option "step"; did you mean "steps"%?')
    assert.error_matches(function() values.other = 1 end, 'no option "other"')
  end)

  it("refuse declarations that mean nothing", function()
    assert.error_matches(function() options.declare { f = print } end, "number, boolean, string or list")
    assert.error_matches(function() options.declare { words = { "a", { "b" } } } end, "help")
    assert.error_matches(function() options.declare { words = { { "a", 1 }, "words" } } end, "holds only strings")
    assert.error_matches(function() options.declare { [1] = 2 } end, "names are words")
  end)

  it("come back from YAML as they were", function()
    local declared = options.declare(spec)
    local values = assert(options.resolve(declared, nil, {
      { key = "lr", value = "3.3e-7" }, { key = "words", value = "" }, { key = "model", value = "yes: # no" },
    }))
    local yaml = options.to_yaml(declared, values)
    assert.is_truthy(yaml:find("# learning rate", 1, true))
    local again = assert(options.resolve(declared, core.yaml.decode(yaml)))
    for _, option in ipairs(declared) do assert.same(values[option.name], again[option.name], option.name) end
  end)
end)
