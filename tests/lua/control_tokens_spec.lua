local core = require "syz.core"
local clip = require "syz.rewards.clip"
local control = require "syz.control"
local loss = require "syz.loss"
local optim = require "syz.optim"
local rank = require "syz.rank"
local schedule = require "syz.schedule"
local srpo = require "syz.methods.srpo"
local pipeline = require "syz.pipeline"
local support = dofile "tests/lua/support.lua"

local function distance(a, b) return (a - b):abs():sum():item() end

describe("learned control tokens", function()
  local folder, reward
  setup(function()
    folder = support.clip(support.folder(), 3)
  end)
  before_each(function() reward = clip.load(folder) end)
  teardown(support.clean)

  local function learn(changes)
    local options = { positive = "real", negative = "flat" }
    for key, value in pairs(changes or {}) do options[key] = value end
    return control.learn(reward, options)
  end

  it("say at their start exactly what their words say, wherever they stand in a text", function()
    local tokens = learn():attach(reward)
    local plain = clip.load(folder)
    core.scope(function()
      for _, text in ipairs { "%s. a red cat", "a %s cat", "two %s", "%s" } do
        for name, word in pairs { ["<positive>"] = "real", ["<negative>"] = "flat" } do
          assert.equal(0, distance(reward:text({ text:format(name) }), plain:text({ text:format(word) })), text)
        end
      end
      assert.equal(0, distance(reward:text({ "<positive>. <negative> dogs" }), plain:text({ "real. flat dogs" })))
      assert.equal(0, distance(reward:text({ "no token" }), plain:text({ "no token" })))
    end)
    assert.same({ "<positive>. a cat", "<negative>. a cat" }, { tokens:texts("a cat") })
    assert.same({ "<positive>", "<negative>" }, { tokens:texts("") })
  end)

  it("repeat their words to the length asked for, and are cut where a text is full", function()
    local tokens = learn { length = 4 }:attach(reward)
    local plain = clip.load(folder)
    assert.equal(2, #reward.tokenizer:encode("real"))
    assert.same({ 4, 16 }, tokens.module:param("<positive>"):shape())
    assert.same({ 4, 16 }, tokens.module:param("<negative>"):shape())
    core.scope(function()
      assert.equal(0, distance(reward:text({ "<positive>. cat" }), plain:text({ "real real. cat" })))
      -- of 14 places all but two are taken: half of the token is left
      local taken = "real real real real real real"
      assert.equal(12, #reward.tokenizer:encode(taken))
      assert.equal(0, distance(reward:text({ taken .. " <positive> cat" }), plain:text({ taken .. " real" })))
    end)
  end)

  it("are forgotten by the reward's cache when they move", function()
    local tokens = learn():attach(reward)
    local before = reward:text({ "<positive>. cat" }):totable()
    local other = reward:text({ "cat" })
    core.scope(function()
      local moved = tokens.module:param("<positive>")
      moved:assign(moved * 2)
    end)
    assert.same(before, reward:text({ "<positive>. cat" }):totable())
    tokens:attach(reward)
    assert.not_same(before, reward:text({ "<positive>. cat" }):totable())
    assert.equal(other, reward:text({ "cat" }))
  end)

  -- Two sets of images that differ in colour only: what words of a random tower say about them is chance.
  local function image_features(warm, seed)
    return core.no_grad(core.scope, function()
      local noise = core.generator(seed, 1):rand({ 12, 12, 12, 3 })
      local tint = core.tensor(warm and { 0.9, 0.4, 0.2 } or { 0.2, 0.4, 0.9 })
      return reward:image(noise * 0.5 + tint * 0.5)
    end)
  end

  local function auc(tokens, wanted, unwanted, prompts)
    local values, positive = tokens:scores(reward, wanted, prompts), {}
    for i in ipairs(values) do positive[i] = true end
    for _, value in ipairs(tokens:scores(reward, unwanted, prompts)) do values[#values + 1] = value end
    return rank.auc(values, positive)
  end

  it("learn to tell two sets of images apart, also new ones", function()
    local prompts = {}
    for i = 1, 12 do prompts[i] = i % 2 == 0 and "a red cat" or "two dogs" end
    -- from whichever side says the wrong thing, so that there is something to learn
    local tokens = learn { length = 2 }:attach(reward)
    local warm, cool, new_warm, new_cool = image_features(true, 1), image_features(false, 2), image_features(true, 3),
      image_features(false, 4)
    local wanted, unwanted, new_wanted, new_unwanted = warm, cool, new_warm, new_cool
    if auc(tokens, warm, cool, prompts) > 0.5 then
      wanted, unwanted, new_wanted, new_unwanted = cool, warm, new_cool, new_warm
    end
    assert.is_true(auc(tokens, wanted, unwanted, prompts) <= 0.5)
    tokens.module:requires_grad(true)
    local optimizer = optim.adamw { lr = 0.02, weight_decay = 0 }
    optimizer:bind(tokens.module:parameters())
    local weights = reward.model:param("text_projection.weight"):hash()
    local first, last
    for step = 1, 60 do
      core.scope(function()
        local margin = tokens:srp(reward, wanted, prompts):reshape({ 12, 1 })
          - tokens:srp(reward, unwanted, prompts):reshape({ 1, 12 })
        local value = loss.softplus(-margin / 0.1):mean()
        value:backward()
        last = value:item()
        first = first or last
      end)
      optimizer:update(step, 60)
    end
    assert.is_true(last < first / 2, ("loss %g, then %g"):format(first, last))
    assert.is_true(auc(tokens, new_wanted, new_unwanted, prompts) > 0.95)
    assert.equal(weights, reward.model:param("text_projection.weight"):hash())
  end)

  it("go into a folder in the layout of textual inversion and come back", function()
    local tokens, path = learn { length = 3 }, support.folder() .. "/tokens"
    tokens:save(path)
    local stored = core.safetensors.read(path .. "/learned_embeds.safetensors")
    assert.same({ 3, 16 }, stored["<positive>"]:shape())
    local again = control.tokens(path)
    for _, name in ipairs { "<positive>", "<negative>" } do
      assert.equal(tokens.module:param(name):hash(), again.module:param(name):hash())
    end
    assert.same({ positive = "real", negative = "flat" }, again.words)
    again:attach(reward)
  end)

  it("steer SRPO as words do", function()
    local gradients = {}
    for k, make in ipairs {
      function() return { positive = { "real" }, negative = { "flat" } } end, function() return learn() end,
    } do
      local pipe = pipeline.load("tests/models/data/pipeline", { steps = 3, shift = 3, size = { 16, 16 } })
      pipe.transformer:requires_grad(true)
      local method = srpo.new { pipeline = pipe, reward = reward, control = make(), rollout_steps = 3,
                                schedule = schedule.flow { steps = 3, shift = 3 } }
      local prompts = { "a red cat", "two dogs" }
      local _, ledger = core.scope(function()
        return method:step({ step = 1, prompts = prompts, cond = pipe:condition(prompts) }, core.generator(5, 1))
      end)
      assert.equal(k == 1 and "real. a red cat" or "<positive>. a red cat", ledger[1].positive)
      local total = 0
      for _, parameter in ipairs(pipe.transformer:parameters()) do
        if parameter:grad() then total = total + parameter:grad():square():sum():item() end
      end
      gradients[k] = total
    end
    assert.is_true(gradients[1] > 0)
    assert.equal(gradients[1], gradients[2])
  end)

  it("refuse what they do not fit, by name", function()
    local tokens, path = learn(), support.folder() .. "/tokens"
    tokens:save(path)
    local other = clip.load(support.clip(support.folder(), 4))
    assert.error_matches(function() control.tokens(path):attach(other) end, "learned in another text tower")
    assert.error_matches(function() control.tokens("no/such") end, "no/such holds no control tokens")
    assert.error_matches(function() control.resolve(tokens, { score = function() end }) end, "CLIP text tower")
    assert.error_matches(function() control.learn(reward, { positive = "a" }) end, "need the words of negative")
    assert.error_matches(function() control.learn(reward, { positive = "a", negative = "" }) end, 'start from ""')
    assert.error_matches(function() learn { length = 0 } end, "length must be a whole number")
    assert.error_matches(function() reward:learn { plain = core.zeros { 1, 16 } } end, "a name in angle brackets")
    assert.error_matches(function() reward:learn { ["<a>"] = core.zeros { 1, 5 } } end, "<a> is %[1,5%].*%[n,16%]")
    assert.error_matches(function() reward:learn { ["<a>"] = core.zeros { 15, 16 } } end, "texts hold 14")
  end)

  it("come out of their recipe", function()
    local place, lines = support.folder(), {}
    core.file.mkdir(place .. "/images")
    for i = 1, 12 do
      local generator = core.generator(i, 1)
      local tint = core.tensor(i % 2 == 0 and { 0.9, 0.4, 0.2 } or { 0.2, 0.4, 0.9 })
      core.image.write(("%s/images/%02d.png"):format(place, i), generator:rand({ 12, 12, 3 }) * 0.5 + tint * 0.5)
      lines[i] = core.json.encode { file_name = ("%02d.png"):format(i), subject = "cat",
                                    style = i % 2 == 0 and "warm" or "cool" } .. "\n"
    end
    support.write(place .. "/images", "metadata.jsonl", table.concat(lines))
    local recipe = core.file.real("recipes/control_tokens.lua")
    local code, out, err = support.syz(place, ("run %s --set reward=%s --set data=images --set test=images "
      .. "--set wanted=warm --set unwanted=cool --set positive=real --set negative=flat --set steps=40 --set lr=0.02 "
      .. "--set batch=6 --out run -q"):format(recipe, folder))
    assert.equal(0, code, err .. out)
    local summary = core.json.decode(core.file.read(place .. "/run/summary.json"))
    assert.is_true(summary.auc.after > math.max(0.9, summary.auc.before - 1e-9))
    control.tokens(place .. "/run/tokens"):attach(reward)
  end)
end)
