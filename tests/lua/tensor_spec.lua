local core = require "syz.core"

local function near(expected, t, tolerance)
  local values = t:totable()
  assert.equal(#expected, #values)
  for i, value in ipairs(expected) do
    assert.is_true(math.abs(value - values[i]) <= (tolerance or 1e-6), ("element %d: %g, not %g"):format(i, values[i],
      value))
  end
end

describe("a tensor", function()
  it("is made from nested and flat tables", function()
    local t = core.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.same({ 2, 3 }, t:shape())
    assert.same({ 1, 2, 3, 4, 5, 6 }, t:totable())
    assert.same({ 3, 2 }, core.tensor({ 1, 2, 3, 4, 5, 6 }, { 3, 2 }):shape())
    assert.equal("i64", core.tensor({ 1, 2 }, "i64"):dtype())
    assert.equal("u8", core.tensor({ 1, 255 }, { 2 }, "u8"):dtype())
    assert.same({}, core.tensor(3):shape())
    assert.equal(3, core.tensor(3):item())
  end)

  it("refuses tables that are no tensor", function()
    assert.error_matches(function() core.tensor { { 1, 2 }, { 3 } } end, "ragged")
    assert.error_matches(function() core.tensor { 1, "a" } end, "numbers expected, found string")
    assert.error_matches(function() core.tensor({ 1, 2 }, { 3 }) end, "do not fill")
    assert.error_matches(function() core.tensor({ 256 }, "u8") end, "does not fit")
    assert.error_matches(function() core.tensor({ 1 }, "f99") end, "unknown dtype")
    assert.error_matches(function() core.zeros { 1, 1, 1, 1, 1, 1, 1 } end, "at most 6")
    assert.error_matches(function() core.zeros { 1.5 } end, "integers")
    assert.error_matches(function() core.zeros { -1 } end, "negative")
    assert.error_matches(function() core.zeros { 2 ^ 40, 2 ^ 40 } end, "address space")
  end)

  it("is filled", function()
    near({ 0, 0 }, core.zeros { 2 })
    near({ 1, 1 }, core.ones { 2 })
    near({ 7, 7 }, core.full({ 2 }, 7, "bf16"))
    near({ 0, 1, 2, 3 }, core.arange(4))
    assert.equal("i64", core.arange(4, "i64"):dtype())
  end)

  it("tells its shape", function()
    local t = core.zeros { 2, 3, 4 }
    assert.equal(3, t:rank())
    assert.equal(24, t:numel())
    assert.equal(3, t:size(1))
    assert.equal(4, t:size(-1))
    assert.error_matches(function() t:size(3) end, "dimension 3 of a tensor with 3")
  end)

  it("converts between dtypes", function()
    local t = core.tensor { -1.5, 0.1, 65504, 1e-6 }
    near({ -1.5, 0.1, 65504, 1e-6 }, t:to "f64", 1e-2)
    near({ -1.5, 0.09997559, 65504, 1.013e-6 }, t:to "f16", 1e-5)
    near({ -1.5, 0.10009766, 65536, 1e-6 }, t:to "bf16", 1e-5)
    assert.equal(t, t:to "f32")
  end)

  it("computes with numbers on either side", function()
    local x = core.tensor { 1, 2, 4 }
    near({ 3, 4, 6 }, x + 2)
    near({ 3, 4, 6 }, 2 + x)
    near({ -1, 0, 2 }, x - 2)
    near({ 1, 0, -2 }, 2 - x)
    near({ 3, 6, 12 }, x * 3)
    near({ 3, 6, 12 }, 3 * x)
    near({ 0.25, 0.5, 1 }, x / 4)
    near({ 4, 2, 1 }, 4 / x)
    near({ 1, 4, 16 }, x ^ 2)
    near({ -1, -2, -4 }, -x)
    near({ 2, 2, 4 }, x:maximum(2))
    near({ 1, 2, 2 }, core.ops.minimum(2, x))
    near({ 2, 4, 8 }, x + x)
    near({ 1, 1, 1 }, x / x)
  end)

  it("has a short summary", function()
    assert.equal("tensor f32 [2,2] mean 2.5 std 1.118 min 1 max 4 {1, 2, 3, 4}",
      tostring(core.tensor { { 1, 2 }, { 3, 4 } }))
    assert.matches("{0, 1, 2, 3, 4, 5, %.%.%.}$", tostring(core.arange(100)))
    assert.equal("tensor f32 [] {3}", tostring(core.tensor(3)))
    assert.equal("tensor f32 [0] {}", tostring(core.zeros { 0 }))
  end)

  it("shares or copies its values", function()
    local t = core.tensor { 1, 2 }
    local alias, copy = t:detach(), t:copy()
    t:assign(core.tensor { 5, 6 })
    near({ 5, 6 }, alias)
    near({ 1, 2 }, copy)
    assert.error_matches(function() t:assign(core.zeros { 3 }) end, "shapes")
  end)

  it("knows whether it is finite, and its hash", function()
    assert.is_true(core.tensor({ 1, 2 }):finite())
    assert.is_false(core.tensor({ 1, 1 / 0 }):finite())
    -- sha256 of four zero bytes
    assert.equal("df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119", core.zeros({ 1 }):hash())
  end)

  it("is freed on request", function()
    local t = core.ones { 2 }
    assert.is_true(t:alive())
    t:free()
    assert.is_false(t:alive())
    assert.equal("tensor (freed)", tostring(t))
    assert.error_matches(function() return t + 1 end, "freed by :free")
  end)

  it("hides its metatable", function()
    assert.equal("tensor", getmetatable(core.ones { 1 }))
    assert.has_error(function() setmetatable(core.ones { 1 }, {}) end)
  end)
end)

describe("gradients", function()
  it("flow back from a scalar and from a seed", function()
    local x = core.tensor({ 1, 2, 3 }):requires_grad(true);
    (x * x):sum():backward()
    near({ 2, 4, 6 }, x:grad())
    local held = x:grad();
    (x * 2):backward(core.tensor { 1, 0, 1 })
    near({ 4, 4, 8 }, x:grad())
    near({ 2, 4, 6 }, held)
    assert.is_nil(x:zero_grad():grad())
    x:set_grad(core.ones { 3 })
    near({ 1, 1, 1 }, x:grad())
    assert.error_matches(function() x:set_grad(core.ones { 2 }) end, "gradient of shape")
  end)

  it("are asked for on leaves only", function()
    local x = core.ones({ 2 }):requires_grad(true)
    assert.is_true((x + 1):requires_grad())
    assert.error_matches(function() (x + 1):requires_grad(false) end, "detach")
    assert.is_false((x + 1):detach():requires_grad())
  end)

  it("are not recorded inside no_grad, which ends with errors too", function()
    local x = core.ones({ 2 }):requires_grad(true)
    local y, z = core.no_grad(function(a, b) return a * b, core.grad_enabled() end, x, 3)
    assert.is_false(y:requires_grad())
    assert.is_false(z)
    assert.error_matches(function() core.no_grad(error, "broken") end, "broken")
    assert.is_true(core.grad_enabled())
  end)
end)

describe("syz.core", function()
  it("is one module, however often it is opened", function()
    local kept = core.tensor { 1, 2 }:keep()
    package.loaded["syz.core"] = nil
    local again = require "syz.core"
    assert.equal(core, again)
    assert.equal(3, again.ops.sum(kept, {}, false):item())
    kept:free()
  end)
end)
