--- Offline training: x0 from a folder of pictures or a WebDataset.
local core = require "syz.core"
local files = require "tests.lua.support"
local offline = require "syz.offline"
local srpo = require "syz.methods.srpo"
local support = require "tests.lua.methods_support"

local TAR = "examples/emoji/data/emoji64-test.tar"

--- A folder with one picture per value, each of one grey.
local function folder(values, metadata)
  local path = files.folder()
  core.scope(function()
    for i, value in ipairs(values) do
      core.image.write(("%s/%d.png"):format(path, i), (core.full({ 16, 16, 3 }, value) * 255):to("u8"))
    end
  end)
  if metadata then files.write(path, "metadata.jsonl", metadata) end
  return path
end

describe("offline", function()
  teardown(files.clean)

  it("gives each prompt the picture with its caption", function()
    local path = folder({ 0, 1 },
      '{"file_name": "1.png", "caption": "black"}\n{"file_name": "2.png", "text": "white"}\n')
    core.scope(function()
      local draw = offline.resolve(path, { height = 16, width = 16 })
      local means = draw({ "white", "black", "white" }, core.generator(1)):mean({ 1, 2, 3 }):totable()
      assert.same({ 1, 0, 1 }, means)
      assert.error_matches(function() draw({ "grey" }, core.generator(1)) end,
        'has the caption "grey"; train on its own')
    end)
    assert.same({ "black", "white" }, offline.captions(path))
  end)

  it("draws any picture of a set without captions, by the step's generator", function()
    local path = folder { 0, 0.2, 0.4, 0.6, 0.8, 1 }
    core.scope(function()
      local draw, prompts = offline.resolve(path, { height = 16, width = 16 }), { "a", "b", "c", "d" }
      local function means(seed) return draw(prompts, core.generator(seed)):mean({ 1, 2, 3 }):totable() end
      assert.same(means(1), means(1))
      assert.not_same(means(1), means(2))
    end)
  end)

  it("brings pictures to the pipeline's size, from a WebDataset too", function()
    core.scope(function()
      local picture = offline.resolve(TAR, { height = 16, width = 16 })({ "anything" }, core.generator(1))
      assert.same({ 1, 16, 16, 3 }, picture:shape())
      assert.is_true(picture:mean():item() > 0.1)
    end)
  end)

  it("trains SRPO without a rollout", function()
    local pipe, calls = support.pipeline(3), 0
    local velocity = pipe.velocity
    function pipe.velocity(...)
      calls = calls + 1
      return velocity(...)
    end
    local method = srpo.new { pipeline = pipe, reward = support.linear_reward(), offline = TAR }
    support.step(method)
    assert.equal(2, calls) -- one per branch
    assert.is_true(support.gradient_norm(pipe) > 0)
  end)

  it("says which path is missing", function()
    local options = { pipeline = support.pipeline(3), reward = support.linear_reward(), offline = "no/such/folder" }
    assert.error_matches(function() srpo.new(options) end,
      'offline: there is no folder "no/such/folder"; name an existing folder of images or a .tar')
    options.offline = "no/such.tar"
    assert.error_matches(function() srpo.new(options) end, 'offline: there is no WebDataset "no/such.tar"')
  end)
end)
