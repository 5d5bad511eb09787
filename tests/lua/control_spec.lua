local control = require "syz.control"
local discount = require "syz.discount"

describe("control words", function()
  it("rotate with the step, counted from 0, as in the released code", function()
    local words = control.words(control.released)
    local positive, negative = words(1, "a cat")
    assert.same({ "Detail. a cat", "Painting. a cat" }, { positive, negative })
    positive, negative = words(4, "a cat")
    assert.same({ "Natural-lighting. a cat", "Oil. a cat" }, { positive, negative })
  end)

  it("refuse empty lists and wrong types", function()
    assert.error_matches(function() control.words { positive = {}, negative = { "x" } } end, "control.positive")
    assert.error_matches(function() control.resolve(3) end, "control must be")
    local bad = control.resolve(function() return 1 end)
    assert.error_matches(function() bad(1, "p") end, "two strings")
  end)
end)

describe("discounts", function()
  it("are linspace over the window", function()
    local kappa = discount.resolve({ 0.1, 0.25 }, "kappa")
    assert.near(0.1, kappa(0), 1e-12)
    assert.near(0.25, kappa(1), 1e-12)
  end)

  it("name what is wrong", function()
    assert.error_matches(function() discount.resolve("x", "kappa") end, "kappa must be")
    assert.error_matches(function() discount.resolve(function() return "a" end, "lambda")(0.5) end, "lambda%(0.5%)")
    assert.error_matches(function() discount.resolve(function() return 0 / 0 end, "lambda")(0.5) end, "NaN")
  end)
end)
