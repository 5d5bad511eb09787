--- ImageReward: the published files, its scores, what methods ask of it, and its errors.
local core = require "syz.core"
local image_reward = require "syz.rewards.image_reward"
local methods = require "tests.lua.methods_support"
local mix = require "syz.rewards.mix"
local progress = require "syz.progress"
local support = require "tests.lua.support"

local PUBLISHED = "tests/models/data/image_reward_pt"
local TOKENIZER = PUBLISHED -- its vocab.txt has 19 tokens

local VISION = { hidden_size = 12, num_attention_heads = 2, num_hidden_layers = 2, intermediate_size = 24,
  image_size = 16, patch_size = 4 }

-- med_config.json as published, but small, with what the published classes fix in their code.
local function config(changes)
  local c = { architectures = { "BertModel" }, hidden_size = 16, intermediate_size = 20, num_hidden_layers = 2,
    num_attention_heads = 2, vocab_size = 21, max_position_embeddings = 40,
    encoder_width = 768, mlp_sizes = { 8, 6, 5, 4 }, vision_config = VISION }
  for key, value in pairs(changes or {}) do c[key] = value end
  return c
end

local function create(changes)
  local c = config(changes)
  c._class_name = "ImageReward"
  local model = core.model.create(c)
  model:init(7)
  -- a fresh head is all but blind: larger weights make scores differ
  for _, name in ipairs(model:names()) do
    local parameter = model:param(name)
    if #parameter:shape() > 1 then parameter:assign(parameter * (name:find "^mlp" and 6 or 8)) end
  end
  return model
end

-- A folder with ImageReward.safetensors and med_config.json.
local function published(changes)
  local folder, model, tensors = support.folder(), create(changes), {}
  for _, name in ipairs(model:names()) do tensors[name] = model:param(name) end
  core.safetensors.write(folder .. "/ImageReward.safetensors", tensors)
  support.write(folder, "med_config.json", core.json.encode(config(changes)))
  return folder
end

local function open(folder, options)
  options = options or {}
  options.tokenizer = options.tokenizer or TOKENIZER
  return image_reward.load(folder, options)
end

local function images(count, size)
  return core.generator(3):rand({ count, size or 16, size or 16, 3 })
end

local TEXTS = { "a red cat", "two dogs on a hill", "sky" }

-- The largest difference, relative to the largest expected value.
local function distance(got, expected)
  local function peak(t)
    local flat = t:abs():reshape({ -1 })
    return flat:totable()[flat:argmax(0):item() + 1]
  end
  return peak(got - expected) / peak(expected)
end

describe("ImageReward as published", function()
  setup(function() progress.configure { terminal = { tty = false, width = 80 }, err = function() end } end)
  teardown(function()
    support.clean()
    progress.configure()
  end)

  it("scores prompts and images, with gradients to the pixels, as its own code does", function()
    core.scope(function()
      local reward = image_reward.load(PUBLISHED)
      local reference = core.safetensors.read(PUBLISHED .. "/reference.safetensors")
      local prompts = core.json.decode(core.file.read(PUBLISHED .. "/prompts.json"))
      local x = reference.images:permute({ 0, 2, 3, 1 }):requires_grad(true)
      local score = reward:score(x, prompts)
      assert.is_true(distance(score, reference.score) <= 1e-5)
      local loss = (score * reference.grad_score):sum()
      loss:backward()
      local expected = reference["grad.images"]:permute({ 0, 2, 3, 1 })
      assert.is_true(distance(x:grad():reshape({ -1 }), expected:reshape({ -1 })) <= 1e-4)
      local ids = reward:tokens(prompts)
      assert.same(reference.input_ids:totable(), ids:totable())
    end)
  end)

  it("scores files from the command line", function()
    local folder = support.folder()
    local png = folder .. "/a.png"
    core.image.write(png, core.generator(1):rand({ 23, 30, 3 }))
    local code, out, err = support.syz(".", ("score --reward image_reward:%s/ImageReward.pt --prompt 'a red cat' "
      .. "--prompt 'two dogs' %s"):format(PUBLISHED, png))
    assert.equal(0, code, err)
    local first, second = out:match("a%.png%s+(%-?[%d.]+)%s+(%-?[%d.]+)")
    assert.is_true(first ~= second, out)
    local picture = (core.image.read(png):to("f32") / 255):reshape({ 1, 23, 30, 3 })
    local scores = image_reward.load(PUBLISHED):pair(image_reward.load(PUBLISHED):image(picture), { "two dogs" })
    assert.near(scores:item(), tonumber(second), 1e-4)
  end)
end)

describe("ImageReward", function()
  after_each(support.clean)

  it("normalises the head's output, and pads and masks 35 tokens", function()
    core.scope(function()
      local reward = open(published())
      local pixels = (images(1) - core.tensor { 0.48145466, 0.4578275, 0.40821073 })
        / core.tensor { 0.26862954, 0.26130258, 0.27577711 }
      local ids, used = core.tokenizer(TOKENIZER):batch({ TEXTS[1] }, 35)
      local mask = {}
      for k = 1, 35 do mask[k] = k <= used[1] and 1 or 0 end
      assert.is_true(used[1] > 3 and used[1] < 35)
      local raw = reward.model:forward(pixels, ids, core.tensor(mask, { 1, 35 }, "i64")):item()
      assert.near((raw - 0.16717362830052426) / 1.0333394966054072, reward:score(images(1), { TEXTS[1] }):item(), 1e-6)
    end)
  end)

  it("tells texts and images apart", function()
    core.scope(function()
      local reward = open(published())
      local scores = reward:score(images(3), TEXTS):totable()
      local swapped = reward:score(images(3), { TEXTS[2], TEXTS[1], TEXTS[3] }):totable()
      assert.is_true(math.abs(scores[1] - swapped[1]) > 1e-4)
      assert.near(scores[3], swapped[3], 1e-6)
    end)
  end)

  it("scores an image once encoded under several texts, or several images under one", function()
    core.scope(function()
      local reward = open(published())
      local states = reward:image(images(2))
      assert.same({ 2, 17, 12 }, states:shape())
      local both = reward:score(images(2), { TEXTS[1], TEXTS[1] }):totable()
      assert.same(both, reward:pair(states, { TEXTS[1] }):totable())
      assert.has_error(function() reward:pair(states, TEXTS) end,
        "ImageReward: 2 images and 3 texts: give a text for each image, or one")
    end)
  end)

  it("is relative as the paper's eq. 8 has it, with gradients to the images", function()
    core.scope(function()
      local reward = open(published())
      local kappa = core.tensor { 0.1, 0.25 }
      local wanted, unwanted = { TEXTS[1], TEXTS[2] }, { TEXTS[3], TEXTS[3] }
      local x = images(2):requires_grad(true)
      local got = reward:relative(x, wanted, unwanted, kappa)
      local expected = (1 + kappa) * reward:score(images(2), wanted) - reward:score(images(2), unwanted)
      for i, value in ipairs(expected:totable()) do assert.near(value, got:totable()[i], 1e-5) end
      got:sum():backward()
      -- along the gradient, as finite differences have it
      local direction = x:grad()
      local norm = direction:square():sum():sqrt():item()
      local step = 1e-2 / norm
      local function at(t) return reward:relative(images(2) + t * direction, wanted, unwanted, kappa):sum():item() end
      assert.near(norm, (at(step) - at(-step)) / (2 * step * norm), 2e-3 * norm)
    end)
  end)

  it("needs the same memory of texts for a second batch, and keeps its tokens over scopes", function()
    local reward = open(published())
    local first = core.scope(function() return reward:score(images(2), { TEXTS[1], TEXTS[2] }):totable() end)
    local second = core.scope(function() return reward:score(images(2), { TEXTS[1], TEXTS[2] }):totable() end)
    assert.same(first, second)
    local cached = 0
    for _ in pairs(reward.cache) do cached = cached + 1 end
    assert.equal(2, cached)
  end)

  it("has no CFG form, and says so before any work", function()
    local reward = open(published())
    assert.has_error(function() reward:mixed() end, reward.unmixable)
    local pipe = methods.pipeline(3)
    local mixed = mix.new { { reward = methods.linear_reward() }, { reward = reward } }
    for _, one in ipairs { reward, mixed } do
      local ok, message = pcall(require("syz.methods.srpo").new, { pipeline = pipe, reward = one, form = "cfg",
        control = { positive = { "a" }, negative = { "b" } } })
      assert.is_false(ok)
      assert.truthy(message:find('form "cfg": ImageReward reads text and image together', 1, true))
    end
  end)

  it("loads as a file, as a folder, with its configuration elsewhere, and as syz writes it", function()
    core.scope(function()
      local folder = published()
      local expected = open(folder):score(images(1), { TEXTS[1] }):item()
      assert.equal(expected, open(folder .. "/ImageReward.safetensors"):score(images(1), { TEXTS[1] }):item())
      local elsewhere = support.folder()
      os.rename(folder .. "/med_config.json", elsewhere .. "/med.json")
      assert.equal(expected, open(folder, { med_config = elsewhere .. "/med.json" }):score(images(1),
        { TEXTS[1] }):item())
      local written = support.folder()
      create():save(written)
      assert.equal(expected, open(written):score(images(1), { TEXTS[1] }):item())
    end)
  end)

  it("reads with BERT's own vocabulary, which comes with the program", function()
    core.scope(function()
      local reward = image_reward.load(published { vocab_size = 30524 })
      local ids, mask = reward:tokens { "A photo of a cat" }
      assert.same({ 101, 1037, 6302, 1997, 1037, 4937, 102, 0 }, { unpack(ids:totable(), 1, 8) })
      assert.equal(7, mask:to("f32"):sum():item())
      assert.same({ 1, 35 }, ids:shape())
      assert.is_true(reward:score(images(1), { "A photo of a cat" }):item()
        ~= reward:score(images(1), { "A photo of a dog" }):item())
    end)
  end)

  it("checkpoints", function()
    core.scope(function()
      local folder, gradients = published(), {}
      for i, on in ipairs { false, true } do
        local x = images(1):requires_grad(true)
        open(folder, { checkpointing = on }):score(x, { TEXTS[1] }):sum():backward()
        gradients[i] = x:grad()
      end
      assert.is_true(distance(gradients[2], gradients[1]) <= 1e-5)
    end)
  end)
end)

-- A recipe that trains the tiny pipeline with it.
local function recipe(folder, method, reward)
  return support.write(folder, "recipe.lua", ([[
local syz = require "syz"
local opt = syz.options { steps = { 4, "steps" }, reward = { "%s", "where it lies" } }
local image_reward = syz.reward.image_reward(opt.reward, { tokenizer = "%s" })
local control = { positive = { "Real" }, negative = { "Flat", "Painted" } }
return syz.train {
  method = syz.methods.%s,
  prompts = { "a red cat", "two dogs", "a green hat" }, batch = 2, optimizer = syz.adamw { lr = 1e-3 },
  steps = opt.steps, checkpoint_every = 2,
  eval = { grid = 2, steps = 2, control = control, rewards = { image_reward = image_reward } },
}
]]):format(published(), TOKENIZER, method:gsub("COMMON",
    ('pipeline = syz.pipeline("tests/models/data/pipeline", { size = { 16, 16 } }), reward = %s'):format(
    reward or "image_reward"))))
end

local function weights(run)
  local path = run .. "/model/transformer"
  return core.sha256(core.file.read(path .. "/" .. "diffusion_pytorch_model.safetensors"))
end

local function syz(arguments)
  local code, out, err = support.syz(".", arguments)
  assert.equal(0, code, err)
  return out
end

describe("ImageReward trains", function()
  after_each(support.clean)

  for name, method in pairs {
    refl = 'refl { COMMON, preset = "original", rollout_steps = 4, last = 2 }',
    draft = "draft { COMMON, rollout_steps = 3, last = 1 }",
    srpo = "srpo { COMMON, control = control, schedule = syz.schedule.flow { steps = 3, shift = 3 } }",
    difference = 'srpo { COMMON, form = "difference", control = control, rollout_steps = 3 }',
    grpo = 'grpo { COMMON, form = "flow", rollout_steps = 3, group = 2, '
      .. "relative = { control = control, kappa = 0.5 } }",
  } do
    it("with " .. name .. ", and resumes bit for bit", function()
      local folder = support.folder()
      local path = recipe(folder, method, name == "draft" and "syz.reward.mix { { reward = image_reward }, "
        .. "{ reward = image_reward, weight = 2 } }")
      syz(("run %s --quiet --out %s/whole"):format(path, folder))
      syz(("run %s --quiet --out %s/torn --set steps=2"):format(path, folder))
      syz(("run %s --quiet --out %s/torn --resume --set steps=4"):format(path, folder))
      assert.equal(weights(folder .. "/whole"), weights(folder .. "/torn"))
      local summary = core.json.decode(core.file.read(folder .. "/whole/summary.json"))
      for _, key in ipairs { "reward", "sgp", "image_reward", "image_reward_sgp" } do
        assert.equal("number", type(summary[key].after), key)
      end
      assert.truthy(core.file.read(folder .. "/whole/report.html"):find("image_reward", 1, true))
    end)
  end

  it("does not resume with other weights", function()
    local folder = support.folder()
    local path = recipe(folder, 'refl { COMMON, rollout_steps = 2 }')
    syz(("run %s --quiet --out %s/run --set steps=2"):format(path, folder))
    local other = published { num_hidden_layers = 1 }
    local code, _, err = support.syz(".", ("run %s --quiet --out %s/run --resume --set reward=%s"):format(path, folder,
      other))
    assert.equal(2, code)
    assert.truthy(err:find("differs from the one the run began with", 1, true), err)
  end)
end)

describe("ImageReward's errors", function()
  after_each(support.clean)

  local function refused(expected, ...)
    local ok, message = pcall(image_reward.load, ...)
    assert.is_false(ok)
    assert.truthy(tostring(message):find(expected, 1, true), message)
    assert.is_nil(tostring(message):find("\n", 1, true))
  end

  it("name the file", function()
    local empty = support.folder()
    refused("/nowhere/ImageReward.pt: no such file or folder", "/nowhere/ImageReward.pt")
    refused(empty .. " holds no ImageReward.pt", empty)
    refused("is a pipeline folder", "tests/models/data/pipeline")
    refused("tests/models/data/clip_a holds no ImageReward.pt", "tests/models/data/clip_a")
    refused("med_config must be a string", published(), { med_config = 3 })
    local folder = published()
    refused("/nowhere.json: no such file (med_config)", folder, { med_config = "/nowhere.json" })
    refused("the tokenizer has ids up to 30523, ImageReward's text encoder knows 21", folder)
    os.remove(folder .. "/med_config.json")
    refused("give a configuration (med_config.json)", folder)
    support.write(folder, "med_config.json", "{ \"hidden_size\": ")
    refused("med_config.json: JSON line 1", folder)
    support.write(folder, "med_config.json", "[]")
    refused("med_config.json: no configuration of BERT", folder)
  end)

  it("name what does not belong together", function()
    local folder = published()
    refused("the tokenizer has 19 tokens and ImageReward's text encoder 30", published { vocab_size = 30 },
      { tokenizer = TOKENIZER })
    refused("the tokenizer has ids up to 18", published { vocab_size = 18 }, { tokenizer = TOKENIZER })
    refused("do not belong together", published(), { tokenizer = "tests/models/data/pipeline/tokenizer" })
    support.write(folder, "med_config.json", core.json.encode(config { num_attention_heads = 7 }))
    refused(folder .. '/med_config.json: "num_attention_heads" must divide hidden_size', folder)
    local percent = folder .. "/50%"
    core.file.mkdir(percent)
    for _, name in ipairs { "ImageReward.safetensors", "med_config.json" } do
      core.file.write(percent .. "/" .. name, core.file.read(folder .. "/" .. name))
    end
    refused(percent .. '/med_config.json: "num_attention_heads" must divide hidden_size', percent)
    support.write(folder, "med_config.json", core.json.encode(config { num_hidden_layers = 3 }))
    refused("blip.text_encoder.encoder.layer.2", folder, { tokenizer = TOKENIZER })
    support.write(folder, "med_config.json", core.json.encode(config { hidden_size = 32 }))
    refused("the configuration expects [21,32]", folder, { tokenizer = TOKENIZER })
  end)

  it("name a truncated file", function()
    for from, name in pairs { [published()] = "ImageReward.safetensors", [PUBLISHED] = "ImageReward.pt" } do
      local folder, bytes = support.folder(), core.file.read(from .. "/" .. name)
      core.file.write(folder .. "/med_config.json", core.file.read(from .. "/med_config.json"))
      for _, length in ipairs { 0, 7, 100, math.floor(#bytes / 2), #bytes - 1 } do
        support.write(folder, name, bytes:sub(1, length))
        refused(folder .. "/" .. name, folder, { tokenizer = TOKENIZER })
      end
    end
  end)
end)
