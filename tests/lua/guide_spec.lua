--- The Lua in docs/recipes.md does what the guide says: its blocks are taken from the page and run.
local syz = require "syz"
local srpo = require "syz.methods.srpo"

local FOLDER = "tests/models/data/pipeline"

--- The Lua block of a page that contains `words`.
local function block(words, page)
  for code in syz.file.read(page or "docs/recipes.md"):gmatch "```lua\n(.-)```" do
    if code:find(words, 1, true) then return code end
  end
  error("the guide has no block with " .. words)
end

--- What a piece of the guide evaluates to, where only `syz` and Lua's own functions are in sight.
local function evaluate(code)
  return setfenv(assert(loadstring(code, "=docs/recipes.md")), setmetatable({ syz = syz }, { __index = _G }))()
end

local function load_pipeline()
  local pipe = syz.pipeline(FOLDER, { steps = 4, size = { 16, 16 } })
  pipe.transformer:requires_grad(true)
  return pipe
end

local PROMPTS = { "a red cat", "two dogs" }

local function one_step(method)
  return syz.scope(function()
    local stats, ledger = method:step({ step = 1, prompts = PROMPTS, cond = method.pipeline:condition(PROMPTS) },
      syz.generator(7, 1))
    local norm = 0
    for _, parameter in ipairs(method.pipeline.transformer:parameters()) do
      local grad = parameter:grad()
      if grad then norm = norm + grad:square():sum():item() end
    end
    return stats, ledger, norm
  end)
end

describe("the recipe guide", function()
  it("has a reward that SRPO and Direct-Align can climb", function()
    local vignette = evaluate(block "vignette:relative" .. "return vignette")
    for _, name in ipairs { "srpo", "direct_align" } do
      local pipe = load_pipeline()
      local method = syz.methods[name] { pipeline = pipe, reward = vignette, window = { 10, 40 } }
      local stats, _, norm = one_step(method)
      assert.is_true(stats.loss == stats.loss and norm > 0)
    end
  end)

  it("has a method that trains", function()
    local refl = evaluate(block "local function refl" .. "return refl")
    local vignette = evaluate(block "vignette:relative" .. "return vignette")
    local method = refl { pipeline = load_pipeline(), reward = vignette }
    local stats, _, norm = one_step(method)
    assert.near(-stats.loss, stats.reward, 1e-12)
    assert.is_true(norm > 0)
  end)

  it("has fields that the methods accept", function()
    local fields = evaluate("return {" .. block "lambda = syz.discount.power(2)" .. "}")
    assert.equal("Flat. cat", select(2, fields.control(1, "cat")))
    assert.equal("3D render. cat", (fields.control(9, "cat")))
    local vignette = evaluate(block "vignette:relative" .. "return vignette")
    local method = srpo.new { pipeline = load_pipeline(), reward = vignette, lambda = fields.lambda,
      kappa = fields.kappa, control = fields.control }
    assert.equal(0.25, method.lambda(0.5))
    assert.equal(0.4, method.kappa.denoise(0.8))
  end)

  it("has aggregates, jumps and mixes that train", function()
    local fields = evaluate("return {" .. block "aggregate = { levels = 2" .. "}")
    local vignette = evaluate(block "vignette:relative" .. "return vignette")
    local pipe = load_pipeline()
    local method = syz.methods.direct_align { pipeline = pipe, aggregate = fields.aggregate, jump = fields.jump,
      reward = syz.reward_mix { { name = "dark", reward = vignette, weight = 0.5 } } }
    local stats, ledger, norm = one_step(method)
    assert.equal(60, ledger[1].k)
    assert.equal(2, #ledger)
    assert.is_true(norm > 0 and stats.pull_dark > 0)
  end)

  it("has a stop rule that the evaluation of the emoji world can feed", function()
    local code = block("stop = {", "docs/stopping.md")
    local spec = evaluate("return {" .. code:match "stop = (%b{})":sub(2))
    local rule = require("syz.stop").new(spec, { "held_out", "judge_style_probability", "judge_subject_accuracy",
      "diversity", "saturation", "reward", "sgp" }, { "held_out", "judge_style_probability" })
    rule:start { held_out = 0, judge_style_probability = 0, sgp = 0, judge_subject_accuracy = 0.9, diversity = 2,
      saturation = 0.5 }
    local limits = rule:limits()
    assert.near(0.8, limits.judge_subject_accuracy, 1e-12)
    assert.near(1.7, limits.diversity, 1e-12)
    assert.near(0.65, limits.saturation, 1e-12)
  end)

  it("declares options that take what it says they take", function()
    local recipe = require "syz.recipe"
    local path = os.tmpname() .. ".lua"
    local file = assert(io.open(path, "w"))
    file:write('local syz = require "syz"\n', block "syz.options {", "\nreturn { execute = function() end }\n")
    file:close()
    local loaded = assert(recipe.load(path, { sets = { { key = "words", value = "3D render,Glossy" } } }))
    assert.same({ "3D render", "Glossy" }, loaded.values.words)
    local _, reason = recipe.load(path, { sets = { { key = "form", value = "cgf" } } })
    assert.matches("cfg", reason)
    _, reason = recipe.load(path, { sets = { { key = "steps", value = "-1" } } })
    assert.matches("must be positive", reason)
    os.remove(path)
  end)
end)
