-- Prompts' features on disk: equal to fresh ones, complete after an interruption, refused where they do not belong.

local core = require "syz.core"
local embeddings = require "syz.embeddings"
local files = require "syz.files"
local identity = require "syz.identity"
local pipeline = require "syz.pipeline"
local pipeline_text = require "syz.pipeline_text"
local progress = require "syz.progress"
local support = dofile "tests/lua/support.lua"

local FLUX, ONE = "tests/models/data/flux_schnell", "tests/models/data/pipeline"
local PROMPTS = { "a red cat", "two dogs", "a red cat", "green" }

local function write(folder, model, prompts, options)
  return embeddings.write(folder, pipeline.text(model, { max_length = options and options.max_length }), prompts,
    options or {})
end

describe("embeddings", function()
  before_each(function() progress.configure { quiet = true, err = function() end } end)
  teardown(function()
    support.clean()
    progress.configure()
  end)

  it("are what the text encoders give, bit for bit, in f32", function()
    for _, model in ipairs { FLUX, ONE } do
      local folder = support.folder()
      assert.same({ prompts = 4, new = 4, shards = 2 }, (function(made)
        made.bytes = nil
        return made
      end)(write(folder, model, PROMPTS, { shard = 3 })))
      local fresh, stored = pipeline.load(model), pipeline.load(model, { embeddings = folder })
      assert.is_nil(stored.text_encoder)
      assert.equal(fresh.text_length, stored.text_length)
      local a, b = fresh:condition { "green", "", "two dogs" }, stored:condition { "green", "", "two dogs" }
      assert.equal(a.hidden:hash(), b.hidden:hash())
      assert.equal(a.pooled:hash(), b.pooled:hash())
    end
  end)

  it("in bf16 are rounded, in half the space", function()
    local half, full = support.folder(), support.folder()
    local small, large = write(half, FLUX, PROMPTS, { dtype = "bf16" }), write(full, FLUX, PROMPTS)
    assert.is_true(small.bytes < 0.6 * large.bytes)
    local a = pipeline.load(FLUX, { embeddings = half }):condition { "two dogs" }
    local b = pipeline.load(FLUX, { embeddings = full }):condition { "two dogs" }
    assert.equal("f32", a.hidden:dtype())
    assert.equal(b.hidden:to("bf16"):hash(), a.hidden:to("bf16"):hash())
    assert.not_equal(b.hidden:hash(), a.hidden:hash())
    write(half, FLUX, { "one more" }) -- goes on as it was begun
    assert.equal("bf16", files.need_json(half .. "/index.json").dtype)
  end)

  it("go on after an interruption, and never make a prompt again", function()
    local folder, whole = support.folder(), support.folder()
    local made = 0
    local ok, raised = pcall(write, folder, ONE, PROMPTS, { shard = 1, on_prompt = function()
      made = made + 1
      if made == 3 then error("stopped", 0) end
    end })
    assert.same({ false, "stopped" }, { ok, raised })
    assert.equal(2, #files.need_json(folder .. "/index.json").shards)
    local seen = {}
    local result = write(folder, ONE, PROMPTS, { shard = 1, on_prompt = function(done, total)
      seen[#seen + 1] = done .. "/" .. total
    end })
    assert.same({ "1/2", "2/2" }, seen)
    assert.equal(4, result.prompts)
    write(whole, ONE, PROMPTS, { shard = 1 })
    for _, shard in ipairs(files.need_json(whole .. "/index.json").shards) do
      assert.equal(core.file.sha256(whole .. "/" .. shard.file), core.file.sha256(folder .. "/" .. shard.file))
      assert.equal(shard.sha256, core.file.sha256(whole .. "/" .. shard.file))
    end
  end)

  it("name the prompt that is missing and the command that adds it", function()
    local folder = support.folder()
    write(folder, ONE, PROMPTS)
    local pipe = pipeline.load(ONE, { embeddings = folder })
    local ok, raised = pcall(pipe.condition, pipe, { "two dogs", "it's new" })
    assert.is_false(ok)
    assert.equal(("%s: the prompt \"it's new\" has no embedding; add it: syz embed --prompt 'it'\\''s new' --model %s "
      .. "--out %s"):format(folder, ONE, folder), raised)
    assert.error_matches(function() pipe:save(support.folder()) end, "has no text encoders to save")
  end)

  it("are refused with other encoders, lengths or dtypes, and when a shard was cut", function()
    local folder = support.folder()
    write(folder, FLUX, PROMPTS, { max_length = 20 })
    local function refused(f, expected) assert.error_matches(f, expected) end
    refused(function() pipeline.load(ONE, { embeddings = folder }) end, "other text encoders or tokenizers")
    refused(function() pipeline.load(FLUX, { embeddings = folder, max_length = 30 }) end,
      "holds texts of 20 tokens, 30 were asked for")
    refused(function() write(folder, FLUX, PROMPTS) end, "was begun with length 20, not 256; name another folder")
    refused(function() write(folder, FLUX, PROMPTS, { max_length = 20, dtype = "bf16" }) end,
      "was begun with dtype f32, not bf16")
    refused(function() write(folder, ONE, PROMPTS) end, "was begun with other text encoders")
    refused(function() pipeline.load(FLUX, { embeddings = FLUX }) end, "holds no text embeddings")
    assert.equal(20, pipeline.load(FLUX, { embeddings = folder }).text_length)
    local path = folder .. "/embeddings-00001.safetensors"
    core.file.write(path, core.file.read(path):sub(1, -2))
    local pipe = pipeline.load(FLUX, { embeddings = folder })
    refused(function() pipe:condition { "green" } end, "00001.safetensors has %d+ bytes, its index says %d+")
    core.file.remove(path)
    refused(function() pipe:condition { "green" } end, "is not there, and index.json lists it")
    support.write(folder, "index.json", "{}")
    refused(function() pipeline.load(FLUX, { embeddings = folder }) end, "is not an index that syz embed wrote")
  end)

  it("are part of what a run is made with", function()
    local folder = support.folder()
    write(folder, ONE, PROMPTS)
    identity.forget()
    pipeline.load(ONE, { embeddings = folder })
    local before = identity.taken()
    write(folder, ONE, { "one more" })
    pipeline.load(ONE, { embeddings = folder })
    assert.matches("the embeddings .* differs from the one the run began with",
      (identity.compare(before, identity.taken())))
  end)

  it("hold many prompts without keeping all at hand", function()
    local pipe, most = pipeline.load(ONE), pipeline_text.most_bytes
    finally(function() pipeline_text.most_bytes = most end)
    local all = pipe:condition { "a", "b", "c" }
    pipeline_text.most_bytes = 2 * 4 * (all.hidden:numel() + all.pooled:numel()) / 3
    pipe.cache = {}
    local again = pipe:condition { "a", "b", "c" } -- the oldest goes, and is still part of what it was asked for
    assert.is_nil(pipe.cache.a)
    assert.is_table(pipe.cache.b and pipe.cache.c)
    assert.equal(all.hidden:hash(), again.hidden:hash())
    assert.equal(all.pooled:hash(), pipe:condition({ "a", "b", "c" }).pooled:hash())
  end)
end)

describe("syz embed", function()
  teardown(support.clean)

  it("makes them from files and flags, and says what it did", function()
    local folder, here = support.folder(), (os.getenv "PWD")
    support.write(folder, "prompts.txt", "a red cat\n# no prompt\ntwo dogs\n")
    local code, out, err = support.syz(folder, ("embed prompts.txt --prompt green --model '%s/%s' --out e"):format(here,
      ONE))
    assert.equal(0, code, err)
    assert.matches("^e: 4 prompts, 4 of them new, [%d.]+ KiB\n$", out)
    local _, shown = support.syz(folder, "inspect e")
    for _, part in ipairs { "text embeddings", "a red cat", "shard 1", ONE } do
      assert.is_truthy(shown:find(part, 1, true), shown)
    end
    code, out = support.syz(folder, ("embed prompts.txt --model '%s/%s' --out e --json --quiet"):format(here, ONE))
    assert.equal(0, code)
    local lines = support.lines(out)
    local made = core.json.decode(lines[#lines])
    assert.same({ 4, 0, 1, "e" }, { made.prompts, made.new, made.shards, made.out })
  end)

  it("names what is wrong with its flags", function()
    local function misuse(arguments, expected)
      local code, _, err = support.syz(".", "embed " .. arguments)
      assert.equal(2, code)
      assert.is_truthy(err:find(expected, 1, true), err)
    end
    misuse("", 'needs PROMPTS, a text file, or --prompt "a prompt"')
    misuse("--prompt x --out e", "needs --model DIR")
    misuse("--prompt x --model m", "needs --out DIR")
    misuse("--prompt x --model m --out e --dtype f16", '--dtype takes f32 or bf16, not "f16"')
    misuse("--prompt x --model m --out e --shard 0", "--shard takes 1 or more")
    misuse("--prompt x --model m --out e --max-length 1", "--max-length takes 2 to 65536")
  end)
end)
