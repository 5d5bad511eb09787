local core = require "syz.core"
local chart = require "syz.compare_chart"
local recipe = require "syz.recipe"

local FOLDER = "recipes/paper/"

-- The variants of a recipe by name, after it was loaded like `syz run` does it.
local function load(name, sets)
  local loaded, reason = recipe.load(FOLDER .. name .. ".lua", { sets = sets })
  assert(loaded, reason)
  local by_name = {}
  for _, variant in ipairs(loaded.experiment.variants) do by_name[variant.name] = variant end
  return loaded.experiment, by_name, loaded
end

describe("the paper's recipes", function()
  for _, name in ipairs { "table1", "timesteps", "ablation", "words", "offline", "cost", "search" } do
    it(("ask the same of all variants: %s"):format(name), function()
      local experiment = load(name)
      local trained = 0
      for _, variant in ipairs(experiment.variants) do
        if variant.method then
          local method = experiment:method(variant, 1) -- every field of every method is one that it has
          assert.equal(experiment.pipeline.transformer, method.modules.transformer)
          trained = trained + 1
        end
      end
      assert.is_true(trained >= 3 and #experiment.seeds >= (name == "search" and 1 or 3))
      local used = {}
      for _, prompt in ipairs(experiment.prompts) do used[prompt] = true end
      for _, prompt in ipairs(experiment.eval.prompts) do assert.equal(name == "search", used[prompt] or false) end
    end)
  end

  it("train adapters or all weights, and nothing else differs: lora", function()
    local experiment, by_name = load "lora"
    experiment:snapshot()
    for _, variant in ipairs(experiment.variants) do
      if variant.method then
        local method = experiment:method(variant, 1)
        assert.equal("all weights", experiment.against)
        assert.equal(variant.lora == nil, method.modules.transformer ~= nil)
        assert.equal(experiment.pipeline.adapter, method.modules.lora)
        assert.same(by_name["all weights"].options, variant.options)
        experiment:rewind()
      end
    end
  end)

  it("vary method and reward separately in table 1", function()
    local experiment, by_name = load "table1"
    assert.equal(1 + 5 * 2, #experiment.variants)
    for _, name in ipairs { "ReFL", "DRaFT-LV", "DanceGRPO", "Direct-Align" } do
      local plain, relative = by_name[name .. ", plain"], by_name[name .. ", relative"]
      assert.is_nil(plain.reward)
      assert.is_truthy(relative.reward)
      assert.same(plain.options, relative.options)
    end
    -- SRPO with the plain reward climbs what the others climb
    local options = by_name["SRPO, plain"].options
    core.scope(function()
      local images, prompts = core.generator(2):rand({ 2, 64, 64, 3 }), { "cat", "house" }
      local positive, negative = {}, {}
      for i, prompt in ipairs(prompts) do positive[i], negative[i] = options.control(1, prompt) end
      local pair = experiment.reward:relative(images, positive, negative, options.kappa.denoise):totable()
      local scores = experiment.reward:score(images, prompts):totable()
      for i, score in ipairs(scores) do assert.near(score, pair[i], 1e-5) end
    end)
  end)

  it("are a look with --quick, which leaves the saved options alone", function()
    local experiment, _, loaded = load("table1", { { key = "quick", value = true } })
    assert.same({ 1 }, experiment.seeds)
    assert.equal(12, experiment.steps)
    assert.equal(32, #experiment.eval.prompts)
    assert.same({ 1, 2, 3 }, loaded.values.seeds)
  end)

  it("draw offline pictures of the prompt's own subject, in the wanted style", function()
    local experiment, by_name = load("offline", { { key = "counts", value = "20,1155" } })
    local few, all = by_name["20 images"], by_name["1155 images"]
    assert.equal(20, #few.prompts)
    assert.equal(1155, #all.prompts)
    core.scope(function()
      local images = few.options.offline({ few.prompts[3], few.prompts[3], few.prompts[4] }, core.generator(1))
      assert.same({ 3, 64, 64, 3 }, images:shape())
      local hashes = {}
      for i = 0, 2 do hashes[i + 1] = images:slice(0, i, i + 1):hash() end
      assert.equal(hashes[1], hashes[2])
      assert.not_equal(hashes[1], hashes[3])
      assert.equal(hashes[3], all.options.offline({ few.prompts[4] }, core.generator(1)):hash())
      local verdict = experiment.eval.judge:assess(images, { "a", "b", "c" }, "fluent-3d")
      assert.is_true(verdict.style_probability > 0.7)
    end)
  end)
end)

describe("a chart of a comparison", function()
  it("draws a dot and its error for every number, in bands", function()
    local panels = {}
    for p = 1, 7 do panels[p] = { label = "m" .. p, means = { 1, 2, nil }, errors = { nil, 0.5, nil } } end
    local svg = chart.dots({ "a", "b", "<c>" }, panels)
    local _, dots = svg:gsub("<circle", "")
    local _, errors = svg:gsub('stroke%-width="2"', "")
    local _, rows = svg:gsub("&lt;c&gt;</text>", "")
    assert.same({ 14, 7, 2 }, { dots, errors, rows })
    assert.is_nil(svg:find("nan") or svg:find("inf"))
  end)

  it("draws every curve from where it starts", function()
    local series = { { name = "one", points = { { 0, 1 }, { 4, 3 } } }, { name = "two", points = { { 0, 1 } } } }
    local svg = chart.lines(series, { x = "t", y = "v", level = 2, level_label = "goal" })
    assert.truthy(svg:find("M52.0", 1, true) and svg:find("goal", 1, true) and svg:find("two", 1, true))
    assert.is_nil(svg:find("nan") or svg:find("inf"))
    assert.is_nil(chart.lines({ { name = "flat", points = { { 0, 0 } } } }, { x = "t", y = "v" }):find("nan"))
  end)
end)
