--- What a path holds, as sections of rows: weight files, images, shards, models, pipelines and runs.

local core = require "syz.core"
local checkpoint = require "syz.checkpoint"
local embeddings = require "syz.embeddings"
local files = require "syz.files"
local message = require "syz.message"
local run = require "syz.run"
local text = require "syz.text"

local inspect = {}

---@class syz.Inspection
---@field kind string
---@field broken boolean|nil   a section "Broken" tells what is
---@field sections { title: string|nil, rows: any[][] }[]

local function elements(shape)
  local n = 1
  for _, side in ipairs(shape) do n = n * side end
  return n
end

local function shape_text(shape)
  return "[" .. table.concat(shape, ", ") .. "]"
end

-- Sums over tensor headers: parameters, bytes, and a "bf16 412, f32 3" line of dtypes.
local function sum(tensors)
  local parameters, bytes, by_dtype, names = 0, 0, {}, {}
  for _, tensor in ipairs(tensors) do
    parameters, bytes = parameters + elements(tensor.shape), bytes + tensor.bytes
    if not by_dtype[tensor.dtype] then names[#names + 1] = tensor.dtype end
    by_dtype[tensor.dtype] = (by_dtype[tensor.dtype] or 0) + 1
  end
  table.sort(names)
  for i, name in ipairs(names) do names[i] = ("%s %d"):format(name, by_dtype[name]) end
  return parameters, bytes, table.concat(names, ", ")
end

-- "rank 16, 494 layers" of LoRA adapters; nil for other weights.
local function adapters(tensors)
  local ranks, layers = {}, 0
  for _, tensor in ipairs(tensors) do
    if tensor.name:match("%.lora_A%.") and #tensor.shape >= 2 then
      ranks[tensor.shape[1]] = true
      layers = layers + 1
    end
  end
  if layers == 0 then return nil end
  local list = {}
  for rank in pairs(ranks) do list[#list + 1] = rank end
  table.sort(list)
  return ("rank %s, %s"):format(table.concat(list, ", "), layers == 1 and "1 layer" or layers .. " layers")
end

local config_rows -- below

-- The layout of another library, and what configuration it tells.
local function describe_layout(path, tensors, rows, sections)
  local lora = adapters(tensors)
  if lora then rows[#rows + 1] = { "LoRA", lora } end
  local layout, class, config, reason = core.safetensors.layout(path)
  if not layout then return end
  rows[#rows + 1] = { "layout", layout }
  rows[#rows + 1] = { "class", class }
  if config then
    sections[#sections + 1] = { title = "Configuration, as the weights tell", rows = config_rows(config) }
  else
    rows[#rows + 1] = { "configuration", (reason:gsub("^" .. path:gsub("%p", "%%%0") .. ": ", "")) }
  end
end

local function weights(path)
  local tensors, metadata = core.safetensors.header(path)
  local parameters, bytes, dtypes = sum(tensors)
  local rows = { { "parameters", text.count(parameters) }, { "tensors", text.count(#tensors) },
                 { "dtypes", dtypes }, { "size", text.bytes(bytes) } }
  local sections = { { rows = rows } }
  describe_layout(path, tensors, rows, sections)
  rows = {}
  for key, value in pairs(metadata or {}) do rows[#rows + 1] = { key, text.clip(tostring(value), 100) } end
  table.sort(rows, function(a, b) return a[1] < b[1] end)
  if #rows > 0 then sections[#sections + 1] = { title = "Metadata", rows = rows } end
  rows = {}
  for i, tensor in ipairs(tensors) do rows[i] = { tensor.name, tensor.dtype, shape_text(tensor.shape) } end
  sections[#sections + 1] = { title = "Tensors", rows = rows }
  return { kind = path:match("%.safetensors$") and "safetensors" or "PyTorch weights", sections = sections }
end

local function picture(path)
  return core.scope(function()
    local shape = core.image.read(path):shape()
    local bytes = core.file.stat(path)
    return { kind = "image", sections = { { rows = {
      { "size", ("%d × %d"):format(shape[2], shape[1]) }, { "channels", tostring(shape[3]) },
      { "file", text.bytes(bytes) } } } } }
  end)
end

local function shard(path)
  local counts, names, keys, first, last = {}, {}, 0, nil, nil
  for key, parts in core.webdataset(path) do
    keys, first, last = keys + 1, first or key, key
    for extension in pairs(parts) do
      if not counts[extension] then names[#names + 1] = extension end
      counts[extension] = (counts[extension] or 0) + 1
    end
  end
  table.sort(names)
  local rows = { { "samples", text.count(keys) }, { "first", first or "-" }, { "last", last or "-" } }
  local parts = {}
  for i, name in ipairs(names) do parts[i] = { "." .. name, text.count(counts[name]) } end
  return { kind = "WebDataset shard", sections = { { rows = rows }, { title = "Files", rows = parts } } }
end

-- All weight headers of a folder, one after the other; of sharded weights what their index lists. PyTorch's .bin files
-- count where there are no safetensors.
local function folder_weights(folder)
  local all, names = {}, assert(core.file.list(folder))
  for _, ending in ipairs { "%.safetensors", "pytorch_model%.bin" } do
    for _, name in ipairs(names) do
      if name:match(ending .. "%.index%.json$") then return (core.safetensors.header(folder .. "/" .. name)) end
    end
    for _, name in ipairs(names) do
      if name:match(ending .. "$") then
        for _, tensor in ipairs((core.safetensors.header(folder .. "/" .. name))) do all[#all + 1] = tensor end
      end
    end
    if #all > 0 then break end
  end
  return all
end

local function class_of(config)
  if type(config._class_name) == "string" then return config._class_name end
  if type(config.architectures) == "table" then return config.architectures[1] end
  return type(config.model_type) == "string" and config.model_type or nil
end

function config_rows(config)
  local rows = {}
  for key, value in pairs(config) do
    if type(value) == "table" then value = core.json.encode(value) end
    if key:sub(1, 1) ~= "_" then rows[#rows + 1] = { key, text.clip(tostring(value), 80) } end
  end
  table.sort(rows, function(a, b) return a[1] < b[1] end)
  return rows
end

-- Why the weights are not those of the configuration; nil when they are, or when the class is not known here.
local function misfit(folder, config)
  local known, declared = pcall(core.model.create, config)
  if not known then return nil end
  local ok, reason = pcall(declared.check, declared, folder)
  return not ok and message.of(reason) or nil
end

local function model(folder, config)
  local parameters, bytes, dtypes = sum(folder_weights(folder))
  local rows = { { "class", class_of(config) or "?" }, { "parameters", text.count(parameters) },
                 { "dtypes", dtypes }, { "size", text.bytes(bytes) } }
  local sections = { { rows = rows }, { title = "Configuration", rows = config_rows(config) } }
  local wrong = misfit(folder, config)
  if wrong then sections[3] = { title = "Broken", rows = { { "weights", wrong } } } end
  return { kind = "model", sections = sections, broken = wrong ~= nil }
end

-- What is wrong with a pipeline, part by part: folders that its index lists and that are not there, torn JSON.
local function problems_of(folder, index)
  local found = {}
  for name, part in pairs(index) do
    local path = folder .. "/" .. name
    if type(part) == "table" and type(part[2]) == "string" then
      if core.file.exists(path) ~= "folder" then
        found[#found + 1] = { name, "is not there (model_index.json lists it)" }
      elseif core.file.exists(path .. "/config.json") then
        local config, reason = files.read_json(path .. "/config.json")
        reason = reason or misfit(path, config)
        if reason then found[#found + 1] = { name, reason } end
      end
    end
  end
  table.sort(found, function(a, b) return a[1] < b[1] end)
  return found
end

local function pipeline(folder, index)
  local rows, total = {}, 0
  for _, name in ipairs(assert(core.file.list(folder))) do
    local part = index[name]
    local path = folder .. "/" .. name
    if type(part) == "table" and core.file.exists(path) == "folder" then
      local parameters, bytes, dtypes = sum(folder_weights(path))
      total = total + parameters
      local described = parameters > 0 and { text.count(parameters), dtypes, text.bytes(bytes) } or {}
      rows[#rows + 1] = { name, tostring(part[2]), unpack(described) }
    end
  end
  local head = { { "class", class_of(index) or "?" }, { "parameters", text.count(total) } }
  local problems = problems_of(folder, index)
  local sections = { { rows = head }, { title = "Parts", rows = rows } }
  if #problems > 0 then sections[3] = { title = "Broken", rows = problems } end
  return { kind = "pipeline", sections = sections, broken = #problems > 0 }
end

local function last_metrics(folder)
  local rows, newest = {}, {}
  for _, entry in ipairs(files.read_lines(folder .. "/metrics.jsonl")) do
    for name, value in pairs(entry.object) do
      if type(value) == "number" and name ~= "step" then newest[name] = { value, entry.object.step } end
    end
  end
  for name, found in pairs(newest) do
    rows[#rows + 1] = { name, text.number(found[1]), ("step %s"):format(text.number(found[2])) }
  end
  table.sort(rows, function(a, b) return a[1] < b[1] end)
  return rows
end

local function run_folder(folder, record)
  local rows = {
    { "recipe", tostring(record.recipe) }, { "status", tostring(record.status) },
    { "step", text.number(record.step or 0) },
    { "started", os.date("%Y-%m-%d %H:%M:%S", record.started or 0) },
    { "time", text.duration(record.seconds or 0) },
  }
  local saved = checkpoint.list(folder)
  local steps = {}
  for i, entry in ipairs(saved) do steps[i] = tostring(entry.step) end
  rows[#rows + 1] = { "checkpoints", #steps > 0 and table.concat(steps, ", ") or "none" }
  if record.reason then rows[#rows + 1] = { "failed with", record.reason } end
  local sections = { { rows = rows } }
  local metrics = last_metrics(folder)
  if #metrics > 0 then sections[#sections + 1] = { title = "Last metrics", rows = metrics } end
  local summary = {}
  for name, value in pairs(files.read_json(folder .. "/summary.json") or {}) do
    if type(value) == "table" and tonumber(value.before) and tonumber(value.after) then
      summary[#summary + 1] = { name, text.number(value.before), "→", text.number(value.after) }
    end
  end
  table.sort(summary, function(a, b) return a[1] < b[1] end)
  if #summary > 0 then sections[#sections + 1] = { title = "Before and after", rows = summary } end
  return { kind = "run", sections = sections }
end

-- What `syz embed` wrote.
local function text_features(folder)
  local index = files.read_json(folder .. "/index.json")
  if not index or index.format ~= embeddings.FORMAT then return nil end
  local prompts = {}
  for number, part in ipairs(index.shards) do
    for _, prompt in ipairs(part.prompts) do
      prompts[#prompts + 1] = { ("shard %d"):format(number), text.clip(prompt, 100) }
    end
  end
  return { kind = "text embeddings", sections = {
    { rows = { { "prompts", text.count(#prompts) }, { "shards", text.count(#index.shards) },
               { "made with", index.model }, { "dtype", index.dtype }, { "tokens", text.count(index.length) } } },
    { title = "Prompts", rows = prompts } } }
end

local function folder_of_any_kind(path)
  local record = run.record(path)
  if record then return run_folder(path, record) end
  local index, reason
  if core.file.exists(path .. "/model_index.json") then
    index, reason = files.read_json(path .. "/model_index.json")
    if not index then return nil, reason end
    return pipeline(path, index)
  end
  if core.file.exists(path .. "/config.json") then
    index, reason = files.read_json(path .. "/config.json")
    if not index then return nil, reason end
    return model(path, index)
  end
  if core.file.exists(path .. "/index.json") then
    local stored = text_features(path)
    if stored then return stored end
  end
  local lora = path .. "/pytorch_lora_weights.safetensors"
  if core.file.exists(lora) then return weights(lora) end
  return nil, path .. ": neither a run nor a model nor a pipeline (no run.json, config.json or model_index.json)"
end

local by_extension = { safetensors = weights, pt = weights, pth = weights, bin = weights, ckpt = weights,
                       png = picture, jpg = picture, jpeg = picture, tar = shard }

--- Describe a file or folder.
---@param path string
---@return syz.Inspection|nil
---@return string|nil reason
function inspect.path(path)
  path = #path > 1 and path:gsub("/+$", "") or path
  local kind = core.file.exists(path)
  if not kind then return nil, path .. ": no such file or folder" end
  if kind == "folder" then return folder_of_any_kind(path) end
  local read = by_extension[(path:match("%.([^./]+)$") or ""):lower()]
  if not read then
    return nil, path .. ": inspect knows .safetensors, .pt, .pth, .bin, .ckpt, .png, .jpg, .tar, and folders"
  end
  return read(path)
end

return inspect
