--- Where a study's images come from: runs and pipelines that are sampled at the same prompts and seeds, or folders.

local core = require "syz.core"
local data = require "syz.data"
local files = require "syz.files"
local lora = require "syz.lora"
local progress = require "syz.progress"
local recipe = require "syz.recipe"
local run = require "syz.run"

local sources = {}

-- Images with a longer side become JPEG, or a page would be too large to open.
local png_side, jpeg_quality = 512, 95

-- Sampled together; also how many decoded images are held at a time.
local batch = 16

-- Every picture is written anew from its pixels: files carry traces of where they come from.
local function encoded(pixels)
  local shape = pixels:shape()
  if math.max(shape[1], shape[2]) <= png_side then return { kind = "png", bytes = core.image.png(pixels) } end
  return { kind = "jpeg", bytes = core.image.jpeg(pixels, jpeg_quality) }
end

--- What each path is called in the results: its last part, or the whole where two share that.
---@param paths string[]
---@return string[]
function sources.names(paths)
  local last, count, names = {}, {}, {}
  for i, path in ipairs(paths) do
    last[i] = path:gsub("/+$", ""):match("([^/]+)$") or path
    count[last[i]] = (count[last[i]] or 0) + 1
  end
  for i, path in ipairs(paths) do names[i] = count[last[i]] > 1 and path or last[i] end
  return names
end

-- ---- folders ----

local function pictures_in(folder)
  if core.file.exists(folder) ~= "folder" then error(("there is no image folder %q"):format(folder), 0) end
  local by_stem, stems = {}, {}
  for _, name in ipairs(assert(core.file.list(folder))) do
    local stem, extension = name:match("^(.+)%.(%w+)$")
    extension = (extension or ""):lower()
    if extension == "png" or extension == "jpg" or extension == "jpeg" then
      if by_stem[stem] then error(("%s holds %s and %s: which is it?"):format(folder, by_stem[stem], name), 0) end
      by_stem[stem] = name
      stems[#stems + 1] = stem
    end
  end
  if #stems == 0 then error(folder .. " holds no .png or .jpg images", 0) end
  table.sort(stems)
  return by_stem, stems
end

local function check_pairs(folders, listed, stems)
  for k = 2, #folders do
    for _, stem in ipairs(stems) do
      if not listed[k][stem] then
        error(("%s has no image called %s, which %s has: equal names mean the same prompt"):format(folders[k], stem,
          folders[1]), 0)
      end
    end
    for stem in pairs(listed[k]) do
      if not listed[1][stem] then
        error(("%s has no image called %s, which %s has: equal names mean the same prompt"):format(folders[1], stem,
          folders[k]), 0)
      end
    end
  end
end

local function lines_for(path, stems)
  local lines = data.prompts(path)
  if #lines ~= #stems then
    error(("%s holds %d prompts for %d images; the order is that of the sorted file names"):format(path, #lines,
      #stems), 0)
  end
  return lines
end

-- Prompts by file name from DIR/metadata.jsonl, as image data sets on the Hub have it.
local function described(folder, stems)
  local about, prompts = {}, {}
  for _, entry in ipairs(files.read_lines(folder .. "/metadata.jsonl")) do
    local fields = entry.object
    local prompt = fields.prompt or fields.text or fields.caption
    local stem = type(fields.file_name) == "string" and fields.file_name:match("([^/]+)%.%w+$")
    if stem and type(prompt) == "string" then about[stem] = prompt end
  end
  for i, stem in ipairs(stems) do
    prompts[i] = about[stem]
      or error(('%s/metadata.jsonl has no prompt for %s; a line is {"file_name": ..., "prompt": ...}'):format(
        folder, stem), 0)
  end
  return prompts
end

local function prompts_of(folders, stems, given)
  if given then return lines_for(given, stems) end
  for _, folder in ipairs(folders) do
    if core.file.exists(folder .. "/metadata.jsonl") then return described(folder, stems) end
    if core.file.exists(folder .. "/prompts.txt") then return lines_for(folder .. "/prompts.txt", stems) end
  end
  progress.note("no prompts.txt, metadata.jsonl or --prompts: the file names serve as prompts", "yellow")
  local prompts = {}
  for i, stem in ipairs(stems) do prompts[i] = stem:gsub("[_%-]+", " ") end
  return prompts
end

--- Folders of images: equal file names show the same prompt.
---@param folders string[]
---@param opts { prompts: string|nil, images: integer|nil }
---@return { models: table[], prompts: string[], pictures: table[][] }
function sources.folders(folders, opts)
  local listed, stems = {}, nil
  for k, folder in ipairs(folders) do
    local by_stem, sorted = pictures_in(folder)
    listed[k], stems = by_stem, stems or sorted
  end
  check_pairs(folders, listed, stems)
  local found = { models = {}, prompts = prompts_of(folders, stems, opts.prompts), pictures = {} }
  local count = math.min(opts.images or #stems, #stems)
  for i = #stems, count + 1, -1 do found.prompts[i] = nil end
  local names, bar = sources.names(folders), progress.new(#folders * count, "reading")
  for k, folder in ipairs(folders) do
    found.models[k], found.pictures[k] = { name = names[k], source = folder }, {}
    for i = 1, count do
      core.scope(function()
        found.pictures[k][i] = encoded(core.image.read(("%s/%s"):format(folder, listed[k][stems[i]])))
      end)
      bar:update((k - 1) * count + i)
    end
  end
  bar:done()
  return found
end

-- ---- runs and pipelines ----

-- A run's pipeline as its recipe builds it, and the transformer that it has trained.
local function open_run(folder)
  local trained, adapters = folder .. "/model/transformer", lora.of_run(folder)
  if not core.file.exists(trained) and not adapters then
    error(("%s has trained no transformer yet; finish it with --resume"):format(folder), 0)
  end
  local loaded, reason = recipe.load(folder .. "/recipe.lua", { config = folder .. "/config.yaml" })
  if not loaded then error(reason, 0) end
  local experiment = loaded.experiment
  local method = type(experiment.method) == "table" and experiment.method
  if not method or not method.pipeline then
    error(("%s: its recipe aligns no pipeline; name the pipeline's folder instead"):format(folder), 0)
  end
  return { pipeline = method.pipeline, trained = trained, adapters = adapters, eval = experiment.eval or {},
           base = method.pipeline.folder or "the recipe's pipeline" }
end

local function open(path)
  if run.record(path) then return open_run(path) end
  if core.file.exists(path .. "/model_index.json") then
    return { pipeline = require("syz").pipeline(path), eval = {}, base = path }
  end
  error(path .. ": neither a run nor a pipeline (no run.json, no model_index.json)", 0)
end

local function prompts_for(paths, opts)
  local list
  if opts.prompts then list = data.prompts(opts.prompts) end
  for _, path in ipairs(paths) do list = list or files.read_json(path .. "/samples/prompts.json") end
  if not list or #list == 0 then error("no run here kept its prompts; name a file with --prompts FILE", 0) end
  local count = opts.images or math.min(#list, 50)
  local prompts = {}
  -- more images than prompts: the prompts come again, with other seeds
  for i = 1, count do prompts[i] = list[(i - 1) % #list + 1] end
  return prompts
end

local function draw(pipe, label, sampling, prompts)
  local pictures, bar = {}, progress.new(nil, "sampling " .. label)
  for first = 1, #prompts, batch do
    local chosen = {}
    for i = first, math.min(first + batch - 1, #prompts) do chosen[#chosen + 1] = prompts[i] end
    core.scope(function()
      local images = pipe:sample {
        prompts = chosen, steps = sampling.steps, guidance = sampling.guidance, seed = sampling.seed + first - 1,
        batch = batch, on_step = function(done, total)
          bar.total = total * math.ceil(#prompts / batch)
          bar:update((first - 1) / batch * total + done)
        end,
      }
      local shape = images:shape()
      for i = 1, #chosen do
        pictures[#pictures + 1] = encoded(images:slice(0, i - 1, i):reshape({ shape[2], shape[3], 3 }))
      end
    end)
  end
  bar:done()
  return pictures
end

--- Runs (or pipeline folders), all sampled alike; `baseline` adds each pipeline as it was before training.
---@param paths string[]
---@param opts { prompts: string|nil, images: integer|nil, baseline: boolean|nil, seed: integer, steps: integer|nil,
---  guidance: number|nil }
---@return { models: table[], prompts: string[], pictures: table[][], sampling: table }
function sources.runs(paths, opts)
  local names, prompts, sampling, bases = sources.names(paths), prompts_for(paths, opts), nil, {}
  local found = { models = {}, prompts = prompts, pictures = {} }
  local function add(name, source, pipe)
    table.insert(found.models, { name = name, source = source })
    table.insert(found.pictures, draw(pipe, name, sampling, prompts))
  end
  for k, path in ipairs(paths) do
    local opened = open(path)
    sampling = sampling or { seed = opts.seed, steps = opts.steps or opened.eval.steps,
                             guidance = opts.guidance or opened.eval.guidance }
    if opts.baseline and opened.trained and not bases[opened.base] then
      add(next(bases) and "baseline " .. opened.base or "baseline", opened.base, opened.pipeline)
      bases[opened.base] = true
    end
    if opened.adapters then
      if not opened.pipeline.adapter then error(path .. ": has adapters, but its recipe attaches none", 0) end
      opened.pipeline.adapter:restore(opened.adapters)
    elseif opened.trained then
      opened.pipeline.transformer = core.model.load(opened.trained)
    end
    add(names[k], path, opened.pipeline)
  end
  if opts.baseline and not next(bases) then
    error("--baseline takes the pipeline that a run began from; there is no run here", 0)
  end
  found.sampling = sampling
  return found
end

return sources
