--- The published rewards: their files, scales and preprocessing; aesthetic heads against the original formulas.
local core = require "syz.core"
local aesthetic = require "syz.rewards.aesthetic"
local clip = require "syz.rewards.clip"
local clip_score = require "syz.rewards.clip_score"
local hps = require "syz.rewards.hps"
local mix = require "syz.rewards.mix"
local open = require "syz.rewards.open"
local pickscore = require "syz.rewards.pickscore"
local support = require "tests.lua.support"

local TOKENIZER = "tests/models/data/pipeline/tokenizer"
local HEADS = "tests/models/data/aesthetic/"
local TOWERS = { siglip = "tests/models/data/siglip_a", clip = "tests/models/data/clip_a" }

-- A CLIPModel's parameters in open_clip's names.
local function open_clip_tensors(model)
  local out, joint = {}, {}
  for i, name in ipairs(model:names()) do
    local value = model:parameters()[i]
    local tower, rest = name:match("^(%a+)_model%.(.+)$")
    local prefix = tower == "vision" and "visual." or ""
    local layer, part = (rest or ""):match("^encoder%.layers%.(%d+)%.(.+)$")
    local projection, kind = (part or ""):match("^self_attn%.([qkv])_proj%.(%a+)$")
    if projection then
      local key = ("%stransformer.resblocks.%s.attn.in_proj_%s"):format(prefix, layer, kind)
      joint[key] = joint[key] or {}
      joint[key][("qkv"):find(projection)] = value
    elseif layer then
      part = part:gsub("self_attn", "attn"):gsub("layer_norm", "ln_"):gsub("fc1", "c_fc"):gsub("fc2", "c_proj")
      out[("%stransformer.resblocks.%s.%s"):format(prefix, layer, part)] = value
    elseif rest then
      local renamed = rest:gsub("^embeddings%.", ""):gsub("position_embedding%.weight", "positional_embedding")
        :gsub("patch_embedding", "conv1"):gsub("pre_layrnorm", "ln_pre"):gsub("post_layernorm", "ln_post")
        :gsub("final_layer_norm", "ln_final")
      out[prefix .. renamed] = value
    elseif name == "logit_scale" then
      out[name] = value
    else
      out[name == "text_projection.weight" and "text_projection" or "visual.proj"] = value:transpose(0, 1)
    end
  end
  for name, parts in pairs(joint) do out[name] = core.ops.concat(parts, 0) end
  return out
end

local function pictures(height, width)
  return core.generator(11):rand({ 2, height, width, 3 })
end

local function largest(tensor)
  local peak = 0
  for _, value in ipairs(tensor:abs():reshape({ -1 }):totable()) do peak = math.max(peak, value) end
  return peak
end

local function near(expected, tensor, tolerance)
  local found = tensor:reshape({ -1 }):totable()
  expected = type(expected) == "table" and expected or expected:reshape({ -1 }):totable()
  assert.equal(#expected, #found)
  local peak = largest(core.tensor(expected))
  for i, value in ipairs(expected) do assert.near(value, found[i], tolerance * peak) end
end

-- A model of a published configuration, with one layer in each tower and random weights in f16.
local function published(config, folder)
  core.scope(function()
    local model = core.model.create(config)
    model:init(5)
    model:save(folder, "f16")
  end)
  return folder
end

describe("published sizes, one layer deep,", function()
  teardown(support.clean)

  it("HPSv2.1's file tells its configuration", function()
    local tokenizer = core.tokenizer(TOKENIZER)
    local config = { architectures = core.array { "CLIPModel" }, projection_dim = 1024,
      text_config = { hidden_size = 1024, intermediate_size = 4096, num_hidden_layers = 1, num_attention_heads = 16,
                      hidden_act = "gelu", vocab_size = tokenizer:size(), eos_token_id = 2 },
      vision_config = { hidden_size = 1280, intermediate_size = 5120, num_hidden_layers = 1, num_attention_heads = 16,
                        hidden_act = "gelu", patch_size = 14 } }
    local folder, file = published(config, support.folder()), support.folder() .. "/HPS_v2.1_compressed.safetensors"
    core.scope(function()
      core.safetensors.write(file, open_clip_tensors(core.model.load_stored(folder)))
    end)
    local images, texts = pictures(30, 40):requires_grad(true), { "red circle", "a photo of a cat" }
    local reward = hps.load(file, { tokenizer = TOKENIZER })
    assert.equal(224, reward.config.vision_config.image_size)
    local scores = reward:score(images, texts)
    near(hps.load(folder, { tokenizer = TOKENIZER }):score(images, texts), scores, 1e-6)
    scores:sum():backward()
    assert.is_true(largest(images:grad()) > 0)
  end)

  it("Aesthetic Predictor V2.5 stands on SigLIP so400m", function()
    local config = core.json.decode(core.file.read("lua/syz/published/siglip-so400m.json"))
    config.vision_config.num_hidden_layers = 1
    local folder, head, width = published(config, support.folder()), support.folder() .. "/head.safetensors", 1152
    local tensors, generator = {}, core.generator(2)
    for i, outputs in ipairs { 1024, 128, 64, 16, 1 } do
      local name = ("scoring_head.%d."):format(2 * (i - 1))
      tensors[name .. "weight"] = (generator:randn({ outputs, width }) / math.sqrt(width)):to("bf16")
      tensors[name .. "bias"] = generator:randn({ outputs }):to("bf16")
      width = outputs
    end
    core.safetensors.write(head, tensors)
    local images = pictures(48, 64):slice(0, 0, 1):copy():requires_grad(true)
    local reward = aesthetic.load(head, folder)
    assert.equal(384, reward.size)
    reward:score(images):sum():backward()
    assert.is_true(largest(images:grad()) > 0)
  end)
end)

describe("CLIP-like rewards", function()
  local folder, file, config, texts = nil, nil, nil, { "red circle", "a photo of a cat" }

  setup(function()
    folder = support.clip(support.folder(), 3)
    local model = core.model.load(folder)
    config = model:config()
    local other = support.folder()
    file = other .. "/HPS_v2.1_compressed.safetensors"
    core.safetensors.write(file, open_clip_tensors(model))
    core.file.write(other .. "/config.json", core.json.encode(config))
  end)
  teardown(support.clean)

  it("score the same from a file in open_clip's names and from a folder", function()
    local images = pictures(12, 12)
    local wanted = clip.load(folder):score(images, texts)
    for _, one in ipairs { hps.load(file, { tokenizer = TOKENIZER }), hps.load(folder), clip_score.load(folder) } do
      near(wanted, one:score(images, texts), 1e-6)
      assert.equal(1, one.scale)
    end
  end)

  it("have the scales that were published", function()
    local factor = math.exp(core.model.load(folder):param("logit_scale"):item())
    local images = pictures(12, 12)
    local cosine = clip.load(folder):score(images, texts)
    near(cosine * factor, pickscore.load(folder, { scale = "logit" }):score(images, texts), 1e-6)
    near(cosine * factor, open.open("pickscore:" .. folder):score(images, texts), 1e-6)
    local wide = pictures(12, 31)
    near(hps.load(folder, { preprocess = "pad" }):score(wide, texts),
      open.open("hps:" .. folder):score(wide, texts), 1e-6)
    near(clip_score.load(folder, { preprocess = "processor" }):score(wide, texts),
      open.open("clip_score:" .. folder):score(wide, texts), 1e-6)
    near(pickscore.load(folder, { preprocess = "processor", scale = "logit" }):score(wide, texts),
      open.open("pickscore:" .. folder):score(wide, texts), 1e-6)
    near(cosine * (factor / 20), pickscore.load(folder):score(images, texts), 1e-6)
    near(cosine * (factor / 20), clip.load(folder, { logit_scale = true }):score(images, texts), 1e-6)
    near(cosine * 2.5, clip_score.load(folder, { scale = 2.5 }):score(images, texts), 1e-6)
  end)

  it("form the relative reward and the mixed one of their scores", function()
    local reward, images, others = pickscore.load(folder), pictures(12, 12), { "blue", "flat" }
    local a, b = reward:score(images, texts), reward:score(images, others)
    near(1.25 * a - b, reward:relative(images, texts, others, 0.25), 1e-5)
    near(0.25 * a + 0.75 * b, reward:mixed(images, texts, others, 0.25), 1e-5)
  end)

  it("crop or pad: the same on squares, not on others", function()
    local crop = hps.load(folder)
    local pad = hps.load(folder, { preprocess = "pad" })
    near(crop:score(pictures(20, 20), texts), pad:score(pictures(20, 20), texts), 1e-6)
    local difference = crop:score(pictures(20, 31), texts) - pad:score(pictures(20, 31), texts)
    assert.is_true(largest(difference) > 1e-4)
  end)

  it("pass gradients to the pixels, recomputing layers or not", function()
    local gradients = {}
    for i, checkpointing in ipairs { false, true } do
      local images = pictures(15, 17):requires_grad(true)
      hps.load(folder, { checkpointing = checkpointing }):score(images, texts):sum():backward()
      gradients[i] = images:grad():reshape({ -1 }):totable()
    end
    assert.same(gradients[1], gradients[2])
  end)

  it("let the activation be said where the weights do not tell", function()
    local images = pictures(12, 12)
    local quick = clip_score.load(folder, { activation = "quick_gelu" })
    local exact = clip_score.load(folder, { activation = "gelu" })
    assert.equal("quick_gelu", quick.config.vision_config.hidden_act)
    assert.equal("gelu", exact.config.text_config.hidden_act)
    local difference = quick:score(images, texts) - exact:score(images, texts)
    assert.is_true(largest(difference) > 1e-5)
  end)

  it("read texts with CLIP's own vocabulary where none lies beside them", function()
    local small = { hidden_size = 64, intermediate_size = 16, num_hidden_layers = 1, num_attention_heads = 1 }
    local config_ = { architectures = core.array { "CLIPModel" }, projection_dim = 8, text_config = {},
                      vision_config = { image_size = 8, patch_size = 4 } }
    for key, value in pairs(small) do config_.text_config[key], config_.vision_config[key] = value, value end
    local alone = published(config_, support.folder())
    local reward = pickscore.load(alone)
    assert.equal(77, reward.length)
    assert.same({ 320, 736, 3055 }, (reward.tokenizer:encode("a red apple")))
    -- open_clip, which HPSv2.1 was trained with, resolves HTML references; transformers does not
    local open_clips = hps.load(alone).tokenizer
    assert.same(reward.tokenizer:encode("red & blue"), open_clips:encode("red &amp; blue"))
    assert.are_not.same(reward.tokenizer:encode("red & blue"), reward.tokenizer:encode("red &amp; blue"))
    near(reward:score(pictures(8, 8), { "A red  apple", "a red apple" }),
      reward:score(pictures(8, 8), { "a red apple", "a red apple" }), 1e-6)
  end)

  it("say what is wrong in one line", function()
    local function fails(pattern, call, ...)
      local ok, message = pcall(call, ...)
      assert.is_false(ok)
      assert.matches(pattern, message)
      assert.is_nil(tostring(message):find("\n", 1, true))
    end
    fails("rewards_spec.lua:%d+: syz.reward.hps needs the name of a folder or weights file, not a nil",
      function() return (hps.load()) end)
    fails("nowhere: no such folder or file; a reward's folder or weights file is needed", hps.load, "nowhere")
    fails('holds a SiglipVisionModel; syz.reward.hps is a CLIPModel', hps.load, TOWERS.siglip)
    fails('preprocess must be "crop" or "processor", not "pad"', pickscore.load, folder, { preprocess = "pad" })
    fails('scale must be "cosine", "logit" or "srpo", not "logits"; did you mean "logit"', pickscore.load, folder,
      { scale = "logits" })
    fails('no field "prepocess"; did you mean "preprocess"', hps.load, folder, { prepocess = "pad" })
    fails("is a pipeline folder", hps.load, "tests/models/data/pipeline")
  end)
end)

describe("aesthetic predictors", function()
  local reference = core.safetensors.read(HEADS .. "reference.safetensors")
  for _, tensor in pairs(reference) do tensor:keep() end
  local images = reference.images:permute({ 0, 2, 3, 1 }):keep()
  local cases = { ["v2.5"] = "siglip", laion = "clip", laion_relu = "clip", laion_linear = "clip" }

  teardown(support.clean)

  it("give the scores and gradients of the original classes", function()
    for name, tower in pairs(cases) do
      local reward = aesthetic.load(HEADS .. name .. ".pth", TOWERS[tower])
      local x = images:copy():requires_grad(true)
      local scores = reward:score(x, { "not", "read" })
      assert.same({ 2 }, scores:shape())
      near(reference["scores." .. name], scores, 1e-5)
      scores:sum():backward()
      near(reference["grad." .. name]:permute({ 0, 2, 3, 1 }), x:grad(), 1e-4)
    end
  end)

  it("tell the head from its names and shapes", function()
    local kinds = {}
    for name, tower in pairs(cases) do kinds[name] = aesthetic.load(HEADS .. name .. ".pth", TOWERS[tower]).kind end
    assert.same({ ["v2.5"] = "v2.5", laion = "laion", laion_relu = "laion", laion_linear = "laion linear" }, kinds)
  end)

  it("refuse other heads, other towers and control words in one line", function()
    local folder = support.folder()
    local function fails(pattern, head, tower)
      local ok, message = pcall(aesthetic.load, head, tower)
      assert.is_false(ok)
      assert.matches(pattern, message)
    end
    local function head(name, tensors)
      core.safetensors.write(folder .. "/" .. name, tensors)
      return folder .. "/" .. name
    end
    fails("stands on OpenAI's CLIP ViT%-L/14, and .* holds a SiglipVisionModel", HEADS .. "laion.pth", TOWERS.siglip)
    fails("stands on SigLIP so400m, and .* holds a CLIPModel", HEADS .. "v2.5.pth", TOWERS.clip)
    fails('"classifier.weight" and 0 more tensors are no aesthetic head',
      head("other.safetensors", { ["classifier.weight"] = core.zeros({ 1, 14 }) }), TOWERS.clip)
    fails('"weight" has shape %[1,768%], %[1,14%] is needed %(the features of',
      head("large.safetensors", { weight = core.zeros({ 1, 768 }), bias = core.zeros({ 1 }) }), TOWERS.clip)
    fails("no such file or folder", "nowhere.pth", TOWERS.clip)
    fails("a folder; the head's file is needed", folder, TOWERS.clip)
    local reward = aesthetic.load(HEADS .. "laion.pth", TOWERS.clip)
    assert.error_matches(function() reward:relative(images, { "a" }, { "b" }, 0) end, "control words mean nothing")
    assert.error_matches(function() reward:mixed(images, { "a" }, { "b" }, 0) end, "control words mean nothing")
  end)

  it("mix with rewards that read text", function()
    local folder = support.clip(support.folder(), 3)
    local words, beauty = clip.load(folder), aesthetic.load(HEADS .. "laion.pth", TOWERS.clip)
    local mixed = mix.new { { reward = words, name = "clip" }, { reward = beauty, weight = 0.5, name = "aesthetic" } }
    local texts = { "red", "blue" }
    local wanted = words:score(images, texts) + 0.5 * beauty:score(images)
    near(wanted, mixed:score(images, texts), 1e-6)
    near(wanted, mixed:pair(mixed:image(images), texts), 1e-6)
  end)

  it("train by a score, and not by control words", function()
    local methods = require "tests.lua.methods_support"
    local reward = aesthetic.load(HEADS .. "v2.5.pth", TOWERS.siglip)
    for _, name in ipairs { "refl", "draft", "grpo" } do
      local pipe = methods.pipeline(3)
      local options = { pipeline = pipe, reward = reward }
      if name == "grpo" then options.group, options.kl, options.form = 2, 0, "dance" end
      local stats = methods.step(require("syz.methods." .. name).new(options))
      assert.equal(stats.reward, stats.reward) -- a number
      assert.is_true(methods.gradient_norm(pipe) > 0, name)
    end
    local srpo = require("syz.methods.srpo").new { pipeline = methods.pipeline(3), reward = reward,
      control = { positive = { "real" }, negative = { "flat" } } }
    assert.error_matches(function() methods.step(srpo) end, "an aesthetic predictor reads no text")
  end)

  it("score files from the command line", function()
    local image = support.folder() .. "/one.png"
    core.image.write(image, images:slice(0, 0, 1):reshape({ 17, 22, 3 }))
    local code, out = support.syz(".", ("score --reward aesthetic:%slaion.pth,%s %s"):format(HEADS, TOWERS.clip, image))
    assert.equal(0, code)
    local wanted = reference["scores.laion"]:totable()[1]
    assert.near(wanted, tonumber(support.lines(out)[2]:match("(%S+)%s*$")), 1e-3 * math.abs(wanted))
    assert.matches("score", support.lines(out)[1])
    code = support.syz(".", ("score --reward hps:%s %s"):format(TOWERS.clip, image))
    assert.equal(2, code)
  end)

  it("open by one string", function()
    assert.equal("laion", open.open("aesthetic:" .. HEADS .. "laion.pth," .. TOWERS.clip).kind)
    assert.error_matches(function() open.open("aesthetic:" .. HEADS .. "laion.pth") end, "two paths are needed")
    assert.error_matches(function() open.open(HEADS .. "laion.pth") end, "say what it is, such as hps:")
    assert.error_matches(function() open.open("hsp:somewhere") end, 'did you mean "hps"')
  end)
end)
