--- Recipes with these methods through the program itself: the example of a method of one's own, every shipped method,
--- the detailed ledger, and a run that goes on where it was stopped.
local core = require "syz.core"
local support = require "tests.lua.support"

local ROOT = os.getenv "PWD"
local PIPELINE = "tests/models/data/pipeline"

--- A small random CLIP reward for the pipeline's tokenizer.
local function clip_folder()
  local folder = support.folder()
  local tower = { hidden_size = 16, num_attention_heads = 2, num_hidden_layers = 1, intermediate_size = 32,
    projection_dim = 8, hidden_act = "quick_gelu", layer_norm_eps = 1e-5 }
  local function with(fields)
    for key, value in pairs(tower) do fields[key] = value end
    return fields
  end
  local model = core.model.create {
    architectures = { "CLIPModel" }, model_type = "clip", projection_dim = 8, logit_scale_init_value = 2.6592,
    text_config = with { model_type = "clip_text_model", vocab_size = 768, max_position_embeddings = 14,
      bos_token_id = 0, eos_token_id = 2, pad_token_id = 1 },
    vision_config = with { model_type = "clip_vision_model", image_size = 16, patch_size = 8, num_channels = 3 },
  }
  model:init(7)
  model:save(folder)
  for _, name in ipairs(core.file.list(PIPELINE .. "/tokenizer")) do
    core.file.write(folder .. "/" .. name, core.file.read(PIPELINE .. "/tokenizer/" .. name))
  end
  return folder
end

local function run(arguments) return support.syz(ROOT, "run " .. arguments) end

local function rows(folder, name)
  local list = {}
  for i, line in ipairs(support.lines(core.file.read(folder .. "/" .. name))) do list[i] = core.json.decode(line) end
  return list
end

--- A recipe with one method and the rest as small as it goes.
local function recipe(method, fields)
  return ([[
local syz = require "syz"
local opt = syz.options { steps = { 4, "optimizer steps" } }
local reward = {}
function reward.image(_, images) return images:mean({ 1, 2 }) end
function reward.pair(_, features, texts)
  local weights = {}
  for i, text in ipairs(texts) do
    for c = 1, 3 do weights[(i - 1) * 3 + c] = math.sin(#text * c) end
  end
  return (features * syz.tensor(weights, { #texts, 3 })):sum({ 1 })
end
function reward:score(images, texts) return self:pair(self:image(images), texts) end
function reward:relative(images, wanted, unwanted, kappa)
  local features = self:image(images)
  return (1 + kappa) * self:pair(features, wanted) - self:pair(features, unwanted)
end
return syz.train {
  method = syz.methods.%s { pipeline = syz.pipeline("%s", { size = { 16, 16 } }), reward = reward,
    schedule = syz.schedule.flow { steps = 4, shift = 3 }, %s },
  prompts = { "a red cat", "two dogs", "a green hat" }, batch = 2, optimizer = syz.adamw { lr = 1e-3 },
  steps = opt.steps, checkpoint_every = 2, eval = { grid = 2, steps = 2 },
}
]]):format(method, PIPELINE, fields or "")
end

local function weights(folder)
  local path = folder .. "/model/transformer"
  local all = {}
  for _, name in ipairs(core.file.list(path)) do
    if name:match "%.safetensors$" then all[#all + 1] = core.sha256(core.file.read(path .. "/" .. name)) end
  end
  assert.is_true(#all > 0)
  return table.concat(all)
end

describe("recipes of direct-gradient methods", function()
  teardown(support.clean)

  it("run the example of a method of one's own", function()
    local out = support.folder() .. "/run"
    local code, _, err = run(("examples/custom_method.lua --quiet --out %s --set model=%s --set reward=%s "
      .. "--set size=16 --set steps=2 --set batch=2 --set rollout=2"):format(out, PIPELINE, clip_folder()))
    assert.equal("", err)
    assert.equal(0, code)
    local ledger = rows(out, "ledger.jsonl")
    assert.equal(2, #ledger)
    assert.is_true(ledger[1].from <= 0.5 and ledger[1].reward == ledger[1].reward)
  end)

  it("have an example of under 60 lines", function()
    assert.is_true(#support.lines(core.file.read "examples/custom_method.lua") < 60)
  end)

  for _, case in ipairs { { "refl" }, { "draft", "last = 2" }, { "draft", "renoise = 2" }, { "drtune" },
    { "leapalign" }, { "flowbp", 'variant = "sparse"' }, { "flowbp", 'variant = "bridge"' },
    { "flowbp", 'variant = "lagrange"' }, { "direct_align", "aggregate = 2" },
    { "srpo", "aggregate = { levels = 2, by = function(r) return (r[1] * r[2]):mean() end }" } } do
    local name = case[1] .. (case[2] and " with " .. case[2] or "")
    it("resume exactly: " .. name, function()
      local folder = support.folder()
      local path = support.write(folder, "recipe_.lua", recipe(case[1], case[2]))
      assert.equal(0, (run(("%s --quiet --ledger --out %s/whole"):format(path, folder))))
      assert.equal(0, (run(("%s --quiet --ledger --out %s/torn --set steps=2"):format(path, folder))))
      assert.equal(0, (run(("%s --quiet --out %s/torn --resume --set steps=4"):format(path, folder))))
      assert.equal(weights(folder .. "/whole"), weights(folder .. "/torn"))
      -- the resumed run goes on with the detailed ledger that it began
      assert.equal(core.file.read(folder .. "/whole/ledger.jsonl"), core.file.read(folder .. "/torn/ledger.jsonl"))
      local ledger = rows(folder .. "/whole", "ledger.jsonl")
      for _, row in ipairs(ledger) do
        assert.is_true(row.grad_norm > 0 and row.reward == row.reward and row.from <= 1 and row.to >= 0)
        assert.equal(2, #row.rewards)
      end
    end)
  end

  it("keep the ledger short without --ledger", function()
    local folder = support.folder()
    local path = support.write(folder, "recipe_.lua", recipe("srpo"))
    assert.equal(0, (run(("%s --quiet --out %s/short --set steps=1"):format(path, folder))))
    local row = rows(folder .. "/short", "ledger.jsonl")[1]
    assert.is_nil(row.grad_norm)
    assert.is_nil(row.samples)
    for _, name in ipairs { "m", "k", "from", "to", "kappa", "positive", "negative", "reward", "branch" } do
      assert.is_not_nil(row[name], name)
    end
  end)

  it("say in one line what a field lacks, with the recipe's line", function()
    local folder = support.folder()
    local path = support.write(folder, "recipe_.lua", recipe("refl", "lastt = 3"))
    local code, _, err = run(path)
    assert.equal(1, code)
    assert.matches('recipe_%.lua:%d+: refl has no field "lastt"; did you mean "last"%?', err)
    assert.equal(1, #support.lines(err))
  end)

  it("train offline from the WebDataset of the emoji world", function()
    local folder = support.folder()
    local path = support.write(folder, "recipe_.lua", recipe("srpo",
      'offline = "examples/emoji/data/emoji64-test.tar"'))
    assert.equal(0, (run(("%s --quiet --out %s/run --set steps=1"):format(path, folder))))
  end)
end)
