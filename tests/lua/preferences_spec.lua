local core = require "syz.core"
local clip = require "syz.rewards.clip"
local data = require "syz.data"
local loss = require "syz.loss"
local optim = require "syz.optim"
local preferences = require "syz.preferences"
local support = dofile "tests/lua/support.lua"

-- A tar archive of {name, content} rows: what a WebDataset is.
local function tar(path, rows)
  local parts = {}
  for _, row in ipairs(rows) do
    local header = row[1] .. ("\0"):rep(100 - #row[1]) .. "0000644\0000000000\0000000000\000"
      .. ("%011o\00000000000000\0"):format(#row[2])
    local head = header .. (" "):rep(8) .. "0" .. ("\0"):rep(100) .. "ustar\00000" .. ("\0"):rep(512)
    head = head:sub(1, 512)
    local sum = 0
    for i = 1, 512 do sum = sum + head:byte(i) end
    parts[#parts + 1] = head:sub(1, 148) .. ("%06o\0 "):format(sum) .. head:sub(157)
    parts[#parts + 1] = row[2] .. ("\0"):rep(-#row[2] % 512)
  end
  core.file.write(path, table.concat(parts) .. ("\0"):rep(1024))
end

local function picture(seed, tint, size)
  local noise = core.generator(seed, 1):rand({ size or 12, size or 12, 3 })
  return noise * 0.4 + core.tensor(tint) * 0.6
end

local WARM, COOL = { 0.9, 0.4, 0.2 }, { 0.2, 0.4, 0.9 }

-- n pairs in a folder: the warm image is preferred, and stands first or second.
local function write_pairs(folder, n)
  local lines = {}
  for i = 1, n do
    for k, tint in ipairs { WARM, COOL } do
      core.image.write(("%s/%d-%d.png"):format(folder, i, k), picture(10 * i + k, tint))
    end
    local names = i % 2 == 0 and { i .. "-1.png", i .. "-2.png" } or { i .. "-2.png", i .. "-1.png" }
    lines[i] = core.json.encode { prompt = "cat " .. i, images = core.array(names), preferred = i % 2 } .. "\n"
  end
  support.write(folder, "pairs.jsonl", table.concat(lines))
  return folder
end

describe("the Bradley-Terry loss", function()
  it("is what the formula gives by hand", function()
    core.scope(function()
      local a, b = core.tensor { 2, 0, -1 }, core.tensor { 0, 0, 2 }
      -- log(1 + exp(-2)) = .126928, log 2 = .693147, log(1 + exp(3)) = 3.048587
      assert.near((0.126928 + 0.693147 + 3.048587) / 3, loss.bradley_terry(a, b):item(), 1e-5)
      -- preferred the other way: log(1 + exp(2)), log 2, log(1 + exp(-3))
      assert.near((2.126928 + 0.693147 + 0.048587) / 3, loss.bradley_terry(a, b, core.zeros { 3 }):item(), 1e-5)
      -- a tie: half of both
      assert.near((1.126928 + 0.693147 + 1.548587) / 3, loss.bradley_terry(a, b, core.full({ 3 }, 0.5)):item(), 1e-5)
    end)
  end)

  it("has the gradient sigmoid(margin) - target, far out too", function()
    core.scope(function()
      local a = core.tensor({ 1, 80, -80 }):requires_grad(true)
      local value = loss.bradley_terry(a, core.zeros { 3 }, core.tensor { 1, 0, 1 })
      value:backward()
      local sigmoid = 1 / (1 + math.exp(-1))
      local expected = { (sigmoid - 1) / 3, 1 / 3, -1 / 3 }
      for i, g in ipairs(a:grad():totable()) do assert.near(expected[i], g, 1e-6) end
      assert.is_true(value:item() < 60)
    end)
  end)
end)

describe("preference pairs", function()
  teardown(support.clean)

  it("are read from a folder, each image once", function()
    local folder = write_pairs(support.folder(), 3)
    core.file.append(folder .. "/pairs.jsonl", core.json.encode {
      prompt = "tie", images = core.array { "1-1.png", "2-1.png" }, preferred = 0.5 } .. "\n")
    local pairs_ = preferences.read(folder)
    assert.equal(4, pairs_:count())
    assert.equal(6, pairs_.images:count())
    local first, second, prompts, target = pairs_:batch { 1, 2, 4 }
    assert.same({ "cat 1", "cat 2", "tie" }, prompts)
    assert.same({ 0, 1, 0.5 }, target:totable())
    local warmth = (first - second):mean({ 1, 2 }):slice(1, 0, 1):totable()
    assert.is_true(warmth[1] < -0.2 and warmth[2] > 0.2 and math.abs(warmth[3]) < 0.1)
  end)

  it("are read from a WebDataset, brought to one size", function()
    local path = support.folder() .. "/pairs.tar"
    tar(path, {
      { "a.0.png", core.image.png(picture(1, WARM)) }, { "a.1.png", core.image.png(picture(2, COOL, 24)) },
      { "a.json", '{"prompt": "a cat", "preferred": 0}' },
    })
    assert.error_matches(function() preferences.read(path) end, "a%.1 is 24x24, the ones before it 12x12; give `size`")
    local pairs_ = preferences.read(path, { size = 12 })
    local first, second, prompts, target = pairs_:batch { 1 }
    assert.same({ 1, 12, 12, 3 }, second:shape())
    assert.same({ "a cat" }, prompts)
    assert.same({ 1 }, target:totable())
    assert.is_true((first:mean({ 1, 2 }) - second:mean({ 1, 2 })):totable()[1] > 0.2)
    local kept = core.image.decode(core.image.png(picture(1, WARM))):totable()
    for i, value in ipairs(first:totable()) do assert.near(kept[i] / 255, value, 1e-6) end
  end)

  local function labelled(styles, subjects)
    local meta, tensors = {}, {}
    for s = 1, subjects do
      for _, style in ipairs(styles) do
        meta[#meta + 1] = { subject = "thing " .. s, style = style }
        tensors[#tensors + 1] = core.full({ 1, 2, 2, 3 }, #meta):to("u8")
      end
    end
    return data.images_of(meta, tensors)
  end

  it("are composed from styles of one subject, in an order that the seed decides", function()
    local images = labelled({ "3d", "flat", "line" }, 20)
    local all = preferences.compose(images, { preferred = { "3d" } })
    assert.equal(40, all:count())
    local firsts = 0
    for _, pair in ipairs(all.list) do
      local winner, loser = pair.first, pair.second
      if pair.target == 0 then winner, loser = loser, winner end
      firsts = firsts + pair.target
      assert.equal("3d", images.meta[winner].style)
      assert.not_equal("3d", images.meta[loser].style)
      assert.equal(images.meta[winner].subject, images.meta[loser].subject)
      assert.equal(pair.prompt, images.meta[winner].subject)
    end
    assert.is_true(firsts > 8 and firsts < 32)
    assert.same(all.list, preferences.compose(images, { preferred = { "3d" } }).list)
    assert.not_same(all.list, preferences.compose(images, { preferred = { "3d" }, seed = 1 }).list)
    assert.equal(20, preferences.compose(images, { preferred = { "3d" }, over = { "flat" } }):count())
  end)

  it("are split by prompt", function()
    local all = preferences.compose(labelled({ "3d", "flat", "line" }, 60), { preferred = { "3d" } })
    local rest, held = all:split(0.25)
    assert.equal(120, rest:count() + held:count())
    assert.is_true(held:count() > 12 and held:count() < 50)
    local seen = {}
    for _, pair in ipairs(rest.list) do seen[pair.prompt] = true end
    for _, pair in ipairs(held.list) do assert.is_nil(seen[pair.prompt]) end
  end)

  it("count hits, ties of the score as halves, ties of the preference not at all", function()
    local images = labelled({ "a", "b", "c" }, 1) -- brightness 1, 2, 3
    local pairs_ = preferences.compose(images, { preferred = { "c" } })
    pairs_.list = {}
    for i, row in ipairs { { 1, 2, 0 }, { 2, 3, 1 }, { 2, 2, 1 }, { 3, 1, 0.5 } } do
      pairs_.list[i] = { prompt = "x", first = row[1], second = row[2], target = row[3] }
    end
    local function brightness(batch) return batch:mean({ 1, 2, 3 }) * 255 end
    local accuracy, value = pairs_:evaluate(brightness, 2)
    assert.near(1.5 / 3, accuracy, 1e-12)
    -- margins -2 (right), -2 (wrong), 0, 4 (a tie): .126928, 2.126928, .693147, (.018150 + 4.018150) / 2
    assert.near((0.126928 + 2.126928 + 0.693147 + 2.018150) / 4, value, 1e-4)
    assert.is_nil(pairs_:prompt_accuracy(brightness))
  end)

  it("tell whether prompts still count", function()
    local all = preferences.compose(labelled({ "3d", "flat" }, 6), { preferred = { "3d" } })
    local function reads(batch, prompts)
      local values, number = {}, (batch:mean({ 1, 2, 3 }) * 255):totable()
      for i, prompt in ipairs(prompts) do
        values[i] = -math.abs(tonumber(prompt:match "%d+") - math.ceil(math.floor(number[i] + 0.5) / 2))
      end
      return core.tensor(values)
    end
    assert.equal(1, all:prompt_accuracy(reads))
    assert.equal(0, all:prompt_accuracy(function(...) return -reads(...) end))
    assert.equal(0.5, all:prompt_accuracy(function(batch) return batch:mean({ 1, 2, 3 }) end))
  end)

  it("are refused with their place when something is wrong", function()
    local folder = write_pairs(support.folder(), 2)
    local function refused(line, expected)
      support.write(folder, "pairs.jsonl", line .. "\n")
      assert.error_matches(function() preferences.read(folder) end, expected)
    end
    refused('{"prompt": "x", "images": ["1-1.png", "1-2.png"], "preferred": 2}',
      "pair 1: preferred must be 0, 1 or 0.5, not 2")
    refused('{"images": ["1-1.png", "1-2.png"], "preferred": 0}', "pair 1: prompt must be a string")
    refused('{"prompt": "x", "images": ["1-1.png"], "preferred": 0}', "images must be two file names")
    refused('{"prompt": "x", "images": ["../a.png", "1-2.png"], "preferred": 0}', "not a file below the folder")
    refused("nonsense", "pair 1: not a JSON object")
    refused("", "it holds no preference pairs")
    assert.error_matches(function() preferences.read(support.folder()) end, "there is no pairs.jsonl in it")
    assert.error_matches(function() preferences.read("no/such") end, 'no preference pairs at "no/such"')
    local images = labelled({ "3d", "flat" }, 1)
    assert.error_matches(function() preferences.compose(images, { preferred = { "3D" } }) end, 'did you mean "3d"')
    assert.error_matches(function() preferences.compose(images, { preferred = { "3d", "flat" } }) end, "no pairs")
    local one = preferences.compose(images, { preferred = { "3d" } })
    assert.error_matches(function() one:split(0.5) end, "too few prompts to split")
  end)
end)

describe("a reward learns preferences", function()
  local folder
  setup(function() folder = support.clip(support.folder(), 3) end)
  teardown(support.clean)

  it("it did not have, and scores new pairs by them", function()
    local reward = clip.load(folder)
    local function score(images, prompts) return (reward:image(images) * reward:encode(prompts)):sum({ 1 }) end
    local train = preferences.read(write_pairs(support.folder(), 24))
    local rest, held = train:split(0.3)
    -- prefer whichever colour the random reward does not
    if held:evaluate(score) > 0.5 then
      for _, pair in ipairs(train.list) do pair.target = 1 - pair.target end
    end
    local before = held:evaluate(score)
    assert.is_true(before <= 0.5)
    reward.model:requires_grad(true)
    local optimizer = optim.adamw { lr = 3e-3, clip = 1 }
    optimizer:bind(reward.model:parameters())
    local batches = data.epochs(rest:count(), 8, 1)
    for step = 1, 40 do
      core.scope(function() rest:loss(score, batches(step), 10):backward() end)
      optimizer:update(step, 40)
    end
    local after = held:evaluate(score)
    assert.is_true(after > 0.9, ("accuracy %g, then %g"):format(before, after))
  end)

  it("by the recipe, which saves what syz.reward.clip loads", function()
    local place = support.folder()
    core.file.mkdir(place .. "/pairs")
    write_pairs(place .. "/pairs", 24)
    local recipe = core.file.real("recipes/reward_preferences.lua")
    local code, out, err = support.syz(place, ("run %s --set reward=%s --set pairs=pairs --set held_out=0.3 "
      .. "--set steps=30 --set lr=3e-3 --set batch=8 --set contrast=0 --out run -q"):format(recipe, folder))
    assert.equal(0, code, err .. out)
    local summary = core.json.decode(core.file.read(place .. "/run/summary.json"))
    assert.equal(24, summary.pairs + summary.held_out_pairs)
    assert.is_true(summary.pair_accuracy.after >= 0.9 and summary.pair_loss.after < summary.pair_loss.before)
    local reward = clip.load(place .. "/run/reward")
    local accuracy = preferences.read(place .. "/pairs"):evaluate(function(images, prompts)
      return reward:score(images, prompts)
    end)
    assert.is_true(accuracy >= 0.9)
    assert.error_matches(function() reward:save(place .. "/run/reward") end, "save it elsewhere")
  end)
end)

describe("the example of a custom reward", function()
  teardown(support.clean)

  it("is climbed by Direct-Align", function()
    local place = support.folder()
    support.write(place, "prompts.txt", "a red cat\ntwo dogs\n")
    local recipe, model = core.file.real("examples/custom_reward.lua"), core.file.real("tests/models/data/pipeline")
    local code, out, err = support.syz(place, ("run %s --set model=%s --set prompts=prompts.txt --set size=16 "
      .. "--set rollout=3 --set steps=8 --set batch=2 --set lr=3e-3 --out run -q"):format(recipe, model))
    assert.equal(0, code, err .. out)
    local summary = core.json.decode(core.file.read(place .. "/run/summary.json"))
    assert.is_true(summary.reward.after > summary.reward.before + 0.05)
  end)
end)
