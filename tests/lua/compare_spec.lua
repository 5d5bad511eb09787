local core = require "syz.core"
local compare = require "syz.compare"
local files = require "syz.files"
local pipeline = require "syz.pipeline"
local progress = require "syz.progress"
local settings = require "syz.compare_settings"
local tables = require "syz.compare_table"
local run_folder = require "syz.run"
local relative = require "syz.rewards.relative"
local methods_support = dofile "tests/lua/methods_support.lua"
local support = dofile "tests/lua/support.lua"

local FOLDER = "tests/models/data/pipeline"
local PROMPTS = { "a red cat", "two dogs", "a green hat" }

local function channel(c)
  local function score(_, images) return images:mean({ 1, 2 }):slice(1, c, c + 1):sum({ 1 }) end
  return { name = "channel" .. c, score = score }
end

-- A run's folder, new or gone on with.
local function run_in(folder, resume)
  local recipe = { path = "spec.lua", name = "spec", source = "", declared = {}, values = {} }
  return assert(run_folder.open { recipe = recipe, out = folder, resume = resume })
end

local function spec(more)
  local pipe = pipeline.load(FOLDER, { steps = 3, shift = 3, size = { 16, 16 } })
  local fields = {
    pipeline = pipe, reward = channel(0), prompts = PROMPTS, steps = 2, batch = 2, seeds = { 1, 2 },
    optimizer = { lr = 1e-3, clip = 1 },
    eval = { prompts = PROMPTS, steps = 2, grid = 2, rewards = { green = channel(1) } },
    columns = { { "reward", "reward" }, { "green", "green", digits = 2 }, { "steps", "updates", digits = 0 } },
    variants = {
      { name = "base" },
      { name = "ReFL", method = "refl", options = { last = 2 } },
      { name = "other | rate", method = "refl", options = { last = 2 }, lr = 2e-3, steps = 3 },
    },
  }
  for key, value in pairs(more or {}) do fields[key] = value end
  return fields
end

local function rows_of(folder)
  local rows = {}
  for _, entry in ipairs(files.read_lines(folder .. "/rows.jsonl")) do rows[#rows + 1] = entry.object end
  return rows
end

local function row(variant, seed, value, before)
  return { variant = variant, seed = seed, steps = 2, before = { m = before or 0 }, after = { m = value } }
end

describe("the numbers of a comparison", function()
  it("are mean and standard error by hand", function()
    local mean, err = tables.statistics { 1, 2, 6 }
    assert.near(3, mean, 1e-12)
    assert.near(math.sqrt((4 + 1 + 9) / 2 / 3), err, 1e-12)
    assert.same({ 4 }, { tables.statistics { 4 } })
    assert.same({}, { tables.statistics {} })
  end)

  it("are paired by seed", function()
    local rows = { row("a", 1, 5), row("a", 2, 7), row("a", 3, 9), row("b", 3, 6), row("b", 1, 3), row("b", 2, 4) }
    local difference, err, seeds = tables.difference(rows, "a", "b", "m")
    assert.near((2 + 3 + 3) / 3, difference, 1e-12)
    assert.near(math.sqrt((2 * (1 / 3) ^ 2 + (2 / 3) ^ 2) / 2 / 3), err, 1e-12)
    assert.equal(3, seeds)
    assert.equal(2, tables.value(row("a", 1, 5, 3), "m", "change"))
    assert.equal(3, tables.value(row("a", 1, 5, 3), "m", "before"))
  end)

  it("judge a claim by Student's t, not by two standard errors", function()
    local rows = { row("a", 1, 5), row("a", 2, 7), row("a", 3, 9), row("b", 1, 3), row("b", 2, 4), row("b", 3, 6) }
    -- difference 2.667, standard error 1/3, 4.303 of them are 1.434
    local function verdict(...) return (tables.verdict(rows, { "text", ... })) end
    assert.equal("agrees", verdict("a", ">", "b", "m"))
    assert.equal("agrees", verdict("a", ">", "b", "m", 1.23))
    assert.equal("undecided", verdict("a", ">", "b", "m", 1.24))
    assert.equal("undecided", verdict("a", ">", "b", "m", 4.1))
    assert.equal("does not agree", verdict("a", ">", "b", "m", 4.11))
    assert.equal("does not agree", verdict("a", "<", "b", "m"))
    assert.equal("agrees", verdict("b", "<", "a", "m"))
    assert.equal("agrees", verdict("a", "~", "b", "m", 4.11))
    assert.equal("undecided", verdict("a", "~", "b", "m", 2.7))
    assert.equal("does not agree", verdict("a", "~", "b", "m", 1.2))
    assert.equal("undecided", (tables.verdict({ row("a", 1, 5), row("b", 1, 3) }, { "text", "a", ">", "b", "m" })))
    assert.equal("undecided", verdict("a", ">", "c", "m"))
  end)

  it("are laid out for a terminal and in Markdown", function()
    local rows = { row("a", 1, 0.5), row("a", 2, 0.7), { variant = "b|c", seed = 1, failed = "no finite loss" } }
    local variants, columns = { { name = "a" }, { name = "b|c" } }, { { "m", "M" }, { "steps", "updates", digits = 0 } }
    assert.equal("                 M  updates\na    0.600 ± 0.100    2 ± 0\nb|c         failed   failed\n",
      (tables.plain(rows, variants, columns)))
    assert.equal("|  | M | updates |\n|---|---:|---:|\n| a | 0.600 ± 0.100 | 2 ± 0 |\n| b\\|c | failed | failed |\n",
      tables.markdown(tables.cells(rows, variants, columns)))
  end)
end)

describe("a comparison", function()
  setup(function() progress.configure { quiet = true, err = function() end } end)
  teardown(function()
    progress.configure()
    support.clean()
  end)

  it("starts every cell from the same weights and measures it on the same noise", function()
    local run, fields = run_in(support.folder()), spec()
    local hash = compare.hash(fields.pipeline.transformer)
    local schedule = fields.pipeline.schedule
    compare.experiment(fields):execute(run)
    local rows = rows_of(run.folder)
    assert.equal(6, #rows)
    local before = {}
    for _, r in ipairs(rows) do
      assert.equal(hash, r.start)
      before[r.seed] = before[r.seed] or r.before
      assert.same(before[r.seed], r.before)
    end
    assert.not_same(before[1], before[2])
    assert.same(rows[1].before, rows[1].after)
    assert.not_same(rows[2].before, rows[2].after)
    assert.same({ 0, 2, 3 }, { rows[1].steps, rows[2].steps, rows[3].steps })
    assert.is_true(rows[2].cpu_seconds > 0 and rows[2].cpu_seconds < rows[2].seconds * core.threads() + 0.1)
    -- and leaves the pipeline as it came
    assert.equal(hash, compare.hash(fields.pipeline.transformer))
    assert.equal(schedule, fields.pipeline.schedule)
    for _, name in ipairs { "table.md", "figure.svg", "pictures.png", "compare.html" } do
      assert.equal("file", core.file.exists(run.folder .. "/" .. name))
    end
    local picture = core.image.read(run.folder .. "/pictures.png"):shape()
    assert.same({ 3 * 16 + 2 * 4, 2 * 16 + 2, 3 }, { picture[1], picture[2], picture[3] })
    assert.truthy(run.shown:find("other | rate", 1, true))
  end)

  it("does not depend on which cells came before", function()
    local whole, alone = run_in(support.folder()), run_in(support.folder())
    compare.experiment(spec()):execute(whole)
    local fields = spec { seeds = { 2 } }
    table.remove(fields.variants, 2)
    compare.experiment(fields):execute(alone)
    local last = rows_of(whole.folder)[6]
    assert.equal("other | rate", last.variant)
    assert.same(last.after, rows_of(alone.folder)[2].after)
  end)

  it("takes finished cells from an earlier run and makes the others", function()
    local run = run_in(support.folder())
    compare.experiment(spec { seeds = { 1 } }):execute(run)
    local first = core.file.read(run.folder .. "/rows.jsonl")
    run = run_in(run.folder, true)
    compare.experiment(spec { seeds = { 1 } }):execute(run)
    assert.equal(first, core.file.read(run.folder .. "/rows.jsonl"))
    local fields = spec()
    fields.variants[2].options = { last = 1 } -- other settings: this cell is stale
    run = run_in(run.folder, true)
    compare.experiment(fields):execute(run)
    local rows = rows_of(run.folder)
    assert.equal(first, core.file.read(run.folder .. "/rows.jsonl"):sub(1, #first))
    assert.equal(3 + 1 + 3, #rows)
    assert.same({ "ReFL", 1 }, { rows[4].variant, rows[4].seed })
    assert.equal(1, #run.state.warnings)
    assert.truthy(run.state.warnings[1]:find("1 finished cells were made with other settings", 1, true))
    assert.equal(6, run.summarised.cells)
  end)

  it("measures on the way, ends at a target or a budget, and draws the curve", function()
    local run = run_in(support.folder())
    local fields = spec { seeds = { 1 }, curve = { x = "cpu_seconds", y = "reward" } }
    fields.variants = {
      { name = "target", method = "refl", steps = 6, every = 2, target = { reward = -1 } },
      { name = "never", method = "refl", steps = 5, every = 2, target = { reward = 2 } },
      { name = "budget", method = "refl", steps = 5, budget = 1e-9 },
    }
    compare.experiment(fields):execute(run)
    local rows = rows_of(run.folder)
    assert.same({ 2, 5, 1 }, { rows[1].steps, rows[2].steps, rows[3].steps })
    assert.equal(2, rows[1].reached.step)
    assert.is_nil(rows[2].reached)
    assert.same({ 2, 4, 5 }, { rows[2].curve[1].step, rows[2].curve[2].step, rows[2].curve[3].step })
    assert.same(rows[2].after, rows[2].curve[3].after)
    local _, drawn = core.file.read(run.folder .. "/curve.svg"):gsub("<path", "")
    assert.equal(2, drawn)
  end)

  it("keeps a variant that diverges as a result", function()
    local run, fields = run_in(support.folder()), spec { seeds = { 1 }, steps = 8 }
    local poison = { score = function(_, images) return images:mean({ 1, 2, 3 }) * (0 / 0) end }
    fields.variants = { { name = "nan", method = "refl", reward = poison }, { name = "fine", method = "refl" } }
    compare.experiment(fields):execute(run)
    local rows = rows_of(run.folder)
    assert.truthy(rows[1].failed:find("no finite loss", 1, true))
    assert.equal(8, rows[2].steps)
    assert.truthy(run.shown:find("nan +failed"))
  end)

  it("publishes when it is complete, with verdicts and the command", function()
    local run, target = run_in(support.folder()), support.folder() .. "/results"
    compare.experiment(spec { publish = target, name = "mine", title = "Mine",
      claims = { { "training helps", "ReFL", ">", "base", "reward" } },
      derive = function(before, after) return { gain = after.reward - before.reward } end,
      columns = { { "gain", "gain", digits = 6 } } }):execute(run)
    local page = core.file.read(target .. "/mine.md")
    for _, part in ipairs { "# Mine", "syz run spec.lua", "training helps", "mine.jpg",
                            "| base | 0.000000 ± 0.000000 |",
                            "refl, reward plain, updates 3, batch 2, clip 1, lr 0.002, last 2" } do
      assert.truthy(page:find(part, 1, true), part)
    end
    assert.equal("file", core.file.exists(target .. "/mine.svg"))
    assert.same(core.image.read(run.folder .. "/pictures.png"):shape(), core.image.read(target .. "/mine.jpg"):shape())
    assert.is_nil(rows_of(run.folder)[2].after.gain) -- derived, not stored
  end)

  it("refuses what it cannot do", function()
    local function refused(more) return select(2, pcall(compare.experiment, spec(more))) end
    local function has(part, more) assert.truthy(refused(more):find(part, 1, true), refused(more)) end
    has('has no field "seed"; did you mean "seeds"?', { seed = 1 })
    has("seeds must be a non-empty list", { seeds = {} })
    has("seeds[1] must be a whole number", { seeds = { 0.5 } })
    has("variants must be a non-empty list", { variants = {} })
    has('two variants are named "a"', { variants = { { name = "a" }, { name = "a" } } })
    has("needs the field name", { variants = { { method = "refl" } } })
    has('variant a: method must be', { variants = { { name = "a", method = "refI" } } })
    has('variant a has no field "step"; did you mean "steps"?', { variants = { { name = "a", step = 3 } } })
    has('variant a, eval has no field "prompts"', { variants = { { name = "a", eval = { prompts = PROMPTS } } } })
    has("set every", { variants = { { name = "a", method = "refl", target = { reward = 1 } } } })
    has("claim 1: relation must be", { claims = { { "x", "ReFL", "=", "base", "reward" } } })
    has("claim 1: variant must be", { claims = { { "x", "ReFl", ">", "base", "reward" } } })
    -- a wrong field of a method shows before anything is trained
    local run, fields = run_in(support.folder()), spec()
    fields.variants[3].options = { lasst = 1 }
    local ok, message = pcall(function() compare.experiment(fields):execute(run) end)
    assert.is_false(ok)
    assert.truthy(message:find('refl has no field "lasst"; did you mean "last"?', 1, true), message)
    assert.same({}, rows_of(run.folder))
  end)

  it("tells settings apart in its fingerprint", function()
    local comparison = compare.experiment(spec())
    local one = { name = "x", method = "refl", options = { last = 1 } }
    local seen = { [settings.fingerprint(comparison, one)] = true }
    for _, other in ipairs { { options = { last = 2 } }, { options = { last = 1 }, lr = 5 },
                             { options = { last = 1 }, prompts = { "y" } },
                             { options = { last = 1 }, reward = channel(1) },
                             { options = { last = 1 }, eval = { style = "z" } } } do
      other.name, other.method = "x", "refl"
      local print = settings.fingerprint(comparison, other)
      assert.is_nil(seen[print])
      seen[print] = true
    end
    one.name = "renamed"
    assert.is_true(seen[settings.fingerprint(comparison, one)])
  end)
end)

describe("a relative reward", function()
  local control = { positive = { "x", "yy" }, negative = { "z" } }

  it("scores the contrast of two texts", function()
    core.scope(function()
      local inner, images = methods_support.linear_reward(), core.generator(3):rand({ 2, 4, 4, 3 })
      local wrapped = relative.new(inner, { control = control, kappa = 0.5 })
      local expected = inner:relative(images, { "x. a", "yy. b" }, { "z. a", "z. b" }, 0.5):totable()
      assert.same(expected, wrapped:score(images, { "a", "b" }):totable())
    end)
  end)

  it("makes of Direct-Align what SRPO's direct difference is", function()
    local words = { positive = { "x" }, negative = { "z" } }
    local inner, norms = methods_support.linear_reward(), {}
    for i, make in ipairs {
      function(o)
        o.reward = relative.new(inner, { control = words, kappa = 0.5 })
        return require("syz.methods.direct_align").new(o)
      end,
      function(o)
        o.reward, o.form, o.control, o.kappa = inner, "difference", words, { denoise = 0.5, inversion = 0 }
        return require("syz.methods.srpo").new(o)
      end,
    } do
      local pipe = methods_support.pipeline()
      methods_support.step(make { pipeline = pipe, train_guidance = 1 })
      norms[i] = methods_support.gradient_norm(pipe)
    end
    assert.is_true(norms[1] > 0)
    assert.near(norms[1], norms[2], 1e-6 * norms[1])
  end)

  it("refuses rewards and fields that are none", function()
    local function refused(...) return select(2, pcall(relative.new, ...)) end
    assert.truthy(refused({ score = function() end }, { control = control }):find("relative(images", 1, true))
    local inner = methods_support.linear_reward()
    assert.truthy(refused(inner, {}):find("needs the field control", 1, true))
    assert.truthy(refused(inner, { control = control, kapa = 1 }):find('did you mean "kappa"', 1, true))
  end)
end)
