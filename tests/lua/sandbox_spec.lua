local sandbox = require "syz.sandbox"

local function run(source)
  local chunk = assert(load(source, "=attack", "t", sandbox.environment("tests/lua")))
  return pcall(chunk)
end

-- Each must fail, or give nil or false.
local attacks = {
  ["io"] = "return io", ["os.execute"] = "return os.execute", ["os.exit"] = "return os.exit",
  ["os.getenv"] = "return os.getenv", ["package"] = "return package", ["debug"] = "return debug",
  ["jit"] = "return jit", ["ffi"] = "return ffi", ["dofile"] = "return dofile",
  ["loadfile"] = "return loadfile",
  ["getfenv of a C function"] = "return getfenv(print)",
  ["getfenv of the host"] = "return getfenv(0)",
  ["setfenv"] = "return setfenv", ["newproxy"] = "return newproxy", ["module"] = "return module",
  ["gcinfo"] = "return gcinfo",
  ["require ffi"] = 'return require "ffi"', ["require core"] = 'return require "syz.core"',
  ["require a path"] = 'return require "../../etc/passwd"',
  ["require after a 64-bit literal"] = 'local x = 1LL return require "ffi"',
  ["bytecode through load"] = 'return (load("\\27LJ\\2\\0\\0"))',
  ["string.dump"] = "return string.dump", ["dump as a method"] = 'return ("").dump',
  ["the string metatable"] = 'return getmetatable("")',
  ["load reaches globals"] = 'return load("return io")()',
  ["load with an environment of its own"] = 'return load("return io", "x", "b", nil)()',
  ["loadstring reaches globals"] = 'return loadstring("return package")()',
  ["a huge string"] = 'return string.rep("x", 1e12)', ["a huge string as a method"] = 'return ("x"):rep(1e12)',
  ["collectgarbage"] = 'return collectgarbage("stop")',
}

describe("the recipe environment", function()
  for name, source in pairs(attacks) do
    it("refuses " .. name, function()
      local ok, value = run(source)
      assert.is_true(not ok or not value)
    end)
  end

  it("keeps the host's libraries out of reach", function()
    assert.is_true(run('rawset(math, "floor", nil) string.format = nil table.concat = nil'))
    assert.is_function(math.floor)
    assert.is_function(string.format)
    assert.is_function(table.concat)
  end)

  it("keeps ordinary Lua working", function()
    local ok, value = run('local t = {} for w in ("a b"):gmatch("%a") do t[#t + 1] = w:upper() end '
      .. "return table.concat(t) .. math.floor(2.5) .. type(os.time())")
    assert.is_true(ok)
    assert.equal("AB2number", value)
  end)

  it("names a missing recipe", function()
    local chunk, message = sandbox.load("no/such/recipe.lua")
    assert.is_nil(chunk)
    assert.matches("no/such/recipe.lua", message)
  end)
end)
