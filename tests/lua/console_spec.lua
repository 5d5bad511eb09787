local console = require "syz.console"

describe("the console", function()
  local env = { syz = { pipeline = print, prompts = print }, x = 3, math = math }

  it("compiles expressions, statements and unfinished input", function()
    assert.equal(4, console.compile("=x + 1", env)())
    assert.equal(4, console.compile("x + 1", env)())
    assert.is_function(console.compile("y = 2", env))
    local chunk, _, incomplete = console.compile("for i = 1, 3 do", env)
    assert.is_nil(chunk)
    assert.is_true(incomplete)
    assert.is_true(select(3, console.compile("1 +", env)))
    local _, message, more = console.compile("x x", env)
    assert.is_string(message)
    assert.is_false(more)
  end)

  it("completes names, fields and methods of tensors", function()
    assert.same({ "math" }, console.candidates(env, "mat"))
    assert.same({ "syz.pipeline", "syz.prompts" }, console.candidates(env, "syz.p"))
    env.t = require("syz.core").zeros({ 2 })
    assert.same({ "t:softmax" }, console.candidates(env, "t:softm"))
  end)

  it("shows one level of a table", function()
    assert.equal('{\n  [1] = 5\n  name = "n"\n}', console.show_value({ 5, name = "n" }))
    assert.equal("{}", console.show_value({}))
  end)
end)
