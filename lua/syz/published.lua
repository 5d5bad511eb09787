--- Models and pipelines as they were published: their configurations (published/*.json), and folders made of them.
--
--   published.names()                       "clip-h", ..., "flux.1-dev", "flux.1-dev-pipeline", ...
--   published.parts("flux.1-dev-pipeline")  what its folder holds
--   published.write("pickscore", folder)    config.json and the like alone, without weights

local core = require "syz.core"
local files = require "syz.files"

local published = {}

-- Names of the rewards' models, where they are another one's.
local SAME = { ["hps-v2.1"] = "clip-h", pickscore = "clip-h" }

-- Subfolder, library and class as model_index.json has them, and the model there, which may depend on the pipeline.
local PARTS = {
  { "scheduler", "diffusers", "FlowMatchEulerDiscreteScheduler" },
  { "text_encoder", "transformers", "CLIPTextModel", "clip-l-text" },
  { "text_encoder_2", "transformers", "T5EncoderModel", "t5-xxl" },
  { "tokenizer", "transformers", "CLIPTokenizer" },
  { "tokenizer_2", "transformers", "T5TokenizerFast" },
  { "transformer", "diffusers", "FluxTransformer2DModel" },
  { "vae", "diffusers", "AutoencoderKL", "flux.1-vae" },
}

-- Keys of configurations that are depths; a model has the same number of blocks in each of its parts.
local DEPTHS = { "num_layers", "num_single_layers", "num_hidden_layers" }

-- As diffusers and transformers cut checkpoints.
local SHARD = { diffusers = 10e9, transformers = 5e9 }

local function path_of(name)
  return package.searchpath("syz/published/" .. name, (package.path:gsub("%.lua", ".json")), "")
end

--- Every name there is.
---@return string[]
function published.names()
  local found = { "flux.1-dev-pipeline", "flux.1-schnell-pipeline" }
  for name in pairs(SAME) do found[#found + 1] = name end
  for _, file in ipairs(assert(core.file.list(path_of("flux.1-dev"):match("^(.*)/")))) do
    local name = file:match("^(.+)%.json$")
    if name then found[#found + 1] = name end
  end
  table.sort(found)
  return found
end

--- The configuration of a model, or nil when none of that name was published.
---@param name string
---@return table|nil
function published.config(name)
  local path = path_of(SAME[name] or name)
  return path and files.need_json(path)
end

--- A copy of a configuration with at most `layers` blocks in each part; one without end when `layers` is nil.
---@param config table
---@param layers integer|nil
---@return table
function published.shallow(config, layers)
  local copy = {}
  for key, value in pairs(config) do
    local nested = type(value) == "table" and #value == 0
    copy[key] = nested and published.shallow(value, layers) or value
  end
  for _, key in ipairs(DEPTHS) do
    if layers and type(copy[key]) == "number" then copy[key] = math.min(copy[key], layers) end
  end
  return copy
end

---@class syz.PublishedPart
---@field folder string           below the model's own: "", or "/vae"
---@field config table|nil        of the model there; none for a scheduler or a tokenizer
---@field shard_bytes integer     the most bytes that a published shard has

local function library_of(config) return config._class_name and "diffusers" or "transformers" end

--- A model of that configuration as a part.
---@param config table
---@param layers integer|nil   as for published.shallow
---@param folder string|nil
---@return syz.PublishedPart
function published.part(config, layers, folder)
  return { folder = folder or "", config = published.shallow(config, layers), shard_bytes = SHARD[library_of(config)] }
end

--- The models that a published name stands for, at most `layers` blocks deep; nil for an unknown name.
---@param name string
---@param layers integer|nil
---@return syz.PublishedPart[]|nil
function published.parts(name, layers)
  local transformer = name:match("^(.+)%-pipeline$")
  if not transformer then
    local config = published.config(name)
    return config and { published.part(config, layers) }
  end
  if not published.config(transformer) then return nil end
  local found = {}
  for _, entry in ipairs(PARTS) do
    local model = entry[1] == "transformer" and transformer or entry[4]
    if model then found[#found + 1] = published.part(published.config(model), layers, "/" .. entry[1]) end
  end
  return found
end

local function copy_file(from, to) core.file.write(to, assert(core.file.read(from))) end

-- Each printable ASCII character is a token: a stand-in, for T5's own vocabulary is part of no free package.
local function letters()
  local vocabulary = { { "<pad>", 0 }, { "</s>", 0 }, { "<unk>", 0 }, { "▁", -4 } }
  for byte = 33, 126 do vocabulary[#vocabulary + 1] = { string.char(byte), -5 } end
  local function special(id, content)
    return { id = id, content = content, special = true, lstrip = false, rstrip = false, normalized = false,
             single_word = false }
  end
  local space = { type = "Metaspace", replacement = "▁", prepend_scheme = "always", split = true }
  return {
    version = "1.0", added_tokens = { special(0, "<pad>"), special(1, "</s>"), special(2, "<unk>") },
    model = { type = "Unigram", unk_id = 2, vocab = vocabulary, byte_fallback = false },
    pre_tokenizer = space, decoder = space,
    post_processor = { type = "TemplateProcessing", pair = {},
      single = { { Sequence = { id = "A", type_id = 0 } }, { SpecialToken = { id = "</s>", type_id = 0 } } },
      special_tokens = { ["</s>"] = { id = "</s>", ids = { 1 }, tokens = { "</s>" } } } },
  }
end

local function write_tokenizers(folder)
  core.file.mkdir(folder .. "/tokenizer")
  core.file.mkdir(folder .. "/tokenizer_2")
  local from = path_of("flux.1-dev"):match("^(.*)/published/") .. "/vocabularies/clip"
  for _, name in ipairs(assert(core.file.list(from))) do
    copy_file(from .. "/" .. name, folder .. "/tokenizer/" .. name)
  end
  files.write_json(folder .. "/tokenizer_2/tokenizer.json", letters())
  files.write_json(folder .. "/tokenizer_2/tokenizer_config.json",
    { tokenizer_class = "T5TokenizerFast", eos_token = "</s>", pad_token = "<pad>", unk_token = "<unk>",
      model_max_length = 512 })
end

local function write_pipeline(folder, guidance)
  local index = { _class_name = "FluxPipeline" }
  for _, entry in ipairs(PARTS) do index[entry[1]] = { entry[2], entry[3] } end
  local scheduler = require("syz.scheduler").published(guidance)
  scheduler._class_name, scheduler.num_train_timesteps = "FlowMatchEulerDiscreteScheduler", 1000
  core.file.mkdir(folder .. "/scheduler")
  files.write_json(folder .. "/scheduler/scheduler_config.json", scheduler)
  write_tokenizers(folder)
  files.write_json(folder .. "/model_index.json", index)
end

--- Write all of a published folder but the weights: configurations, and of a pipeline its index, scheduler and
--- tokenizers; T5's is a stand-in that knows single characters.
---@param name string
---@param folder string
---@param layers integer|nil   at most so many blocks in each part of a model
---@return syz.PublishedPart[]   what weights belong there
function published.write(name, folder, layers)
  local parts = published.parts(name, layers)
  if not parts then error(("%s: not a published model (there are %s)"):format(name,
    table.concat(published.names(), ", ")), 0) end
  local guidance = false
  for _, one in ipairs(parts) do
    core.file.mkdir(folder .. one.folder)
    files.write_json(folder .. one.folder .. "/config.json", one.config)
    guidance = guidance or one.config.guidance_embeds == true
  end
  if name:match("%-pipeline$") then write_pipeline(folder, guidance) end
  return parts
end

return published
