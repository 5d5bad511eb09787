--- LoRA from Lua: adapters on a pipeline and on any model, what methods, the trainer and the program make of them.
--- (tests/models/lora.c compares them with peft.)
local core = require "syz.core"
local checkpoint = require "syz.checkpoint"
local compare = require "syz.compare"
local files = require "syz.files"
local grpo = require "syz.methods.grpo"
local lora = require "syz.lora"
local optim = require "syz.optim"
local pipeline = require "syz.pipeline"
local progress = require "syz.progress"
local refl = require "syz.methods.refl"
local run_folder = require "syz.run"
local methods = dofile "tests/lua/methods_support.lua"
local support = dofile "tests/lua/support.lua"

local PIPELINE = "tests/models/data/pipeline"
local WEIGHTS = "/pytorch_lora_weights.safetensors"

local function tiny(options) return pipeline.load(PIPELINE, options or { size = { 16, 16 } }) end

-- Adapters that do something: B at random.
local function adapted(options)
  local pipe = tiny()
  pipe:lora(options or { rank = 2 })
  core.scope(function()
    for i, tensor in ipairs(pipe.adapter:parameters()) do
      if i % 2 == 0 then tensor:assign(core.generator(7, i):randn(tensor:shape()) * 0.5) end
    end
  end)
  return pipe
end

local function picture(pipe)
  return core.scope(function()
    return pipe:sample { prompts = { "a red cat" }, steps = 3, seed = 1 }:reshape({ 16 * 16 * 3 }):totable()
  end)
end

local function distance(a, b)
  local most = 0
  for i = 1, #a do most = math.max(most, math.abs(a[i] - b[i])) end
  return most
end

describe("adapters on a pipeline", function()
  teardown(support.clean)

  it("are declared in one table, whose mistakes are named", function()
    local refused = {
      { { rnak = 2 }, 'lora has no field "rnak"; did you mean "rank"?' },
      { { rank = "two" }, "lora: rank must be an integer" },
      { { rank = 17 }, "rank 17 of transformer_blocks.0.attn.to_q must be a whole number from 1 to 16" },
      { { targets = { "attn.to_k", "attn.to_y" } }, 'has no linear layer "attn.to_y"; did you mean "attn.to_' },
      { { targets = { "ff.net.1" } }, 'has no linear layer "ff.net.1"; did you mean "ff.net.2"?' },
      { { targets = "atention" }, 'lora: targets must be "attention", "blocks" or "all-linear"' },
      { { init = "zeros" }, 'lora: init must be "kaiming" or "gaussian"' },
      { { load = "tests/none" }, "tests/none" },
      { { load = "tests/lua" }, "tests/lua: holds no adapters" },
      { { load = "x", rank = 2 }, "lora: rank comes from the file that is loaded" },
      { { scale = 0 / 0 }, "lora: scale must be a finite number" },
    }
    for _, case in ipairs(refused) do
      local pipe = tiny()
      local ok, raised = pcall(pipe.lora, pipe, case[1])
      assert.is_false(ok)
      assert.is_truthy(tostring(raised):find(case[2], 1, true), tostring(raised) .. "\nlacks " .. case[2])
      assert.is_nil(pipe.adapter)
    end
    local pipe = tiny()
    assert.error_matches(function() pipe:merge_lora() end, "no LoRA adapters to merge")
    pipe:lora {}
    assert.error_matches(function() pipe:lora {} end, "has LoRA adapters already")
  end)

  it("adapt the layers that diffusers' training script does, unless told otherwise", function()
    local function layers(options)
      local pipe = tiny()
      local adapter = pipe:lora(options)
      return #adapter:names() / 2, adapter:config()
    end
    local count, config = layers {}
    assert.equal(4 + 3 + 1 + 4 + 2 * 3, count) -- one double block has 12 of them, a single block q, k and v
    assert.equal(8, config.r)
    assert.equal(8, config.lora_alpha)
    assert.equal(4 + 2 * 3, (layers { targets = "attention" }))
    assert.equal(10 + 14 + 2 * 6, (layers { targets = "all-linear", rank = 2 }))
    count, config = layers { targets = { "norm_out.linear", "attn.to_q" }, rank = 4, alpha = 2, rslora = true,
                             rank_pattern = { ["attn.to_q"] = 3 }, init = "gaussian" }
    assert.equal(1 + 3, count)
    assert.same({ 4, 2, true, "gaussian" },
      { config.r, config.lora_alpha, config.use_rslora, config.init_lora_weights })
    assert.equal(3, config.rank_pattern["^transformer_blocks.0.attn.to_q"])
  end)

  it("say how many they would be at another depth", function()
    local pipe, own = tiny(), 0
    local adapter = pipe:lora { rank = 3, targets = { "attn.to_q", "ff.net.2", "proj_out", "norm_out.linear" } }
    for _, tensor in ipairs(adapter:parameters()) do own = own + tensor:numel() end
    assert.equal(own, adapter:count(pipe.transformer))
    local config = pipe.transformer:config()
    config.num_layers, config.num_single_layers = config.num_layers + 2, config.num_single_layers + 3
    -- width 16: q 16 -> 16 in every block, ff.net.2 64 -> 16 in double ones, proj_out 80 -> 16 in single ones
    assert.equal(own + 2 * 3 * (32 + 80) + 3 * 3 * (32 + 96), adapter:count(core.model.create(config)))
  end)

  it("change nothing at first, and nothing while disabled", function()
    local plain = picture(tiny())
    local pipe = tiny()
    pipe:lora { rank = 2 }
    assert.equal(0, distance(plain, picture(pipe)))
    pipe = adapted()
    assert.is_true(distance(plain, picture(pipe)) > 0.01)
    assert.equal(0, distance(plain, pipe.adapter:disabled(picture, pipe)))
    assert.error_matches(function() pipe.adapter:disabled(error, "inside") end, "inside")
    assert.is_true(distance(plain, picture(pipe)) > 0.01)
  end)

  it("are saved, loaded with a scale, and merged", function()
    local pipe, folder = adapted { rank = 2, alpha = 6, targets = "all-linear" }, support.folder()
    local plain, wanted = picture(tiny()), picture(pipe)
    pipe.adapter:save(folder)
    local function loaded(options)
      local other = tiny()
      options.load = options.load or folder
      other:lora(options)
      return other
    end
    assert.equal(0, distance(wanted, picture(loaded {})))
    assert.equal(0, distance(wanted, picture(loaded { load = folder .. WEIGHTS })))
    assert.equal(0, distance(plain, picture(loaded { scale = 0 })))
    pipe:save(folder .. "/whole")
    assert.equal("file", core.file.exists(folder .. "/whole/lora" .. WEIGHTS))
    assert.equal(0, distance(plain, picture(pipeline.load(folder .. "/whole", { size = { 16, 16 } }))))
    pipe:merge_lora()
    assert.is_nil(pipe.adapter)
    assert.is_true(distance(wanted, picture(pipe)) < 1e-4)
    pipe:save(folder .. "/merged")
    assert.is_nil(core.file.exists(folder .. "/merged/lora"))
    assert.equal(0, distance(picture(pipe), picture(pipeline.load(folder .. "/merged", { size = { 16, 16 } }))))
    local half = loaded { scale = 0.5 }
    local values = picture(half)
    half:merge_lora()
    assert.is_true(distance(values, picture(half)) < 1e-4)
    assert.is_true(distance(wanted, values) > 0.01)
  end)

  it("are all that a method moves, also on a base that stays in bf16", function()
    local folder = support.folder()
    tiny():save(folder .. "/bf16", { dtype = "bf16" })
    collectgarbage()
    collectgarbage()
    local before = core.memory().live
    local pipe = pipeline.load(folder .. "/bf16", { size = { 16, 16 }, dtype = "stored" })
    pipe:lora { rank = 2 }
    local bytes = 0
    for _, tensor in ipairs(pipe.adapter:parameters()) do bytes = bytes + tensor:numel() * 4 end
    -- the weights are the file's own memory: only the adapters and the position ids were allocated
    assert.is_true(core.memory().live - before < 4 * bytes, core.memory().live - before .. " bytes for " .. bytes)
    assert.error_matches(function() optim.adamw {}:bind(pipe.transformer:parameters()) end,
      "parameter 0 lies in a file that is mapped, read%-only: .* or train LoRA adapters")
    local hash = compare.hash(pipe.transformer)
    local method = refl.new { pipeline = pipe, reward = methods.linear_reward(), rollout_steps = 3,
                              train_guidance = 1 }
    lora.redirect(method)
    assert.same({ lora = pipe.adapter }, method.modules)
    local optimizer, losses = optim.adamw { lr = 1e-2, clip = 1, weight_decay = 0 }, {}
    optimizer:bind(pipe.adapter:parameters())
    for i = 1, 12 do
      losses[i] = methods.step(method).loss
      optimizer:update(i, 12)
    end
    assert.is_true(losses[12] < losses[1])
    assert.equal(hash, compare.hash(pipe.transformer))
    assert.equal("bf16", pipe.transformer:param("proj_out.weight"):dtype())
    for _, parameter in ipairs(pipe.transformer:parameters()) do assert.is_nil(parameter:grad()) end
  end)

  it("have the same gradients when blocks are computed again", function()
    local gradients = {}
    for k, on in ipairs { false, true } do
      local pipe = adapted { rank = 2, targets = "attention" }
      pipe.transformer:checkpointing(on)
      local method = refl.new { pipeline = pipe, reward = methods.linear_reward(), rollout_steps = 3 }
      lora.redirect(method)
      methods.step(method)
      gradients[k] = {}
      for i, parameter in ipairs(pipe.adapter:parameters()) do gradients[k][i] = parameter:grad():hash() end
    end
    assert.equal(20, #gradients[1])
    assert.same(gradients[1], gradients[2])
  end)

  it("are the distance from GRPO's reference, which is the model without them", function()
    local pipe = tiny()
    pipe:lora { rank = 2 }
    local made = grpo.new { pipeline = pipe, reward = methods.linear_reward(), form = "flow", kl = 1, group = 2,
                            rollout_steps = 3 }
    assert.equal(pipe.transformer, made.frozen.transformer)
    lora.redirect(made)
    local optimizer = optim.adamw { lr = 1e-2, clip = 1 }
    optimizer:bind(pipe.adapter:parameters())
    local hash = compare.hash(pipe.transformer)
    local first = methods.step(made, 1)
    optimizer:update(1, 2)
    local second = methods.step(made, 2)
    assert.equal(0, first.kl)
    assert.is_true(second.kl > 0)
    assert.equal(hash, compare.hash(pipe.transformer))
    assert.is_true(distance(picture(tiny()), pipe.adapter:disabled(picture, pipe)) == 0)
  end)
end)

describe("adapters on any model", function()
  teardown(support.clean)

  it("train by syz.fit's contract and are saved in PEFT's layout", function()
    local folder = support.folder()
    local model = core.model.load "tests/models/data/clip_a"
    assert.error_matches(function() lora(model, {}) end, "targets must name layers of CLIPModel")
    local adapter = lora(model, { rank = 2, targets = { "q_proj", "visual_projection" } })
    assert.equal(0, #adapter:names() % 2)
    assert.is_truthy(adapter:names()[1]:match("^text_model%.encoder%.layers%.0%.self_attn%.q_proj%.lora_A%.weight$"))
    local b = adapter:param "visual_projection.lora_B.weight"
    core.scope(function() b:assign(core.ones(b:shape())) end)
    adapter:save(folder)
    assert.equal("LORA", files.read_json(folder .. "/adapter_config.json").peft_type)
    core.scope(function() b:assign(core.zeros(b:shape())) end)
    adapter:restore(folder)
    assert.equal(1, b:totable()[1])
    core.file.remove(folder .. "/adapter_config.json")
    assert.error_matches(function() adapter:restore(folder) end, "adapter_config.json: missing")
  end)
end)

describe("a run with adapters", function()
  local folder
  before_each(function() folder = support.folder() end)
  teardown(support.clean)

  local function run(arguments, code)
    local got, out, err = support.syz(".", arguments)
    assert.equal(code or 0, got, err)
    return err, out
  end

  it("saves adapters alone, and is evaluated and sampled from them", function()
    local out = folder .. "/o"
    run(("run tests/recipes/tiny.lua -q --out %s --set rank=2 --set lr=5e-2"):format(out))
    assert.same({ "lora" }, core.file.list(out .. "/model"))
    local newest = checkpoint.list(out)[2].path
    assert.equal("file", core.file.exists(newest .. "/lora" .. WEIGHTS))
    assert.is_nil(core.file.exists(newest .. "/transformer"))
    assert.equal(core.file.sha256(newest .. "/lora" .. WEIGHTS), core.file.sha256(out .. "/model/lora" .. WEIGHTS))
    local summary = files.read_json(out .. "/summary.json")
    run(("eval %s -q"):format(out))
    local measured = files.read_json(out .. "/eval-model.json").metrics
    assert.near(summary.reward.after, measured.reward.after, 1e-9)
    assert.near(summary.reward.before, measured.reward.before, 1e-9)
    assert.not_equal(measured.reward.before, measured.reward.after)

    -- the run's folder, its adapters on the pipeline, and the merged pipeline draw the same; without them, another
    run(("merge %s %s/model/lora %s/merged"):format(PIPELINE, out, folder))
    local pictures = {}
    for name, model in pairs { run = out, adapters = PIPELINE .. " --lora " .. out .. "/model/lora",
                               none = PIPELINE .. " --lora " .. out .. "/model/lora --lora-scale 0",
                               plain = PIPELINE, merged = folder .. "/merged" } do
      local path = ("%s/%s.png"):format(folder, name)
      run(("sample cat -q --n 1 --steps 2 --out %s --model %s"):format(path, model))
      core.scope(function() pictures[name] = core.image.read(path):to("f32"):copy():keep() end)
    end
    core.scope(function()
      local function apart(a, b) return (pictures[a] - pictures[b]):abs():mean():item() end
      assert.equal(0, apart("run", "adapters"))
      assert.equal(0, apart("none", "plain"))
      assert.is_true(apart("run", "plain") > 0.5)
      assert.is_true(apart("run", "merged") < 0.1)
    end)
    local config = core.file.read(out .. "/config.yaml")
    core.file.write(out .. "/config.yaml", "steps: 1\n")
    assert.is_truthy(run(("sample cat --model %s"):format(out), 1):find(
      ("no option `model` to name the pipeline; say --model PIPELINE --lora %s/model/lora"):format(out), 1, true))
    core.file.write(out .. "/config.yaml", config)
    assert.is_truthy(run(("merge %s %s/model/lora %s/merged"):format(PIPELINE, out, folder), 2):find("exists", 1, true))
    assert.is_truthy(run(("merge %s %s/model/lora x --dtype f64"):format(PIPELINE, out), 2):find(
      '--dtype takes f32, bf16 or f16, not "f64"', 1, true))
    run(("merge %s %s/model/lora %s/half --dtype bf16 --transformer-only"):format(PIPELINE, out, folder))
    assert.same({ "transformer" }, core.file.list(folder .. "/half"))
    core.scope(function()
      local weight = "transformer_blocks.0.attn.to_q.weight"
      local full = core.model.load(folder .. "/merged/transformer"):param(weight)
      local half = core.model.load_stored(folder .. "/half/transformer"):param(weight)
      assert.equal("bf16", half:dtype())
      assert.equal(full:to("bf16"):hash(), half:hash())
    end)

    progress.configure { quiet = true, err = function() end }
    local shown = require("syz.study_sources").runs({ out }, { seed = 1, steps = 2, images = 1, baseline = true })
    progress.configure()
    assert.is_string(shown.pictures[1][1].bytes)
    assert.not_equal(shown.pictures[1][1].bytes, shown.pictures[2][1].bytes)
    local err = run("sample cat --lora-scale 2 --model " .. PIPELINE, 2)
    assert.is_truthy(err:find("--lora-scale needs --lora", 1, true))
  end)

  it("goes on with the adapters it began with only", function()
    local from, out = folder .. "/from", folder .. "/o"
    adapted { rank = 2 }.adapter:save(from)
    run(("run tests/recipes/tiny.lua -q --out %s --set steps=2 --set from=%s"):format(out, from))
    adapted { rank = 2, alpha = 5 }.adapter:save(from)
    assert.is_truthy(run(("run tests/recipes/tiny.lua -q --resume %s --set steps=4 --set from=%s"):format(out, from), 2)
      :find("the LoRA " .. from .. " differs from the one the run began with", 1, true))
    out = folder .. "/p"
    run(("run tests/recipes/tiny.lua -q --out %s --set steps=2 --set rank=2"):format(out))
    assert.is_truthy(run(("run tests/recipes/tiny.lua -q --resume %s --set steps=4 --set rank=3"):format(out), 1)
      :find("has rank 2 and scale 1 there, 3 and 1 here", 1, true))
  end)

  it("keeps its best adapters, averaged where it is asked to", function()
    local out = folder .. "/o"
    run(("run tests/recipes/hacked.lua -q --out %s --set rank=4 --set ema=0.5 --set lr=2e-2"):format(out))
    local record = files.read_json(out .. "/run.json")
    assert.is_truthy(record.stopped, "the rule did not stop the run")
    assert.is_true(record.kept_step < record.step)
    local best = ("%s/checkpoints/%s"):format(out, checkpoint.name(record.kept_step))
    assert.equal(core.file.sha256(best .. "/lora" .. WEIGHTS), core.file.sha256(out .. "/model/lora" .. WEIGHTS))
    assert.equal("file", core.file.exists(best .. "/unaveraged.safetensors"))
    run(("eval %s -q --checkpoint best"):format(out))
    local kept = files.read_json(("%s/eval-%s.json"):format(out, checkpoint.name(record.kept_step))).metrics
    assert.near(files.read_json(out .. "/summary.json").tone.after, kept.tone.after, 1e-9)
  end)
end)

describe("a comparison", function()
  setup(function() progress.configure { quiet = true, err = function() end } end)
  teardown(function()
    progress.configure()
    support.clean()
  end)

  local function rows_of(variants, pipe)
    local folder = support.folder()
    local recipe = { path = "spec.lua", name = "spec", source = "", declared = {}, values = {} }
    local run = assert(run_folder.open { recipe = recipe, out = folder })
    compare.experiment {
      pipeline = pipe, reward = methods.linear_reward(), prompts = { "a red cat", "two dogs" }, steps = 2, batch = 2,
      seeds = { 1, 2 }, eval = { prompts = { "a red cat" }, steps = 2 }, columns = { { "reward", "reward" } },
      optimizer = { lr = 1e-2, clip = 1 }, variants = variants, publish = "",
    }:execute(run)
    local rows = {}
    for _, entry in ipairs(files.read_lines(folder .. "/rows.jsonl")) do
      rows[entry.object.variant .. entry.object.seed] = entry.object
    end
    return rows
  end

  it("gives a variant adapters of its own and takes them off again", function()
    local pipe = tiny()
    local hash = compare.hash(pipe.transformer)
    local options = { rollout_steps = 3, train_guidance = 1 }
    local rows = rows_of({ { name = "full", method = "refl", options = options },
                           { name = "lora", method = "refl", options = options, lora = { rank = 2 } },
                           { name = "average", method = "refl", options = options, ema = 0.9 } }, pipe)
    for _, name in ipairs { "full", "lora", "average" } do
      assert.not_equal(rows[name .. 1].before.reward, rows[name .. 1].after.reward)
    end
    assert.not_equal(rows.full1.after.reward, rows.lora1.after.reward)
    -- the average has moved less
    assert.is_true(math.abs(rows.average1.after.reward - rows.average1.before.reward)
      < math.abs(rows.full1.after.reward - rows.full1.before.reward))
    assert.is_nil(pipe.adapter)
    assert.equal(hash, compare.hash(pipe.transformer))
  end)

  it("starts every cell from the adapters that the pipeline came with", function()
    local pipe = adapted()
    local hash = compare.hash(pipe.adapter)
    local rows = rows_of({ { name = "a", method = "refl", options = { rollout_steps = 3, train_guidance = 1 } } }, pipe)
    assert.equal(rows.a1.start, rows.a2.start)
    assert.not_equal(rows.a1.before.reward, rows.a1.after.reward)
    assert.equal(hash, compare.hash(pipe.adapter))
    assert.error_matches(function() rows_of({ { name = "a", method = "refl", lora = {} } }, pipe) end,
      "the pipeline has LoRA adapters already")
  end)
end)
