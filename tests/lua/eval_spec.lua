local core = require "syz.core"
local checkpoint = require "syz.checkpoint"
local evaluation = require "syz.eval"
local files = require "syz.files"
local judge = require "syz.judge"
local pipeline = require "syz.pipeline"
local support = dofile "tests/lua/support.lua"

local FOLDER = "tests/models/data/pipeline"

-- Scores are the mean of the channel that the text's length chooses; with pairs, as rewards/clip.lua has them.
local function channel_reward()
  local reward = { reads = 0 }
  function reward:image(images)
    self.reads = self.reads + 1
    return images:mean({ 1, 2 })
  end
  function reward.pair(_, features, texts)
    local weights = {}
    for i, text in ipairs(texts) do
      for c = 1, 3 do weights[(i - 1) * 3 + c] = #text % 3 == c - 1 and 1 or 0 end
    end
    return (features * core.tensor(weights, { #texts, 3 })):sum({ 1 })
  end
  function reward:score(images, texts) return self:pair(self:image(images), texts) end
  return reward
end

local function images_of(count, size)
  return core.generator(4):rand({ count, size or 16, size or 16, 3 })
end

local function prompts_of(count)
  local list = {}
  for i = 1, count do list[i] = ("p"):rep(i) end
  return list
end

describe("colour and contrast", function()
  it("are what they are by hand", function()
    core.scope(function()
      local plain = evaluation.drift(core.tensor({ 1, 0.5, 0.5 }):broadcast_to({ 2, 4, 4, 3 }))
      assert.same(2, #plain.saturation)
      assert.near(0.5, plain.saturation[2], 1e-5)
      assert.near(0, plain.contrast[1], 1e-6)
      assert.near(0, plain.sharpness[1], 1e-5)
      local board = {}
      for i = 0, 35 do
        for c = 1, 3 do board[i * 3 + c] = (i % 6 + math.floor(i / 6)) % 2 end
      end
      local checks = evaluation.drift(core.tensor(board, { 1, 6, 6, 3 }))
      assert.near(0, checks.saturation[1], 1e-6)
      assert.near(0.5, checks.contrast[1], 1e-5)
      assert.near(4, checks.sharpness[1], 1e-4) -- the Laplacian of a chess board is +4 or -4 everywhere
    end)
  end)
end)

describe("an evaluation", function()
  local CONTROL = { positive = { "x", "yy", "vvvvvv" }, negative = { "zzz" } }

  it("scores every image under its own texts, in chunks as in one piece", function()
    core.scope(function()
      local count, reward = 70, channel_reward()
      local check = evaluation.new { pipeline = {}, prompts = prompts_of(count), reward = reward, control = CONTROL,
        rewards = { other = channel_reward() } }
      local images = images_of(count)
      local values, each = check:measure(images)
      local means, sum, relative = images:mean({ 1, 2 }):totable(), 0, 0
      local function channel(i, text) return means[(i - 1) * 3 + #text % 3 + 1] end
      for i, prompt in ipairs(check.prompts) do
        local word = CONTROL.positive[i % 3 + 1]
        sum = sum + channel(i, prompt)
        relative = relative + channel(i, word .. ". " .. prompt) - channel(i, "zzz. " .. prompt)
      end
      assert.near(sum / count, values.reward, 1e-6)
      assert.near(relative / count, values.sgp, 1e-6)
      assert.equal(values.reward, values.other)
      assert.equal(values.sgp, values.other_sgp)
      assert.equal(count, #each.sgp)
      assert.equal(3, reward.reads) -- chunks of 32, each read once for all texts
    end)
  end)

  it("names what it measures, and measures what it names", function()
    core.scope(function()
      local reward = { score = function(_, images) return images:mean({ 1, 2, 3 }) end }
      local check = evaluation.new { pipeline = {}, prompts = { "cat", "dog" }, per_prompt = 2, reward = reward,
        rewards = { other = channel_reward() }, control = CONTROL, style = "a",
        judge = judge.new({ "a" }, { "cat" }, 1) }
      assert.same({ "cat", "cat", "dog", "dog" }, check.texts)
      local measured = {}
      for name in pairs((check:measure(images_of(4)))) do measured[#measured + 1] = name end
      table.sort(measured)
      local names, held_out = check:names()
      assert.same(names, measured)
      assert.same({ "judge_style_probability", "other" }, held_out)
    end)
  end)

  it("says nothing of what cannot be told", function()
    core.scope(function()
      local check = evaluation.new { pipeline = {}, prompts = { "cow" }, reward = channel_reward(),
        judge = judge.new({ "a" }, { "cat" }, 1), style = "a" }
      local values = check:measure(images_of(1))
      assert.is_nil(values.sgp) -- no control words
      assert.is_nil(values.judge_subject_accuracy) -- the judge knows no cow
      local mapped = evaluation.new { pipeline = {}, prompts = { "cow" }, subjects = { cow = "cat" },
        judge = judge.new({ "a" }, { "cat" }, 1), style = "a" }
      assert.equal(1, mapped:measure(images_of(1)).judge_subject_accuracy) -- the only class
    end)
  end)

  it("samples the same images for the same seeds, and others for others", function()
    core.scope(function()
      local pipe = pipeline.load(FOLDER, { steps = 2, size = { 16, 16 } })
      local function run(seed)
        return (evaluation.new { pipeline = pipe, prompts = { "a red cat", "two dogs" }, grid = 1, seed = seed,
          reward = channel_reward() }:run())
      end
      assert.same(run(5), run(5))
      assert.are_not.equal(run(5).contrast, run(6).contrast)
    end)
  end)

  it("is refused with one line", function()
    local function refused(fields, words)
      local options = { pipeline = {}, prompts = { "a" } }
      for key, value in pairs(fields) do options[key] = value end
      assert.error_matches(function() evaluation.new(options) end, words)
    end
    refused({ promts = {} }, 'eval has no field "promts"; did you mean "prompts"?')
    refused({ evry = 3 }, 'eval has no field "evry"; did you mean "every"?')
    refused({ seed = "1" }, "eval.seed must be a number, not a string")
    refused({ judge = {} }, "eval.judge needs eval.style")
    refused({ judge = { styles = { "flat" }, style_index = { flat = 0 } }, style = "flatt" },
      'eval.style: the judge knows no style "flatt"; did you mean "flat"?')
    refused({ prompts = {} }, "eval.prompts must be a non%-empty list")
    refused({ per_prompt = 0 }, "eval.per_prompt must be at least 1")
    refused({ rewards = { contrast = channel_reward() } }, '"contrast" is the name of another metric')
    refused({ rewards = { other = {} } }, "eval.rewards.other must be a reward")
  end)
end)

describe("the judge", function()
  it("measures the mean distance of all pairs, and of the pairs of one subject", function()
    core.scope(function()
      local one = judge.new({ "a", "b" }, { "cat", "dog" }, 7)
      local images, subjects = images_of(5), { "cat", "dog", "cat", "cow", "dog" }
      local verdict = one:assess(images, subjects, "b")
      local unit = one:features(images):normalize(1e-8):totable()
      local width, total, within = #unit / 5, 0, 0
      for i = 1, 5 do
        for j = i + 1, 5 do
          local square = 0
          for k = 1, width do square = square + (unit[(i - 1) * width + k] - unit[(j - 1) * width + k]) ^ 2 end
          total = total + math.sqrt(square) / 10
          if subjects[i] == subjects[j] then within = within + math.sqrt(square) / 2 end
        end
      end
      assert.near(total, verdict.diversity, 1e-4)
      assert.near(within, verdict.diversity_per_subject, 1e-4)
      assert.near(verdict.diversity, evaluation.mean(verdict.each.diversity), 1e-9)
      assert.equal(4, #verdict.each.subject) -- the cow is unknown
      assert.near(verdict.style_probability, evaluation.mean(verdict.each.style), 1e-9)
      assert.error_matches(function() one:assess(images, subjects, "oil") end, 'knows no style "oil"; there is a, b')
    end)
  end)
end)

describe("a standard error", function()
  it("is that of paired differences", function()
    assert.near(1 / math.sqrt(3), evaluation.standard_error({ 1, 2, 3 }, { 2, 2, 5 }), 1e-12)
    assert.equal(0, evaluation.standard_error({ 1, 2 }, { 2, 3 }))
    assert.is_nil(evaluation.standard_error({ 1 }, { 2 }))
    assert.is_nil(evaluation.standard_error({ 1, 2 }, { 2, 3, 4 }))
    assert.is_nil(evaluation.standard_error(nil, { 1, 2 }))
  end)
end)

describe("syz eval", function()
  local root = "." -- the recipe names its files from here
  local folder
  setup(function()
    folder = support.folder() .. "/run"
    local code, _, err = support.syz(root, ("run tests/recipes/hacked.lua --quiet --keep 9 --out '%s'"):format(folder))
    assert(code == 0, err)
  end)
  teardown(support.clean)

  local function eval(arguments)
    local code, out, err = support.syz(root, ("eval '%s' --quiet %s"):format(folder, arguments))
    return code, out, err
  end

  it("finds for the run's model what the run's summary says", function()
    local code, out = eval ""
    assert.equal(0, code)
    local result = files.read_json(folder .. "/eval-model.json")
    local summary = files.read_json(folder .. "/summary.json")
    local count = 0
    for name, measured in pairs(result.metrics) do
      assert.equal(summary[name].before, measured.before, name)
      assert.equal(summary[name].after, measured.after, name)
      assert.is_truthy(out:find(name, 1, true))
      count = count + 1
    end
    assert.equal(9, count)
    assert.is_true(core.file.exists(folder .. "/eval-model-after.png") == "file")
  end)

  it("takes a checkpoint, prompts and a seed", function()
    local step = checkpoint.list(folder)[2].step
    local path = support.write(support.folder(), "two words.txt", "a red cat\na blue cup\n")
    local code, out = eval(("--checkpoint %s --seed 9 --prompts '%s' --json"):format(checkpoint.name(step), path))
    assert.equal(0, code)
    local lines = support.lines(out)
    local result = core.json.decode(lines[#lines])
    assert.same({ checkpoint.name(step), 9, 4 }, { result.weights, result.seed, result.images })
    assert.is_number(result.metrics.reward.standard_error)
    assert.same(result, files.read_json(("%s/eval-%s-two-words-seed9.json"):format(folder, result.weights)))
    assert.equal(0, (eval "--checkpoint best"))
    assert.is_truthy(core.file.exists(("%s/eval-%s.json"):format(folder, checkpoint.name(checkpoint.pinned(folder)))))
  end)

  it("takes the best checkpoint of a run that left no model", function()
    core.file.rename(folder .. "/model", folder .. "/elsewhere")
    local code, out = eval "--json"
    core.file.rename(folder .. "/elsewhere", folder .. "/model")
    assert.equal(0, code)
    local lines = support.lines(out)
    assert.equal(checkpoint.name(checkpoint.pinned(folder)), core.json.decode(lines[#lines]).weights)
  end)

  it("answers a mistake with one line", function()
    local function refused(arguments, expected, words)
      local code, out, err = support.syz(root, "eval " .. arguments)
      assert.equal(expected, code, err)
      assert.equal("", out)
      assert.equal(1, #support.lines(err), err)
      assert.is_truthy(err:find(words, 1, true), err)
    end
    refused("tests", 1, "tests holds no run")
    refused(("'%s' --checkpoint step-000777"):format(folder), 2, "has no checkpoint step-000777; there is step-000000")
    refused(("'%s' --prompts none.txt"):format(folder), 2, "none.txt: no such file")
  end)
end)
