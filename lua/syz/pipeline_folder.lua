--- A pipeline on disk: finding its parts, loading them as their size allows, and writing them in the diffusers layout.
--
-- A folder has a subfolder per part, as diffusers publishes it; transformer and VAE may also be the single files of the
-- original release (flux1-*.safetensors, ae.safetensors), and any part may be named by a path of its own.

local core = require "syz.core"
local data = require "syz.data"
local files = require "syz.files"
local identity = require "syz.identity"
local scheduler = require "syz.scheduler"
local text_reader = require "syz.texts"

local M = {}

-- Each part's class, or that it is a tokenizer, and what its single file is called.
local PARTS = {
  transformer = { class = "FluxTransformer2DModel", file = "^flux.*%.safetensors$" },
  vae = { class = "AutoencoderKL", file = "^ae%.safetensors$" },
  text_encoder = { class = "CLIPTextModel" },
  text_encoder_2 = { class = "T5EncoderModel" },
  tokenizer = { library = "CLIPTokenizer" },
  tokenizer_2 = { library = "T5TokenizerFast" },
}

-- The weights of a larger part stay as they are stored, mapped from the disk, until a training needs them in f32.
local STORED_ABOVE = 2 ^ 30

-- ---- finding ----

--- Check that a folder can be a pipeline's.
---@param folder string
---@param options table
function M.check(folder, options)
  if type(folder) ~= "string" then error("syz.pipeline needs the name of a folder, not a " .. type(folder), 4) end
  local kind = core.file.exists(folder)
  if not kind then error(folder .. ": no such folder; a pipeline folder is needed", 4) end
  if kind ~= "folder" then error(folder .. " is a file; a pipeline folder is needed", 4) end
  if core.file.exists(folder .. "/model_index.json") == "file" then
    files.need_json(folder .. "/model_index.json")
  elseif not (options.transformer or M.find(folder, "transformer", {})) then
    error(("%s is not a pipeline folder: it has no model_index.json"):format(folder), 4)
  end
end

local function single_file(folder, name)
  local pattern, found = PARTS[name].file, nil
  if not pattern then return nil end
  for _, file in ipairs(assert(core.file.list(folder))) do
    if file:match(pattern) then
      if found then
        error(("%s holds %s and %s: name one, as in syz.pipeline(folder, { %s = ... })"):format(folder, found, file,
          name), 0)
      end
      found = file
    end
  end
  return found and folder .. "/" .. found
end

--- Where a part is: the path given in the options, its subfolder, or its single file; nil when it is nowhere.
---@param folder string
---@param name string
---@param options table
---@return string|nil
function M.find(folder, name, options)
  local given = options[name]
  if given then
    if not core.file.exists(given) then error(("%s: there is no such %s"):format(given, name), 0) end
    return given
  end
  local path = folder .. "/" .. name
  return core.file.exists(path) == "folder" and path or single_file(folder, name)
end

local function need(folder, name, options)
  local path, part = M.find(folder, name, options), PARTS[name]
  if path then return path end
  error(("%s lacks the folder %s with %s"):format(folder, name,
    part.class and "the weights of " .. part.class or "its tokenizer"), 0)
end

--- Whether a folder lists a part, or has it.
function M.lists(folder, name, options)
  if M.find(folder, name, options) then return true end
  local index = files.read_json(folder .. "/model_index.json")
  return index ~= nil and type(index[name]) == "table" and type(index[name][2]) == "string"
end

-- ---- loading ----

-- Bytes of the weights on disk; of a folder that has a configuration alone, as a dry run makes it, those of bf16.
local function stored_bytes(path)
  if core.file.exists(path) ~= "folder" then return (assert(core.file.stat(path))) end
  local bytes = 0
  for _, name in ipairs(assert(core.file.list(path))) do
    if name:match("%.safetensors$") or name:match("%.bin$") then bytes = bytes + core.file.stat(path .. "/" .. name) end
  end
  if bytes > 0 or not core.file.exists(path .. "/config.json") then return bytes end
  return 2 * core.model.create(files.need_json(path .. "/config.json")):numel()
end

--- Load one part: as f32, or as it is stored when it is large or `dtype` says so; "bf16" is the transformer's.
---@param path string
---@param class string
---@param dtype "f32"|"stored"|"bf16"|nil
function M.model(path, class, dtype)
  local bf16 = dtype == "bf16" and class == PARTS.transformer.class
  local stored = bf16 or dtype == "stored" or (dtype ~= "f32" and stored_bytes(path) > STORED_ABOVE)
  local model = core.model[stored and "load_stored" or "load"](path)
  if model:class() ~= class then
    error(("%s holds %s weights; those of %s are needed there"):format(path, model:class(), class), 0)
  end
  return bf16 and model:to_bf16() or model
end

--- Load a transformer alone.
---@param path string
---@param dtype "f32"|"stored"|"bf16"|nil
function M.transformer(path, dtype)
  if not core.file.exists(path) then error(path .. ": no such folder; a transformer's is needed", 0) end
  return M.model(path, PARTS.transformer.class, dtype)
end

local function part(folder, name, options)
  local path = need(folder, name, options)
  return M.model(path, PARTS[name].class, options.dtype), path
end

-- The text parts' names, the two of T5 only where there is one.
local function text_names(folder, options)
  local names = { "text_encoder", "tokenizer" }
  if M.lists(folder, "text_encoder_2", options) then names[3], names[4] = "text_encoder_2", "tokenizer_2" end
  return names
end

-- Whether a transformer embeds guidance, as its configuration or, for a file by itself, its names tell.
local function embeds_guidance(path)
  if core.file.exists(path) == "folder" then
    return files.need_json(path .. "/config.json").guidance_embeds == true
  end
  for _, tensor in ipairs((core.safetensors.header(path))) do
    if tensor.name:find("guidance_", 1, true) then return true end
  end
  return false
end

--- What FLUX.1 was published to be used with: dev embeds guidance, schnell has few steps distilled into it. Other
--- pipelines have one text encoder. A transformer that is not on this disk counts as dev's.
---@param folder string
---@param options table
---@return { steps: integer, default_steps: integer|nil, length: integer|nil, guidance: number|nil }
function M.published(folder, options)
  if not M.lists(folder, "text_encoder_2", options) then return { steps = 25 } end
  local transformer = M.find(folder, "transformer", options)
  if not transformer or embeds_guidance(transformer) then return { steps = 28, default_steps = 28, length = 512 } end
  return { steps = 4, default_steps = 4, length = 256, guidance = 1 }
end

--- The fingerprint of all text parts together; nil when one is not on this disk.
---@param folder string
---@param options table
---@return string|nil
function M.text_fingerprint(folder, options)
  local sums = {}
  for _, name in ipairs(text_names(folder, options)) do
    local path = M.find(folder, name, options)
    if not path then return nil end
    sums[#sums + 1] = name .. " " .. identity.of(path)
  end
  return core.sha256(table.concat(sums, "\n"))
end

--- Load the text encoders and tokenizers, and say how long their texts are.
---@param folder string
---@param options { dtype: string|nil, max_length: integer|nil }
---@param usual integer|nil   how many tokens a second encoder reads unless max_length says so
---@return { text_encoder: table, tokenizer: syz.Texts, text_encoder_2: table|nil, tokenizer_2: syz.Texts|nil,
---  text_length: integer, pooled_length: integer, tokenizer_folders: table<string, string> }
function M.text(folder, options, usual)
  local loaded = { tokenizer_folders = {} }
  for _, name in ipairs(text_names(folder, options)) do
    if PARTS[name].class then
      loaded[name] = part(folder, name, options)
      loaded[name]:requires_grad(false)
    else
      local reader = name == "tokenizer" and "the pipeline's text encoder" or "the pipeline's second text encoder"
      local ids = loaded[name == "tokenizer" and "text_encoder" or "text_encoder_2"]:config().vocab_size
      loaded.tokenizer_folders[name] = need(folder, name, options)
      loaded[name] = text_reader.open(loaded.tokenizer_folders[name], ids, reader)
    end
  end
  loaded.pooled_length = loaded.text_encoder:config().max_position_embeddings
  if loaded.text_encoder_2 then
    if options.max_length and options.max_length < 2 then -- one token and the end
      error(("syz.pipeline: max_length must be at least 2, not %d"):format(options.max_length), 0)
    end
    loaded.text_length = options.max_length or usual
  elseif options.max_length and options.max_length ~= loaded.pooled_length then
    error(("%s: its one text encoder reads %d tokens, max_length says %d"):format(folder, loaded.pooled_length,
      options.max_length), 0)
  else
    loaded.text_length = loaded.pooled_length
  end
  return loaded
end

--- The scheduler's configuration; that of FLUX.1 for a folder without one that diffusers did not write.
---@param folder string
---@param guidance boolean
function M.scheduler(folder, guidance)
  local path = folder .. "/scheduler/scheduler_config.json"
  if not core.file.exists(path) and not core.file.exists(folder .. "/model_index.json") then
    return scheduler.published(guidance)
  end
  return scheduler.check(files.need_json(path), path)
end

--- Load transformer and VAE.
---@param folder string
---@param options table
function M.image(folder, options)
  return { transformer = part(folder, "transformer", options), vae = part(folder, "vae", options) }
end

--- Remember what the recipe reads: the folder, and every part that lies elsewhere.
---@param folder string
---@param options table
function M.note(folder, options)
  identity.note("pipeline", folder)
  for _, name in ipairs { "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "vae" } do
    if options[name] then identity.note("pipeline", options[name]) end
  end
end

-- ---- writing ----

-- Half precision that was loaded as stored is written as it was.
local function dtype_of(model, asked)
  if asked then return asked end
  local first = model:parameters()[1]:dtype()
  return (first == "bf16" or first == "f16") and first or "f32"
end

-- Whether the pipeline samples as its folder's scheduler says, with a shift that depends on the image's size.
local function scheduler_of(pipe)
  local config = { _class_name = "FlowMatchEulerDiscreteScheduler", num_train_timesteps = 1000 }
  local own = pipe.schedule == pipe.own_schedule and pipe.scheduler or {}
  if not own.use_dynamic_shifting then
    config.shift, config.use_dynamic_shifting = pipe.schedule.shift, false
    return config
  end
  for key, value in pairs(own) do config[key] = value end
  return config
end

--- Save in the diffusers layout: all parts, or with `transformer_only` just what training changed: the transformer, or
--- in its place the adapters.
---@param pipe syz.Pipeline
---@param folder string
---@param options { transformer_only: boolean|nil, dtype: string|nil, max_shard_bytes: integer|nil }
function M.save(pipe, folder, options)
  if pipe.adapter then pipe.adapter:save(folder .. "/lora") end
  if pipe.adapter and options.transformer_only then return end
  pipe.transformer:save(folder .. "/transformer", dtype_of(pipe.transformer, options.dtype),
    options.max_shard_bytes)
  if options.transformer_only then return end
  if not pipe.text_encoder then
    error("a pipeline with embeddings has no text encoders to save; transformer_only saves what was trained", 3)
  end
  local index = { _class_name = "FluxPipeline", scheduler = { "diffusers", "FlowMatchEulerDiscreteScheduler" },
                  transformer = { "diffusers", "FluxTransformer2DModel" }, vae = { "diffusers", "AutoencoderKL" } }
  pipe.vae:save(folder .. "/vae", dtype_of(pipe.vae, options.dtype), options.max_shard_bytes)
  for _, name in ipairs { "text_encoder", "text_encoder_2" } do
    local tokenizer = name:gsub("text_encoder", "tokenizer")
    if pipe[name] then
      pipe[name]:save(folder .. "/" .. name, dtype_of(pipe[name], options.dtype), options.max_shard_bytes)
      data.copy_folder(pipe.tokenizer_folders[tokenizer], folder .. "/" .. tokenizer)
      index[name] = { "transformers", PARTS[name].class }
      index[tokenizer] = { "transformers", PARTS[tokenizer].library }
    end
  end
  core.file.mkdir(folder .. "/scheduler")
  core.file.write(folder .. "/scheduler/scheduler_config.json", core.json.encode(scheduler_of(pipe), true))
  core.file.write(folder .. "/model_index.json", core.json.encode(index, true))
end

return M
