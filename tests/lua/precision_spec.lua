local core = require "syz.core"
local clip = require "syz.rewards.clip"
local evaluation = require "syz.eval"
local pipeline = require "syz.pipeline"
local precision = require "syz.precision"
local support = dofile "tests/lua/support.lua"

-- "bf16" where the processor has such products; elsewhere these tests hold too, but say less.
local LOWER = core.precision "bf16"

describe("exact", function()
  before_each(function() core.precision(LOWER) end)
  teardown(function() core.precision "f32" end)

  it("computes in f32 and leaves the precision as it was", function()
    local inside, second = precision.exact(function(a) return core.precision(), a end, 7)
    assert.equal("f32", inside)
    assert.equal(7, second)
    assert.equal(LOWER, core.precision())
  end)

  it("does so after an error too, and hands the error on", function()
    local raised = { status = "interrupted" }
    local ok, caught = pcall(precision.exact, function() error(raised, 0) end)
    assert.is_false(ok)
    assert.equal(raised, caught)
    assert.equal(LOWER, core.precision())
  end)
end)

describe("what is measured and cached", function()
  teardown(function()
    core.precision "f32"
    support.clean()
  end)

  it("does not depend on the precision of training", function()
    local values, features, folder = {}, {}, support.clip(support.folder(), 1)
    for _, name in ipairs { "f32", LOWER } do
      core.precision(name)
      core.scope(function()
        local reward = clip.load(folder)
        local pipe = pipeline.load("tests/models/data/pipeline", { steps = 2, size = { 16, 16 } })
        features[#features + 1] = reward:text({ "a red cat" }):totable()
        features[#features + 1] = pipe:condition({ "a red cat" }).pooled:totable()
        local check = evaluation.new { pipeline = pipe, prompts = { "a red cat", "two dogs" }, steps = 2 }
        values[#values + 1] = check:run()
      end)
    end
    assert.same(features[1], features[3])
    assert.same(features[2], features[4])
    assert.same(values[1], values[2])
  end)
end)
