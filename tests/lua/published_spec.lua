--- Models of published size: their configurations, random weights, and what inspect says of full-size files.
local core = require "syz.core"
local published = require "syz.published"
local random_weights = require "syz.random_weights"
local support = require "tests.lua.support"

require("syz.progress").configure { quiet = true }

-- How many parameters the published files have.
local COUNTS = {
  ["flux.1-dev"] = 11901408320, ["flux.1-schnell"] = 11891178560, ["flux.1-vae"] = 83819683, ["t5-xxl"] = 4762310656,
  ["clip-l-text"] = 123060480, ["clip-l"] = 427616513, ["clip-h"] = 986109441,
}

local function small(changes)
  local config = assert(core.json.decode(assert(core.file.read("tests/models/data/flux_b/config.json"))))
  for key, value in pairs(changes or {}) do config[key] = value end
  return config
end

local function expand(name, found)
  local head, first, last, tail = name:match("^(.-){(%d+)%.%.(%d+)}(.*)$")
  if not head then
    found[#found + 1] = name
    return found
  end
  for n = tonumber(first), tonumber(last) do expand(head .. n .. tail, found) end
  return found
end

-- A safetensors file of a list in tests/models/keys whose tensors are a hole of their size.
local function write_sparse(path, list)
  local header, at = {}, 0
  for line in assert(core.file.read("tests/models/keys/" .. list .. ".txt")):gmatch("[^\n]+") do
    local pattern, sides = line:match("^(%S+)  %[(.*)%]$")
    local bytes = 2
    for side in sides:gmatch("%d+") do bytes = bytes * side end
    for _, name in ipairs(expand(pattern, {})) do
      header[#header + 1] = ('"%s":{"dtype":"BF16","shape":[%s],"data_offsets":[%.0f,%.0f]}'):format(name, sides, at,
        at + bytes)
      at = at + bytes
    end
  end
  local text = "{" .. table.concat(header, ",") .. "}"
  text = text .. (" "):rep((64 - (8 + #text) % 64) % 64)
  local size = ""
  for k = 0, 7 do size = size .. string.char(math.floor(#text / 256 ^ k) % 256) end
  local file = assert(io.open(path, "wb"))
  file:write(size, text)
  file:seek("set", 8 + #text + at - 1)
  file:write("\0")
  file:close()
end

describe("published models", function()
  local folder

  before_each(function() folder = support.folder() end)
  after_each(function()
    support.clean()
    collectgarbage()
  end)

  it("have as many parameters as their files", function()
    for name, count in pairs(COUNTS) do
      assert.equal(count, core.model.create(published.config(name)):numel(), name)
    end
    assert.is_nil(published.config("flux.2"))
  end)

  it("all have a configuration that some class takes", function()
    for _, name in ipairs(published.names()) do
      for _, part in ipairs(published.parts(name, 1)) do
        assert.is_true(core.model.create(part.config):numel() > 0, name)
      end
    end
  end)

  it("are written as folders without weights", function()
    published.write("flux.1-schnell-pipeline", folder .. "/a", 2)
    local index = core.json.decode(core.file.read(folder .. "/a/model_index.json"))
    for name, part in pairs(index) do
      if type(part) == "table" then assert.equal("folder", core.file.exists(folder .. "/a/" .. name), name) end
    end
    local config = core.json.decode(core.file.read(folder .. "/a/transformer/config.json"))
    assert.equal(2, config.num_layers)
    assert.equal(2, config.num_single_layers)
    assert.is_false(config.guidance_embeds)
    assert.equal(49408, core.tokenizer(folder .. "/a/tokenizer"):size())
    local t5 = core.tokenizer(folder .. "/a/tokenizer_2")
    assert.same({ 1, 0 }, { t5:specials().eos, t5:specials().pad })
    assert.error_matches(function() published.write("flux.2", folder .. "/b") end, "flux.2: not a published model")
  end)
end)

describe("random weights", function()
  local folder
  local function path(name) return folder .. "/" .. name end

  before_each(function()
    folder = support.folder()
    support.write(folder, "config.json", core.json.encode(small()))
  end)
  after_each(support.clean)

  local function write(name, options)
    options = options or {}
    options.what, options.out = options.what or path "config.json", path(name)
    return random_weights.write(options)
  end

  it("are the model's own start, but for what starts at zero", function()
    write("a", { dtype = "f32", seed = 5 })
    write("b", { dtype = "f32", seed = 5, zeros = true })
    local fresh = core.model.create(small()):init(5)
    local a, b, zeros = core.model.load(path "a"), core.model.load(path "b"), 0
    for k, name in ipairs(fresh:names()) do
      local start, drawn = fresh:parameters()[k], a:parameters()[k]
      assert.equal(start:hash(), b:parameters()[k]:hash(), name)
      if #start:shape() == 2 and start:square():mean():item() == 0 then
        assert.is_true(drawn:square():mean():sqrt():item() > 0.01, name)
        zeros = zeros + 1
      else
        assert.equal(start:hash(), drawn:hash(), name)
      end
    end
    assert.equal(5, zeros) -- the modulations, and the last layer
  end)

  it("are cut into shards and can be of half precision", function()
    local config = small()
    core.model.create(config):save_random(path "a", 1, { dtype = "bf16", max_shard_bytes = 20000 })
    assert.equal("file", core.file.exists(path "a/diffusion_pytorch_model.safetensors.index.json"))
    local model = core.model.load_stored(path "a")
    assert.equal("bf16", model:parameters()[1]:dtype())
    core.model.create(config):save_random(path "b", 1, {}, function() error "no bar" end)
    assert.equal(model:parameters()[5]:hash(), core.model.load_stored(path "b"):parameters()[5]:hash())
  end)

  it("need memory for one parameter, not for all", function()
    local config = small { num_layers = 30, num_single_layers = 60 }
    support.write(folder, "deep.json", core.json.encode(config))
    collectgarbage()
    core.memory_reset_peak()
    local before = core.memory().live
    local made = write("a", { what = path "deep.json" })
    assert.is_true(core.memory().peak - before < made.bytes / 4)
  end)

  it("are refused where they cannot go", function()
    local free = core.file.free
    core.file.free = function() return 1000 end -- luacheck: ignore 122
    local ok, reason = pcall(write, "a")
    core.file.free = free -- luacheck: ignore 122
    assert.is_false(ok)
    assert.matches("a: 56%.9 KiB are needed and the disk has 1000 B left: fewer %-%-layers", reason)
    write "a"
    assert.error_matches(function() write "a" end, "a: is there already")
    assert.error_matches(function() write("b", { what = "flux.2" }) end, "flux.2: neither a published model %(clip%-h")
  end)
end)

describe("inspect", function()
  local folder
  local function syz(line) return support.syz(folder, line) end

  before_each(function() folder = support.folder() end)
  after_each(support.clean)

  it("reads the configuration off a full-size original file", function()
    write_sparse(folder .. "/flux1-dev.safetensors", "flux.1-dev.original")
    local code, out, err = syz "inspect flux1-dev.safetensors"
    assert.equal("", err)
    assert.equal(0, code)
    for _, line in ipairs { "parameters  11,901,408,320", "layout      FLUX.1, original",
                            "guidance_embeds        true", "num_single_layers      38" } do
      assert.is_truthy(out:find(line, 1, true), line .. "\n" .. out)
    end
  end)

  it("shows a full-size folder, and what in it does not fit", function()
    published.write("flux.1-vae", folder .. "/vae")
    write_sparse(folder .. "/vae/diffusion_pytorch_model.safetensors", "flux.1-vae")
    local code, out = syz "inspect vae"
    assert.equal(0, code)
    assert.is_truthy(out:find("parameters  83,819,683", 1, true), out)
    write_sparse(folder .. "/vae/diffusion_pytorch_model.safetensors", "flux.1-schnell")
    code, out = syz "inspect vae"
    assert.equal(1, code)
    assert.is_truthy(out:find('"encoder.conv_in.weight" is missing', 1, true), out)
  end)

  it("makes what --random asks for", function()
    support.write(folder, "config.json", core.json.encode(small()))
    local code, out, err = syz "inspect --random config.json --out made --dtype f16 --quiet"
    assert.equal("", err)
    assert.equal(0, code)
    assert.is_truthy(out:find("made  29,114 parameters, 56.9 KiB", 1, true), out)
    code, out = syz "inspect made"
    assert.equal(0, code)
    assert.is_truthy(out:find("dtypes      F16 66", 1, true), out)
    for line, reason in pairs {
      ["inspect --random config.json"] = "--random needs --out DIR", ["inspect --out a"] = "--out goes with --random",
      ["inspect a --random config.json --out b"] = "it takes no PATH", ["inspect"] = "PATH is missing",
      ["inspect --random config.json --out b --dtype i8"] = "--dtype must be bf16, f16 or f32",
    } do
      code, out, err = syz(line)
      assert.equal(2, code, line)
      assert.equal("", out)
      assert.is_truthy(err:find(reason, 1, true), err)
    end
  end)

  it("says what layout a file is in, and what adapters hold", function()
    local code, out = syz(("inspect '%s/tests/models/data/layouts/flux_comfy.safetensors'"):format(
      core.file.real "."))
    assert.equal(0, code)
    assert.is_truthy(out:find("layout         FLUX.1, original", 1, true), out)
    assert.is_truthy(out:find('do not tell "axes_dims_rope"', 1, true), out)
    core.safetensors.write(folder .. "/pytorch_lora_weights.safetensors", {
      ["transformer.x.lora_A.weight"] = core.zeros { 4, 6 }, ["transformer.x.lora_B.weight"] = core.zeros { 6, 4 } })
    code, out = syz "inspect ."
    assert.equal(0, code)
    assert.is_truthy(out:find("rank 4, 1 layer", 1, true), out)
  end)
end)

describe("a broken checkpoint is one line with the file and the key:", function()
  local folder
  local function fails(path, config, pattern)
    for _, load in ipairs { core.model.load, core.model.load_stored } do
      local ok, reason = pcall(load, path, config)
      assert.is_false(ok)
      assert.matches(pattern, reason)
      assert.is_nil(reason:find("\n"))
    end
  end

  before_each(function()
    folder = support.folder()
    core.model.create(small()):save_random(folder, 1, { dtype = "f32", max_shard_bytes = 50000 })
  end)
  after_each(support.clean)

  local function shard() return folder .. "/diffusion_pytorch_model-00002-of-00003.safetensors" end

  it("a truncated shard", function()
    local bytes = core.file.read(shard())
    core.file.write(shard(), bytes:sub(1, #bytes - 100))
    fails(folder, nil, "diffusion_pytorch_model%-00002%-of%-00003.safetensors: .*torn download%?")
  end)

  it("a missing shard", function()
    core.file.remove(shard())
    fails(folder, nil, "diffusion_pytorch_model%-00002%-of%-00003.safetensors: cannot open: No such file")
  end)

  it("another model's configuration", function()
    fails(folder, small { num_layers = 2 }, '"transformer_blocks.1.norm1.linear.weight" is missing')
    fails(folder, small { num_attention_heads = 6 }, 'index.json: "time_text_embed.timestep_embedder.linear_1.weight" '
      .. 'has shape %[18,256%], the configuration expects %[36,256%]')
    fails(folder, small { num_single_layers = 0 }, '"single_transformer_blocks.0.attn.norm_k.weight" does not belong')
  end)

  it("names of no library", function()
    core.safetensors.write(folder .. "/x.safetensors", { strange = core.zeros { 2 } })
    fails(folder .. "/x.safetensors", small(), 'x.safetensors: "time_text_embed.*" is missing')
    core.file.remove(folder .. "/config.json")
    fails(folder .. "/x.safetensors", nil, "x.safetensors: its names do not tell the model")
  end)

  it("an original file that lacks a key", function()
    local all = core.safetensors.read("tests/models/data/layouts/flux_dev.safetensors")
    all["single_blocks.0.linear1.bias"] = nil
    core.safetensors.write(folder .. "/y.safetensors", all)
    fails(folder .. "/y.safetensors", small(), 'y.safetensors: "single_blocks.0.linear1.bias" is missing')
  end)
end)
