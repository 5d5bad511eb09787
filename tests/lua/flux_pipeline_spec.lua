-- FLUX pipelines with both text encoders, as diffusers saves them: the same features, steps and image here.

local core = require "syz.core"
local files = require "syz.files"
local loop = require "syz.loop"
local pipeline = require "syz.pipeline"
local progress = require "syz.progress"
local sampler = require "syz.sampler"
local schedule = require "syz.schedule"
local scheduler = require "syz.scheduler"
local support = dofile "tests/lua/support.lua"

local DEV, SCHNELL = "tests/models/data/flux_dev", "tests/models/data/flux_schnell"

-- The largest difference, relative to the largest value of b.
local function error_of(a, b)
  assert.same(b:shape(), a:shape())
  local n = a:numel()
  local x, y, worst, peak = a:reshape({ n }):totable(), b:reshape({ n }):totable(), 0, 0
  for i = 1, n do worst, peak = math.max(worst, math.abs(x[i] - y[i])), math.max(peak, math.abs(y[i])) end
  return worst / peak
end

local function below(limit, a, b)
  local found = error_of(a, b)
  assert.is_true(found <= limit, ("relative error %g is above %g"):format(found, limit))
end

-- The values that diffusers has, compared with ours on the way from the prompts to the image.
local function compare(folder, options)
  local asked = files.need_json(folder .. "/reference.json")
  local reference = core.safetensors.read(folder .. "/reference.safetensors")
  options.size, options.steps = { asked.height, asked.width }, asked.steps
  local pipe = pipeline.load(folder, options)
  local cond = pipe:condition(asked.prompts)
  assert.same(reference.t5_ids:totable(), (pipe.tokenizer_2:batch(asked.prompts, pipe.text_length)):totable())
  assert.same(reference.clip_ids:totable(), (pipe.tokenizer:batch(asked.prompts, pipe.pooled_length)):totable())
  assert.equal(asked.max_sequence_length, pipe.text_length)
  below(1e-5, cond.pooled, reference.pooled_prompt_embeds)
  below(1e-4, cond.hidden:slice(1, 0, 40), reference.prompt_embeds)
  local levels = pipe.schedule:levels()
  below(1e-6, core.tensor(levels, { #levels }), reference.sigmas)
  local x = sampler.euler(pipe, {
    noise = reference.latents_0, cond = cond, schedule = pipe.schedule, guidance = asked.guidance,
    visit = function(i, _, latents) below(1e-4, latents, reference["latents_" .. i - 1]) end,
  })
  below(1e-4, x, reference["latents_" .. asked.steps])
  below(1e-4, pipe:decode(x):permute { 0, 3, 1, 2 }, reference.image)
  return pipe
end

local function copy(from, to)
  core.file.mkdir(to)
  for _, name in ipairs(core.file.list(from)) do
    if core.file.exists(from .. "/" .. name) == "folder" then
      copy(from .. "/" .. name, to .. "/" .. name)
    else
      core.file.write(to .. "/" .. name, core.file.read(from .. "/" .. name))
    end
  end
  return to
end

describe("a FLUX pipeline", function()
  local notes
  before_each(function()
    notes = {}
    progress.configure { terminal = { tty = false, width = 80 }, err = function(s) notes[#notes + 1] = s end }
  end)
  teardown(function()
    support.clean()
    progress.configure()
  end)

  it("computes the modulation of all steps of a rollout at once, within rounding what each step computes", function()
    for folder, guidance in pairs { [DEV] = 3.5, [SCHNELL] = 2.5 } do -- schnell: guidance against the empty prompt
      local pipe = pipeline.load(folder, { size = { 16, 16 }, steps = 3 })
      local cond = pipe:condition { "a cat", "a dog" }
      local options = { noise = pipe:noise(core.generator(1), 2), cond = cond, schedule = pipe.schedule,
        guidance = function(level) return level > 0.5 and guidance or 1 end }
      local calls, modulation = 0, pipe.modulation
      pipe.modulation = function(...)
        local list = modulation(...)
        if list then calls = calls + 1 end
        return list
      end
      local ahead = sampler.euler(pipe, options)
      assert.equal(1, calls)
      pipe.modulation_batch = 1 -- fewer than the prompts
      local stepwise = sampler.euler(pipe, options)
      assert.equal(1, calls)
      below(1e-5, ahead, stepwise)
      assert.is_true(error_of(ahead, options.noise) > 0.1)
      local rows = modulation(setmetatable({ modulation_batch = 2 }, { __index = pipe }), { 0.9, 0.4 }, cond, { 3, 1 })
      local v = pipe:velocity(options.noise, 0.9, cond, 3)
      below(1e-5, pipe:velocity(options.noise, 0.9, cond, 3, rows[1]), v)
      assert.is_true(error_of(pipe:velocity(options.noise, 0.9, cond, 3, rows[2]), v) > 1e-4)
    end
  end)

  it("with guidance and a shift that depends on the size draws what diffusers draws", function()
    local pipe = compare(DEV, {})
    assert.equal(3.5, pipe.default_guidance)
    assert.is_true(pipe.schedule.shift > 1.59 and pipe.schedule.shift < 1.60)
  end)

  it("with few steps, on an image that is not square", function()
    local pipe = compare(SCHNELL, {})
    assert.equal(1, pipe.schedule.shift)
    assert.equal(1, pipe.default_guidance)
    assert.equal(4, pipeline.load(SCHNELL).schedule.steps)
    assert.equal(28, pipeline.load(DEV).schedule.steps)
  end)

  it("draws the same from weights that stay as they are stored", function()
    compare(DEV, { dtype = "stored" })
  end)

  it("computes from bf16 as it is stored what it computes from the same numbers in f32", function()
    local folder = support.folder()
    pipeline.load(DEV):save(folder, { dtype = "bf16" })
    local images = {}
    for i, dtype in ipairs { "stored", "f32" } do
      local pipe = pipeline.load(folder, { dtype = dtype, size = { 16, 16 } })
      for _, name in ipairs { "transformer", "vae", "text_encoder", "text_encoder_2" } do
        assert.equal(dtype == "stored" and "bf16" or "f32", pipe[name]:parameters()[1]:dtype())
      end
      images[i] = pipe:sample { prompts = { "a red cat" }, steps = 2 }
    end
    below(1e-5, images[1], images[2])
  end)

  it("is saved so that it loads again, and the scheduler with it", function()
    local folder = support.folder()
    pipeline.load(DEV):save(folder, { max_shard_bytes = 60000 })
    local index = files.need_json(folder .. "/model_index.json")
    assert.same({ "transformers", "T5EncoderModel" }, index.text_encoder_2)
    assert.equal("file", core.file.exists(folder .. "/transformer/diffusion_pytorch_model.safetensors.index.json"))
    for _, name in ipairs { "reference.json", "reference.safetensors" } do
      core.file.write(folder .. "/" .. name, core.file.read(DEV .. "/" .. name))
    end
    compare(folder, {})
    local function saved() return files.need_json(folder .. "/scheduler/scheduler_config.json") end
    assert.is_true(saved().use_dynamic_shifting)
    local pipe = pipeline.load(folder)
    pipe.schedule = schedule.flow { steps = 5, shift = 3 }
    pipe:save(folder)
    assert.same({ 3, false }, { saved().shift, saved().use_dynamic_shifting })
  end)

  it("follows its scheduler when it is resized, and a schedule of one's own stays", function()
    local pipe = pipeline.load(DEV, { size = { 32, 32 } })
    local small = pipe.schedule.shift
    pipe:resize(64, 64)
    assert.is_true(pipe.schedule.shift > small)
    pipe.schedule = schedule.flow { shift = 3 }
    pipe:resize(32, 32)
    assert.equal(3, pipe.schedule.shift)
    assert.equal(2, pipeline.load(DEV, { shift = 2 }).schedule.shift)
  end)

  it("takes paths in place of its parts, and needs no index when its files tell", function()
    local folder = copy(SCHNELL, support.folder() .. "/p")
    core.file.remove_tree(folder .. "/transformer")
    core.file.remove(folder .. "/model_index.json")
    assert.error_matches(function() pipeline.load(folder) end, "is not a pipeline folder")
    core.file.remove_tree(folder .. "/scheduler")
    local pipe = pipeline.load(folder, { transformer = SCHNELL .. "/transformer", size = { 16, 28 } })
    assert.equal(1, pipe.schedule.shift)
    pipe = pipeline.load(folder, { transformer = DEV .. "/transformer", size = { 32, 32 } })
    assert.is_true(pipe.guidance_embeds and pipe.schedule.shift > 1.59)
    assert.error_matches(function() pipeline.load(folder, { transformer = DEV .. "/vae" }) end,
      "flux_dev/vae holds AutoencoderKL weights; those of FluxTransformer2DModel are needed there")
    assert.error_matches(function() pipeline.load(SCHNELL, { vae = "no/such" }) end, "no/such: there is no such vae")
    assert.error_matches(function() pipeline.load(SCHNELL, { vea = "x" }) end, 'no field "vea"; did you mean "vae"')
  end)

  it("takes files by themselves, and what they tell is what the folders say", function()
    local folder = support.folder()
    for model, name in pairs { [DEV] = "dev", [SCHNELL] = "schnell" } do
      pipeline.load(model):save(folder .. "/" .. name)
      core.file.remove(folder .. "/" .. name .. "/text_encoder_2/config.json") -- T5 alone tells its configuration
    end
    local transformer = "/transformer/diffusion_pytorch_model.safetensors"
    compare(SCHNELL, { transformer = folder .. "/schnell" .. transformer,
                       text_encoder_2 = folder .. "/schnell/text_encoder_2/model.safetensors" })
    compare(DEV, { transformer = folder .. "/dev" .. transformer, dtype = "stored" })
    assert.equal(28, pipeline.load(SCHNELL, { transformer = folder .. "/dev" .. transformer }).schedule.steps)
  end)

  it("reads the single file of the original release", function()
    local folder = copy(SCHNELL, support.folder() .. "/p")
    core.file.remove_tree(folder .. "/transformer")
    core.file.remove(folder .. "/model_index.json")
    local file = folder .. "/flux1-schnell.safetensors"
    core.file.write(file, core.file.read "tests/models/data/layouts/flux_schnell.safetensors")
    assert.equal(file, require("syz.pipeline_folder").find(folder, "transformer", {}))
    assert.equal(4, require("syz.pipeline_folder").published(folder, {}).steps)
    core.file.write(folder .. "/flux1-dev.safetensors", core.file.read "tests/models/data/layouts/flux_dev.safetensors")
    assert.error_matches(function() pipeline.load(folder) end,
      "flux1%-dev.safetensors and flux1%-schnell.safetensors: name one")
  end)

  it("is drawn with by the command, in any size", function()
    local folder, here = support.folder(), os.getenv "PWD"
    local code, _, err = support.syz(folder, ("sample 'a red cat' --n 1 --model '%s/%s' --size 28x16"):format(here,
      SCHNELL))
    assert.equal(0, code, err)
    assert.same({ 16, 28, 3 }, core.image.read(folder .. "/sample.png"):shape())
    code, _, err = support.syz(folder, ("sample x --model '%s/%s' --size 30"):format(here, SCHNELL))
    assert.equal(1, code)
    assert.is_truthy(err:find("image sides must be multiples of 4, not 30x30", 1, true), err)
    code, _, err = support.syz(folder, ("sample x --model '%s/%s' --size 0"):format(here, SCHNELL))
    assert.equal(1, code)
    assert.is_truthy(err:find("image sides must be multiples of 4, not 0x0", 1, true), err)
    code, _, err = support.syz(folder, ("sample x --model '%s/%s' --size big"):format(here, SCHNELL))
    assert.equal(2, code)
    assert.is_truthy(err:find("--size takes N or WxH", 1, true), err)
  end)

  it("refuses a size that is not two sides", function()
    for _, size in ipairs { { 16 }, { 16, 16, 3 } } do
      assert.error_matches(function() pipeline.load(SCHNELL, { size = size }) end,
        "size must be { height, width }, in pixels", 1, true)
    end
  end)

  it("refuses a length that holds no token", function()
    assert.error_matches(function() pipeline.load(SCHNELL, { max_length = 0 }) end,
      "max_length must be at least 2, not 0")
  end)

  it("says which part is missing", function()
    local folder = copy(SCHNELL, support.folder() .. "/p")
    core.file.remove_tree(folder .. "/tokenizer_2")
    assert.error_matches(function() pipeline.load(folder) end, "p lacks the folder tokenizer_2 with its tokenizer")
    core.file.remove_tree(folder .. "/text_encoder_2")
    assert.error_matches(function() pipeline.load(folder) end,
      "p lacks the folder text_encoder_2 with the weights of T5EncoderModel")
    assert.error_matches(function() pipeline.load("tests/models/data/pipeline", { max_length = 20 }) end,
      "its one text encoder reads 14 tokens, max_length says 20")
  end)

  it("gets f32 weights when it is trained, and says what they take", function()
    local folder = support.folder()
    local pipe = pipeline.load(DEV)
    pipe:save(folder, { dtype = "bf16" })
    pipe = pipeline.load(folder, { dtype = "stored" })
    assert.equal("bf16", pipe.transformer:parameters()[1]:dtype())
    local before = pipe.transformer:parameters()[1]:to("f32"):totable()
    loop.trainable { transformer = pipe.transformer }
    local first = pipe.transformer:parameters()[1]
    assert.same({ "f32", true }, { first:dtype(), first:requires_grad() })
    assert.same(before, first:totable())
    assert.matches("transformer: [%d,]+ parameters become f32 to be trained and take %d", notes[#notes])
    pipe = pipeline.load(folder, { dtype = "stored" })
    pipe:save(folder .. "/again")
    local header = core.safetensors.header(folder .. "/again/transformer/diffusion_pytorch_model.safetensors")
    assert.equal("BF16", header[1].dtype)
  end)
end)

describe("a scheduler's configuration", function()
  it("gives diffusers' shift", function()
    local published = scheduler.published(true)
    assert.is_true(math.abs(scheduler.shift(published, 4096) - math.exp(1.15)) < 1e-12)
    assert.is_true(math.abs(scheduler.shift(published, 256) - math.exp(0.5)) < 1e-12)
    published.time_shift_type = "linear"
    assert.is_true(math.abs(scheduler.shift(published, 4096) - 1.15) < 1e-12)
    assert.equal(1, scheduler.shift(scheduler.published(false), 4096))
  end)

  it("is refused where it asks for something else", function()
    local function refused(config, expected)
      assert.error_matches(function() scheduler.check(config, "s.json") end, expected)
    end
    refused({ shift = 0 }, 's.json: "shift" must be a number above 0')
    refused({ use_karras_sigmas = true }, '"use_karras_sigmas" asks for a grid that is not implemented here')
    refused({ shift_terminal = 0.02 }, '"shift_terminal" asks for a grid')
    refused({ time_shift_type = "cubic" }, '"time_shift_type" must be "exponential" or "linear"')
    refused({ use_dynamic_shifting = true, base_image_seq_len = 4096 }, '"max_image_seq_len" must differ')
    assert.is_table(scheduler.check({ shift_terminal = core.null, invert_sigmas = false }, "s.json"))
  end)
end)
