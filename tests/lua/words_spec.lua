local core = require "syz.core"
local rank = require "syz.rank"
local support = dofile "tests/lua/support.lua"
local words = require "syz.words"

describe("ranks", function()
  it("share the places of ties", function()
    assert.same({ 2.5, 1, 2.5, 4 }, rank.ranks { 3, 1, 3, 9 })
  end)

  it("give the area under the ROC curve, counted by hand", function()
    -- positives 4, 2, 2 against 3, 2, 1: 4 beats three; each 2 beats one and ties one; (3 + 1.5 + 1.5) / 9
    local values, positive = { 4, 3, 2, 2, 2, 1 }, { true, false, true, true, false, false }
    assert.near(6 / 9, rank.auc(values, positive), 1e-12)
    assert.equal(1, rank.auc({ 1, 2, 3, 4 }, { false, false, true, true }))
    assert.equal(0.5, rank.auc({ 7, 7, 7 }, { true, false, true }))
    assert.is_nil(rank.auc({ 1, 2 }, { true, true }))
    assert.is_nil(rank.auc({ 1, 2 }, {}))
  end)

  it("give the same area as counting all pairs, and as the curve itself", function()
    local generator = core.generator(3, 1)
    local values, positive = {}, {}
    for i = 1, 60 do values[i], positive[i] = generator:integer(0, 12), generator:integer(0, 2) == 0 end
    local wins, n = 0, 0
    for i = 1, 60 do
      for j = 1, 60 do
        if positive[i] and not positive[j] then
          n = n + 1
          wins = wins + (values[i] > values[j] and 1 or values[i] == values[j] and 0.5 or 0)
        end
      end
    end
    assert.near(wins / n, rank.auc(values, positive), 1e-12)
    local turned = {}
    for i, value in ipairs(values) do turned[i] = -value end
    assert.near(1 - wins / n, rank.auc(turned, positive), 1e-12)
    local area, points = 0, rank.roc(values, positive)
    for k = 2, #points do
      area = area + (points[k][1] - points[k - 1][1]) * (points[k][2] + points[k - 1][2]) / 2
    end
    assert.near(wins / n, area, 1e-12)
    assert.same({ 1, 1 }, points[#points])
  end)

  it("give Spearman's correlation, worked out by hand", function()
    -- ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24)
    assert.near(0.8, rank.spearman({ 1, 20, 30, 40, 500 }, { 2, 1, 4, 3, 9 }), 1e-12)
    assert.near(-1, rank.spearman({ 1, 2, 3 }, { 9, 4, 1 }), 1e-12)
    assert.is_nil(rank.spearman({ 1, 2, 3 }, { 4, 4, 4 }))
    assert.equal(2, rank.quantile({ 3, 1, 2 }, 0.5))
    assert.equal(1.5, rank.quantile({ 1, 2 }, 0.5))
  end)

  it("refuse what has no order", function()
    assert.error_matches(function() rank.ranks { 1, 0 / 0 } end, "value 2 is .*nan")
    assert.error_matches(function() rank.spearman({ 1 }, { 1, 2 }) end, "not 1 and 2")
  end)
end)

-- Images of two styles, warm and cool, of one subject each; their pixels in place of a data set.
local function colour_images(n)
  local values, meta, generator = {}, {}, core.generator(11, 1)
  for i = 1, n do
    local warm = i % 2 == 1
    meta[i] = { subject = "thing " .. i % 3, style = warm and "warm" or "cool" }
    local base = warm and { 200, 90, 40 } or { 40, 90, 200 }
    for _ = 1, 12 * 12 do
      for c = 1, 3 do values[#values + 1] = math.floor(base[c] + generator:integer(-30, 30)) end
    end
  end
  return {
    meta = meta, count = function() return n end,
    batch = function(self, indices)
      local zero = {}
      for k, index in ipairs(indices) do zero[k] = index - 1 end
      return self.pixels:index_select(0, core.tensor(zero, { #zero }, "i64")):to("f32") / 255
    end,
    pixels = core.tensor(values, { n, 12, 12, 3 }, "u8"):keep(),
  }
end

-- A reward by mean colour: "Red" asks for red, "Blue" for blue, anything else for green; and a bias of its own.
local function colour_reward(bias)
  local reward = {}
  local function weights(texts)
    local rows = {}
    for i, text in ipairs(texts) do
      local column = text:find("^Red") and 0 or text:find("^Blue") and 2 or 1
      for c = 0, 2 do rows[(i - 1) * 3 + c + 1] = c == column and 1 or 0 end
    end
    return core.tensor(rows, { #texts, 3 })
  end
  function reward.text(_, texts) return weights(texts) end
  function reward.image(_, images) return images:mean({ 1, 2 }) end
  function reward.pair(_, features, texts) return (features * weights(texts)):sum({ 1 }) + (bias or 0) end
  function reward:score(images, texts) return self:pair(self:image(images), texts) end
  return reward
end

local function lab(changes)
  local options = { rewards = { colour_reward() }, images = colour_images(12), positive = { "Red", "Blue" },
    negative = { "Blue", "Red" }, wanted = "warm", gradients = 4 }
  for key, value in pairs(changes or {}) do options[key] = value end
  local found = words.lab(options)
  local by_name = {}
  for _, pair in ipairs(found.pairs) do by_name[pair.positive .. "-" .. pair.negative] = pair end
  return found, by_name
end

describe("the lab of control words", function()
  it("finds the pair that separates, and turns round with the pair", function()
    local found, pairs_ = lab()
    assert.equal("Red", found.pairs[1].positive)
    assert.equal("Blue", found.pairs[1].negative)
    assert.equal(1, pairs_["Red-Blue"].auc)
    assert.equal(0, pairs_["Blue-Red"].auc)
    assert.near(0.5, pairs_["Red-Red"].auc, 1e-12)
    assert.is_nil(pairs_["Red-Red"].plain)
  end)

  it("measures directions: orthogonal unit vectors are sqrt 2 apart, equal ones not at all", function()
    local _, pairs_ = lab()
    assert.near(0, pairs_["Red-Blue"].cosine, 1e-6)
    assert.near(math.sqrt(2), pairs_["Red-Blue"].length, 1e-6)
    assert.near(1, pairs_["Red-Blue"].steady, 1e-6)
    assert.near(1, pairs_["Red-Red"].cosine, 1e-6)
    assert.near(0, pairs_["Red-Red"].length, 1e-6)
  end)

  it("does not see a bias of the reward: it cancels", function()
    local _, without = lab()
    local _, with = lab { rewards = { colour_reward(3) } }
    for name, pair in pairs(without) do
      assert.near(pair.auc, with[name].auc, 1e-12)
      for i = 1, 12 do assert.near(pair.srp[i], with[name].srp[i], 1e-5) end
      assert.near(pair.sensitivity, with[name].sensitivity, 1e-6)
    end
  end)

  it("reports a reward that one colour satisfies", function()
    local _, pairs_ = lab()
    -- the gradient is the same in every pixel: all of it is one colour; d(red - blue) against d(green)
    assert.near(1, pairs_["Red-Blue"].uniform, 1e-5)
    assert.near(1, pairs_["Red-Blue"].broad, 1e-5)
    assert.near(math.sqrt(2), pairs_["Red-Blue"].sensitivity, 1e-5)
  end)

  it("asks other rewards whether they agree", function()
    local contrary = colour_reward()
    local pair = contrary.pair
    contrary.pair = function(self, features, texts) return -pair(self, features, texts) end
    local _, alone = lab()
    assert.is_nil(alone["Red-Blue"].agreement)
    local _, same = lab { rewards = { colour_reward(), colour_reward(1) } }
    assert.is_true(same["Red-Blue"].agreement > 0.99)
    local _, against = lab { rewards = { colour_reward(), contrary } }
    assert.near(-1, against["Red-Blue"].agreement, 1e-12)
    assert.same({ 0 }, against["Red-Blue"].other_auc)
  end)

  it("splits a gradient into one colour, a mosaic and the rest", function()
    core.scope(function()
      local one = core.full({ 1, 8, 8, 3 }, 2)
      local norm, broad, uniform = words.gradient_shares(one)
      assert.near(2 * math.sqrt(8 * 8 * 3), norm[1], 1e-4)
      assert.near(1, broad[1], 1e-6)
      assert.near(1, uniform[1], 1e-6)
      -- left half against right half: no colour, all mosaic
      local sign = core.tensor({ 1, 1, 1, 1, -1, -1, -1, -1 }, { 1, 1, 8, 1 })
      local _
      _, broad, uniform = words.gradient_shares(one * sign)
      assert.near(1, broad[1], 1e-6)
      assert.near(0, uniform[1], 1e-6)
      -- a chequerboard: neither
      local fine = core.tensor({ 1, -1, 1, -1, 1, -1, 1, -1 })
      _, broad, uniform = words.gradient_shares(one * fine:reshape({ 1, 8, 1, 1 }) * fine:reshape({ 1, 1, 8, 1 }))
      assert.near(0, broad[1], 1e-6)
      assert.near(0, uniform[1], 1e-6)
    end)
  end)

  it("refuses what it cannot use, by name", function()
    assert.error_matches(function() lab { wanted = "wram" } end, 'no image has style "wram"; did you mean "warm"%?')
    assert.error_matches(function() lab { wanted = { "warm", "cool" } } end, "all images have the wanted style")
    assert.error_matches(function() lab { positive = {} } end, "positive must be a list of words")
    assert.error_matches(function() lab { wnated = "warm" } end, 'unknown field "wnated"; did you mean "wanted"')
  end)
end)

describe("syz words", function()
  local folder, reward
  local function syz(arguments) return support.syz(folder, arguments) end
  setup(function()
    folder = support.folder()
    reward = support.clip(support.folder(), 5)
    local set, lines = colour_images(10), {}
    core.file.mkdir(folder .. "/pictures")
    for i, meta in ipairs(set.meta) do
      local name = ("%02d.png"):format(i)
      core.image.write(folder .. "/pictures/" .. name, set:batch({ i }):reshape({ 12, 12, 3 }))
      lines[i] = core.json.encode { file_name = name, subject = meta.subject, style = meta.style } .. "\n"
    end
    support.write(folder .. "/pictures", "metadata.jsonl", table.concat(lines))
  end)
  teardown(support.clean)

  it("writes a table, a CSV and a page from a folder of images", function()
    local code, out, err = syz("words --reward " .. reward .. " --reward " .. reward
      .. ' --images pictures --wanted warm --positive "Red, Warm" --negative "Blue, a ""cold"", one" --out lab -q')
    assert.equal(0, code, err)
    local rows = support.lines(out)
    assert.matches("^positive%s+negative%s+AUC%s+cosine%s+length%s+steady%s+agree", rows[1])
    assert.equal("lab/words.html", rows[#rows])
    local found = core.json.decode(core.file.read(folder .. "/lab/words.json"))
    assert.equal(6, #found.pairs)
    assert.equal(10, found.images)
    for i, pair in ipairs(found.pairs) do
      assert.near(1, pair.agreement, 1e-12)
      if i > 1 then assert.is_true(pair.auc <= found.pairs[i - 1].auc) end
    end
    assert.equal(7, #support.lines(core.file.read(folder .. "/lab/words.csv")))
    local html = core.file.read(folder .. "/lab/words.html")
    assert.is_nil(html:find("http", 1, true))
    assert.is_truthy(html:find("data:image/png;base64,", 1, true))
    assert.is_truthy(html:find(("%.3f"):format(found.pairs[6].auc), 1, true))
  end)

  it("draws the images itself, once", function()
    support.write(folder, "prompts.txt", "a red cat\ntwo dogs\n")
    local pipeline = core.file.real("tests/models/data/pipeline")
    local arguments = ("words --reward %s --model %s --prompts prompts.txt --positive Real --negative Flat --out drawn "
      .. "--json -q"):format(reward, pipeline)
    local code, out, err = syz(arguments)
    assert.equal(0, code, err)
    local function result(printed)
      local lines = support.lines(printed)
      return core.json.decode(lines[#lines])
    end
    local first = result(out)
    assert.equal(6, first.images)
    assert.equal("word", first.by)
    assert.equal("Real", first.wanted)
    local drawn = core.file.stat(folder .. "/drawn/images/drawn.json")
    local again = result(select(2, syz(arguments)))
    assert.same(first, again)
    assert.same(drawn, core.file.stat(folder .. "/drawn/images/drawn.json"))
    assert.equal(0, (syz((arguments:gsub("Flat", "Painted")))))
    local names = {}
    for line in core.file.read(folder .. "/drawn/images/metadata.jsonl"):gmatch "[^\n]+" do
      names[core.json.decode(line).word] = true
    end
    assert.same({ plain = true, Real = true, Painted = true }, names)
  end)

  it("compares learned tokens with words: fresh ones are their words", function()
    local clip, control = require "syz.rewards.clip", require "syz.control"
    control.learn(clip.load(reward), { positive = "Red", negative = "Blue" }):save(folder .. "/tokens")
    local code, out, err = syz("words --reward " .. reward .. " --images pictures --wanted warm --tokens tokens "
      .. "--positive Red --negative Blue --out lab -q --json")
    assert.equal(0, code, err)
    local lines, by_name = support.lines(out), {}
    for _, pair in ipairs(core.json.decode(lines[#lines]).pairs) do
      by_name[pair.positive .. " " .. pair.negative] = pair
    end
    for _, key in ipairs { "auc", "cosine", "length", "sensitivity", "uniform" } do
      assert.near(by_name["Red Blue"][key], by_name["<positive> <negative>"][key], 1e-9)
      assert.near(by_name["Red Blue"][key], by_name["Red <negative>"][key], 1e-9)
    end
    code, out, err = syz(("words --reward %s --reward %s --images pictures --tokens tokens -q"):format(reward, reward))
    assert.equal(1, code)
    assert.equal("", out)
    assert.is_truthy(err:find("--tokens belong to one reward", 1, true), err)
  end)

  it("says in one line what is missing", function()
    local function refused(code, arguments, expected)
      local got, out, err = syz("words " .. arguments)
      assert.equal(code, got, err)
      assert.equal("", out)
      assert.is_truthy(err:find(expected, 1, true), err)
    end
    refused(1, "", "examples/emoji/reward is no reward: it has no config.json; name a CLIP folder with --reward")
    refused(1, "--reward " .. reward, "emoji64-test.tar: no such images; name a .tar or a folder with --images")
    refused(1, "-q --images pictures --wanted wram --reward " .. reward, 'no image has style "wram"; did you mean')
    refused(2, '--positive ","', "--positive names no word")
    refused(2, "--model x", "--model needs --prompts FILE to draw")
    refused(2, "--model x --images y", "takes --images or --model, not both")
  end)
end)
