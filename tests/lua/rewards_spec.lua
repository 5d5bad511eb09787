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

  it("say what is wrong in one line", function()
    local function fails(pattern, call, ...)
      local ok, message = pcall(call, ...)
      assert.is_false(ok)
      assert.matches(pattern, message)
      assert.is_nil(tostring(message):find("\n", 1, true))
    end
    fails("syz.reward.hps needs the name of a folder or weights file, not a nil", hps.load)
    fails("nowhere: no such folder", hps.load, "nowhere")
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

  it("open by one string", function()
    assert.equal("laion", open.open("aesthetic:" .. HEADS .. "laion.pth," .. TOWERS.clip).kind)
    assert.error_matches(function() open.open("aesthetic:" .. HEADS .. "laion.pth") end, "two paths are needed")
    assert.error_matches(function() open.open(HEADS .. "laion.pth") end, "say what it is, such as hps:")
    assert.error_matches(function() open.open("hsp:somewhere") end, 'did you mean "hps"')
  end)
end)
