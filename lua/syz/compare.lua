--- syz.compare: named variants of a training, from the same weights, under the same evaluation, over several seeds.
--
-- A cell is one variant with one seed. Each starts from the weights that the pipeline has now (their hash is checked),
-- trains with random numbers of its seed, and is measured on the same prompts with noise that depends on the seed
-- alone, so that two variants differ in nothing else. `rows.jsonl` gets a line per finished cell; a resumed comparison
-- takes them from there and makes the rest. CPU-seconds are the process's, of the training steps alone.
local average = require "syz.average"
local core = require "syz.core"
local data = require "syz.data"
local disk = require "syz.disk"
local evaluation = require "syz.eval"
local fields = require "syz.fields"
local files = require "syz.files"
local images = require "syz.images"
local loop = require "syz.loop"
local lora = require "syz.lora"
local optim = require "syz.optim"
local precision = require "syz.precision"
local progress = require "syz.progress"
local results = require "syz.compare_results"
local settings = require "syz.compare_settings"
local text = require "syz.text"

local M = {}

---@class syz.Comparison
local Comparison = {}
Comparison.__index = Comparison

local SPEC = {
  title = "string", about = "string", pipeline = "table", reward = "table", prompts = "table", steps = "integer",
  batch = "integer", seeds = "table", optimizer = "table", precision = "string", eval = "table", columns = "table",
  variants = "table", claims = "table", curve = "table", conclude = "function", derive = "function",
  publish = "string", name = "string", against = "string",
}

local VARIANT = {
  name = "string", method = "string|function", options = "table", reward = "table", prompts = "table", eval = "table",
  lr = "number", clip = "number", weight_decay = "number", steps = "integer", batch = "integer", every = "integer",
  target = "table", budget = "number", colour = "integer", lora = "table", ema = "number|table",
}

-- A variant's evaluation may see the same images with other eyes; it may not draw other images.
local EYES = { style = "string", judge = "table", control = "table|string|function", reward = "table",
               rewards = "table", subjects = "table" }

local CELL_SEEDS = 1000 -- evaluation seeds of one training seed: room for as many images

local function check_variants(list)
  local taken = {}
  if #list == 0 then error("syz.compare: variants must be a non-empty list", 3) end
  for i, variant in ipairs(list) do
    local owner = ("syz.compare, variant %s"):format(type(variant) == "table" and variant.name or i)
    fields.check(owner, variant, VARIANT, 3)
    if not variant.name then error(owner .. " needs the field name", 3) end
    if taken[variant.name] then error(("syz.compare: two variants are named %q"):format(variant.name), 3) end
    taken[variant.name] = true
    if variant.ema then average.read(variant.ema, owner, 3) end
    if variant.eval then fields.check(owner .. ", eval", variant.eval, EYES, 3) end
    if type(variant.method) == "string" then
      fields.choice(owner, "method", variant.method, fields.names(require("syz").methods), 3)
    end
    for name in pairs(variant.target or {}) do
      if not variant.every then
        error(("%s: target.%s is looked at in evaluations; set every, the steps between them"):format(owner, name), 3)
      end
    end
  end
  return taken
end

local function check_claims(claims, names)
  for i, claim in ipairs(claims) do
    local owner = ("syz.compare, claim %d"):format(i)
    if type(claim) ~= "table" or type(claim[1]) ~= "string" or type(claim[5]) ~= "string" then
      error(owner .. ' must be { "what is claimed", "A", ">", "B", "metric" }', 3)
    end
    fields.choice(owner, "relation", claim[3], { ">", "<", "~" }, 3)
    for _, which in ipairs { claim[2], claim[4] } do
      fields.choice(owner, "variant", which, fields.names(names), 3)
    end
  end
end

-- What a method sets on its pipeline.
local SET_BY_METHODS = { "schedule", "quantize_timestep", "quantize_guidance" }

local function settings_of(pipe)
  local held = {}
  for _, name in ipairs(SET_BY_METHODS) do held[name] = pipe[name] end
  return held
end

local function set(pipe, held)
  for _, name in ipairs(SET_BY_METHODS) do pipe[name] = held[name] end
end

--- Declare the comparison; nothing runs yet.
---@param spec table
---  pipeline, reward, prompts, steps, batch (16), precision ("f32"), optimizer (fields of syz.adamw): of every cell;
---  seeds: list of integers; eval: the fields of syz.eval; columns: { "metric", "label", digits =, at = };
---  variants: list of { name, method = "srpo" or function(seed, pipeline, reward) -> method, options = its fields,
---    reward, prompts, lr, clip, weight_decay, steps, batch, eval = other eyes on the same images,
---    lora = fields of pipe:lora, drawn anew for every seed, ema = as of syz.train,
---    every = steps between evaluations, target = { metric = value } that ends it, budget = CPU-seconds that end it };
---    one without a method is the model as it was;
---  derive(before, after) -> { metric = number }: what the table, claims and figure may use beside the measured ones;
---  claims: list of { "text", "A", ">" | "<" | "~", "B", "metric", margin }, `against`: where they come from ("the
---  paper"); curve = { x =, y = } draws what `every` measured; conclude(rows) -> a paragraph; publish: a folder for the
---  table, the figure and the picture, "" for none
---@return syz.Comparison
function M.experiment(spec)
  fields.check("syz.compare", spec, SPEC)
  for _, key in ipairs { "pipeline", "reward", "prompts", "steps", "seeds", "eval", "columns", "variants" } do
    if spec[key] == nil then error("syz.compare needs the field " .. key, 2) end
  end
  for i, seed in ipairs(spec.seeds) do
    if type(seed) ~= "number" or seed % 1 ~= 0 or seed < 0 then
      error(("syz.compare: seeds[%d] must be a whole number from 0"):format(i), 2)
    end
  end
  if #spec.seeds == 0 then error("syz.compare: seeds must be a non-empty list of whole numbers", 2) end
  check_claims(spec.claims or {}, check_variants(spec.variants))
  local self = setmetatable({}, Comparison)
  for key, value in pairs(spec) do self[key] = value end
  self.batch, self.precision, self.against = spec.batch or 16, spec.precision or "f32", spec.against or "the paper"
  self.schedule, self.came_with = spec.pipeline.schedule, settings_of(spec.pipeline)
  self.came_with_adapter = spec.pipeline.adapter
  for _, variant in ipairs(spec.variants) do
    if variant.lora and spec.pipeline.adapter then
      error(("syz.compare, variant %s: the pipeline has LoRA adapters already"):format(variant.name), 2)
    end
  end
  for _, variant in ipairs(spec.variants) do self:check(variant, spec.seeds[1], 2) end
  return self
end

--- What a cell measures with.
---@return syz.Evaluation
function Comparison:check(variant, seed, level)
  local options = { pipeline = self.pipeline, reward = self.reward }
  for _, list in ipairs { self.eval, variant.eval or {} } do
    for key, value in pairs(list) do options[key] = value end
  end
  options.seed = (self.eval.seed or 0) + CELL_SEEDS * seed
  return evaluation.new(options, (level or 1) + 1)
end

-- What is measured and drawn uses what the pipeline came with, in f32.
function Comparison:as_it_came(f)
  local held = settings_of(self.pipeline)
  set(self.pipeline, self.came_with)
  local first, second = precision.exact(f)
  set(self.pipeline, held)
  return first, second
end

local function storable(values)
  local kept = {}
  for name, value in pairs(values) do
    if value - value == 0 then kept[name] = value end
  end
  return kept
end

-- Whether some variant trains the transformer itself.
function Comparison:trains_whole()
  for _, variant in ipairs(self.variants) do
    if variant.method and not variant.lora and not self.came_with_adapter then return true end
  end
  return false
end

function Comparison:snapshot()
  if self:trains_whole() then loop.own_values { transformer = self.pipeline.transformer } end
  self.start = {}
  for i, module in ipairs(self:parts()) do
    self.start[i] = {}
    for _, name in ipairs(module:names()) do self.start[i][name] = module:param(name):copy():keep() end
  end
  self.start_hash = self:hash()
end

-- What a cell may change: the transformer, and the adapters that the pipeline came with.
function Comparison:parts()
  return { self.pipeline.transformer, self.came_with_adapter }
end

function Comparison:hash()
  local hash = M.hash(self.pipeline.transformer)
  return self.came_with_adapter and core.sha256(hash .. M.hash(self.came_with_adapter)) or hash
end

--- One hash of all parameters of a model.
---@param model table
---@return string
function M.hash(model)
  local parts = {}
  for i, name in ipairs(model:names()) do parts[i] = model:param(name):hash() end
  return core.sha256(table.concat(parts))
end

--- Give the transformer the weights that every cell starts from, and the pipeline what came with it.
function Comparison:rewind()
  local pipe = self.pipeline
  if pipe.adapter ~= self.came_with_adapter then -- those of the cell before
    pipe.adapter:remove()
    pipe.adapter = nil
  end
  for i, module in ipairs(self:parts()) do
    for name, value in pairs(self.start[i]) do module:param(name):assign(value) end
  end
  set(pipe, self.came_with)
  collectgarbage() -- the optimizer of the cell before
  local hash = self:hash()
  if hash ~= self.start_hash then error("syz.compare: the weights could not be put back", 0) end
  return hash
end

--- The method of a cell.
function Comparison:method(variant, seed)
  if variant.lora then
    local options = { seed = seed }
    for key, value in pairs(variant.lora) do options[key] = value end
    self.pipeline:lora(options)
  end
  local method = self:declared(variant, seed)
  lora.redirect(method)
  return method
end

function Comparison:declared(variant, seed)
  local reward = variant.reward or self.reward
  if type(variant.method) == "function" then return variant.method(seed, self.pipeline, reward) end
  local options = { pipeline = self.pipeline, reward = reward }
  for key, value in pairs(variant.options or {}) do options[key] = value end
  return require("syz").methods[variant.method](options)
end

-- What the loop wants of a run: no checkpoints (a cell is made again as a whole), a log of its own.
local function cell_run(run, path)
  local cell = { folder = run.folder }
  local log = disk.log(path .. ".jsonl", function(line) run:warn(line) end)
  function cell.latest() return nil end
  function cell.checkpoint() return nil end
  function cell.mark() return 0 end
  function cell.back_to() end
  function cell.log(_, step, stats)
    local line = storable(stats)
    line.step = step
    log:add(core.json.encode(line) .. "\n")
  end
  function cell.warn(_, message) run:warn(path:match("[^/]+$") .. ": " .. message) end
  function cell.stopping() return run:stopping() end
  return cell
end

local function reached(target, values)
  if not target or not next(target) then return false end
  for name, wanted in pairs(target) do
    if not values[name] or values[name] < wanted then return false end
  end
  return true
end

-- Train one cell. Returns its last step, the CPU-seconds of its steps, what was measured on the way, and the MiB that
-- it needed at its peak beyond what was there before: the pipeline and the copy that cells start from.
function Comparison:train(run, variant, seed, label, path)
  core.memory_reset_peak()
  local before = core.memory().live
  local method, prompts = self:method(variant, seed), variant.prompts or self.prompts
  local size, steps = variant.batch or self.batch, variant.steps or self.steps
  local batches, check = data.epochs(#prompts, size, seed), self:check(variant, seed)
  local spent, since, curve, hit = 0, nil, {}, nil
  loop.trainable(method.modules)
  local last = loop.run(cell_run(run, path), {
    label = label, steps = steps, seed = seed, modules = method.modules, precision = self.precision,
    ema = variant.ema,
    open_ended = variant.budget ~= nil, -- its time ends it, not its steps
    optimizer = optim.adamw(settings.optimizer(self, variant)),
    step = function(step, generator, update)
      since = core.cpu_time()
      local texts = {}
      for i, index in ipairs(batches(step)) do texts[i] = prompts[index] end
      return (method:step({ step = step, prompts = texts, cond = self.pipeline:condition(texts), update = update },
        generator))
    end,
    after = function(step)
      spent = spent + core.cpu_time() - since
      local over = variant.budget ~= nil and spent >= variant.budget
      if not variant.every or (step % variant.every ~= 0 and step ~= steps and not over) then return over end
      local values = storable((self:as_it_came(function()
        local measured, grid = check:run()
        grid:free()
        return measured
      end)))
      curve[#curve + 1] = { step = step, cpu_seconds = spent, after = values }
      if not hit and reached(variant.target, values) then hit = { step = step, cpu_seconds = spent } end
      return over or hit ~= nil
    end,
  })
  return last, spent, curve, hit, (core.memory().peak - before) / 2 ^ 20
end

function Comparison:measure(check, batch)
  return storable((self:as_it_came(function() return check:measure(batch) end)))
end

-- The start's images and measurements; those of variants with other eyes are measured on the same images.
function Comparison:before(run, variant, seed)
  self.first = self.first or {}
  local kept = self.first[seed]
  if not kept then
    local check = self:check({}, seed)
    kept = { images = self:as_it_came(function()
      return self.pipeline:sample { prompts = check.texts, steps = check.steps, guidance = check.guidance,
        seed = check.seed }
    end):keep() }
    kept.values = self:measure(check, kept.images)
    self.first[seed] = kept
    self:picture(run, kept.images, ("cells/before-%d.png"):format(seed))
  end
  if not variant.eval then return kept.values end
  return self:measure(self:check(variant, seed), kept.images)
end

-- The first images of an evaluation, side by side.
function Comparison:picture(run, batch, name)
  core.scope(function()
    local count = math.min(self.eval.grid or 16, batch:size(0))
    core.image.write(run.folder .. "/" .. name, (images.grid(batch:slice(0, 0, count), count)))
  end)
end

function Comparison:cell(run, variant, seed, label)
  local started, number = core.clock(), 0
  for i, other in ipairs(self.variants) do if other == variant then number = i end end
  local name = ("cells/%02d-%s-%d"):format(number, variant.name:lower():gsub("[^%w]+", "-"), seed)
  local row = { variant = variant.name, seed = seed, fingerprint = settings.fingerprint(self, variant),
                start = self:rewind(), steps = 0, cpu_seconds = 0 }
  row.before = self:before(run, variant, seed)
  local path = run.folder .. "/" .. name
  files.remove_file(path .. ".jsonl")
  if not variant.method then
    row.after, row.picture = storable(row.before), ("cells/before-%d.png"):format(seed)
  else
    local ok, last, spent, curve, hit, memory = pcall(self.train, self, run, variant, seed, label, path)
    if ok then
      local values, grid = self:as_it_came(function() return self:check(variant, seed):run() end)
      row.steps, row.cpu_seconds, row.after, row.picture = last, spent, storable(values), name .. ".png"
      row.memory = memory
      row.curve, row.reached = #curve > 0 and core.array(curve) or nil, hit
      self:picture(run, grid, row.picture)
      grid:free()
    elseif type(last) == "string" and last:find("no finite loss or gradient", 1, true) then
      row.failed = last -- a variant that diverges is a result
      run:warn(("%s, seed %d: %s"):format(variant.name, seed, last))
    else
      error(last, 0)
    end
  end
  row.seconds = core.clock() - started
  return row
end

-- How long the cells that are left will take, by the time that those of the same variant took.
local function remaining(rows, left)
  local own, all = {}, {}
  for _, row in ipairs(rows) do
    if row.steps > 0 then
      own[row.variant] = row.seconds
      all[#all + 1] = row.seconds
    end
  end
  local mean, sum = results.statistics(all) or 0, 0
  for _, cell in ipairs(left) do
    sum = sum + (cell.variant.method and (own[cell.variant.name] or mean) or 0)
  end
  return sum
end

local function finished(self, run)
  local wanted, rows, stale = {}, {}, 0
  for _, variant in ipairs(self.variants) do wanted[variant.name] = settings.fingerprint(self, variant) end
  local seeds = {}
  for _, seed in ipairs(self.seeds) do seeds[seed] = true end
  for _, entry in ipairs(files.read_lines(run.folder .. "/rows.jsonl")) do
    local row = entry.object
    local fits = wanted[row.variant] == row.fingerprint and row.start == self.start_hash
    if fits and seeds[row.seed] then
      rows[#rows + 1] = self:derived(row)
      rows[row.variant .. "\0" .. row.seed] = row
    elseif not fits and wanted[row.variant] then
      stale = stale + 1
    end
  end
  if stale > 0 then
    run:warn(("%d finished cells were made with other settings or weights; they are made again"):format(stale))
  end
  return rows
end

-- What the recipe makes of a row's measurements; never stored, so that it may change between resumes.
function Comparison:derived(row)
  if not self.derive or not row.after then return row end
  local more = self.derive(row.before, row.after)
  if type(more) ~= "table" then error("derive(before, after) must return a table of numbers", 0) end
  for name, value in pairs(more) do row.after[name] = value end
  return row
end

function Comparison:execute(run)
  self:snapshot()
  for _, variant in ipairs(self.variants) do -- what is wrong shows now, not after half an hour
    if variant.method then self:method(variant, self.seeds[1]) end
    settings.optimizer(self, variant)
    self:rewind()
  end
  core.file.mkdir(run.folder .. "/cells")
  local rows, left = finished(self, run), {}
  for _, seed in ipairs(self.seeds) do
    for _, variant in ipairs(self.variants) do
      if not rows[variant.name .. "\0" .. seed] then left[#left + 1] = { variant = variant, seed = seed } end
    end
  end
  local total = #self.seeds * #self.variants
  while #left > 0 do
    local cell = table.remove(left, 1)
    local label = ("%d/%d %s, seed %d"):format(total - #left, total, cell.variant.name, cell.seed)
    local row = core.scope(function() return self:cell(run, cell.variant, cell.seed, label) end)
    local line = core.json.encode(row) .. "\n"
    run:insist("a finished cell", function() core.file.append(run.folder .. "/rows.jsonl", line) end)
    rows[#rows + 1] = self:derived(row)
    progress.note(("%s: %s; %s left"):format(label, results.brief(self, row),
      text.duration(remaining(rows, left))))
    if #left == 0 or left[1].seed ~= cell.seed then results.write(self, run, rows) end
  end
  results.write(self, run, rows)
  self:rewind()
  run:summary { cells = #rows, cpu_seconds = results.total(rows, "cpu_seconds"),
                seconds = results.total(rows, "seconds") }
  run:show(results.plain(self, run, rows))
end

return M
