local core = require "syz.core"
local console = require "syz.console"
local support = dofile "tests/lua/support.lua"

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

  it("keeps the session when Ctrl-C stops what runs, and ends by SIGTERM", function()
    local folder = support.folder()
    local script = [[cd '%s' && mkfifo in && { XDG_STATE_HOME=. '%s' console <in >out 2>err & } && pid=$! && exec 9>in
      await() { for i in $(seq 200); do grep -q "$1" err && return; sleep 0.05; done; }
      echo 'x = 7 error("ready")' >&9; await ready
      echo 'while true do end' >&9; sleep 0.5; kill -INT $pid; await interrupted
      echo 'print("x is still " .. x)' >&9
      echo 'error("second")' >&9; await second
      echo 'while true do end' >&9; sleep 0.5; kill -TERM $pid; wait $pid; echo $? >code]]
    support.write(folder, "script.sh", script:format(folder, assert(os.getenv "SYZ")))
    os.execute(("bash '%s/script.sh'"):format(folder))
    local function read(name) return core.file.read(folder .. "/" .. name) end
    assert.same({ "error: ready", "error: interrupted", "error: second", "error: interrupted" },
      support.lines(read "err"))
    assert.is_truthy(read "out":find("x is still 7", 1, true))
    assert.equal("143\n", read "code")
    support.clean()
  end)
end)
