--- A dry run: everything a recipe names is built, with random weights where there are no files, and one step is made.
--
-- While it is on, core.model.load makes models from configurations alone. A model whose files exist is opened, so that
-- every name and shape in them is checked; one that is small enough is then used as it is. The others get random
-- weights and as little depth as was asked for. A path that does not exist is stood in for by the configuration that
-- was published for its place (lua/syz/published).
local core = require "syz.core"
local files = require "syz.files"
local published = require "syz.published"

local dry = {}

-- Above so many parameters a model is made shallow, whether there are files or not; and one without files.
local LARGE, LARGE_STAND_IN = 2e9, 2e8

-- What stands in for a missing path, by the function of `syz` that takes it.
local STAND_INS = {
  pipeline = "flux.1-dev-pipeline", clip = "clip-l", hps = "hps-v2.1", pickscore = "pickscore", clip_score = "clip-l",
  image_reward = "image-reward",
}

---@class syz.DryModel
---@field model syz.Model
---@field path string          as the recipe has it
---@field missing boolean      no files: a published configuration stands in
---@field parameters integer   at full depth
---@field config table         at full depth
---@field stored string|nil    how it would be kept: "f32", or as its file has it

-- Set while a dry run is on: { layers, models = syz.DryModel[], restore = what stop() puts back, names = stand-ins }
local state

-- The missing path that a folder of configurations, or a part of it, stands in for; nil for any other.
local function stands_for(path)
  for folder, missing in pairs(state.names) do
    if path == folder or path:sub(1, #folder + 1) == folder .. "/" then return missing .. path:sub(#folder + 1) end
  end
end

local function note(path, missing, model, config, parameters, kept)
  state.models[#state.models + 1] = { path = stands_for(path) or path, missing = missing, model = model,
    config = config, parameters = parameters, stored = kept }
  return model
end

-- A layer that starts at zero, as adaLN-Zero, would hide all that lies before it from the gradient.
local function wake(model)
  for k, name in ipairs(model:names()) do
    core.no_grad(core.scope, function()
      local values = model:param(name)
      if #values:shape() < 2 or values:abs():sum():item() > 0 then return end
      values:assign(core.generator(1, k):randn(values:shape()) * 0.02)
    end)
  end
  return model
end

local function random(config, deep)
  return wake(core.model.create(deep and config or published.shallow(config, state.layers)):init(1))
end

-- What core.model.load and load_stored become.
local function load(path, config, stored)
  if stands_for(path) then
    config = config or files.need_json(path .. "/config.json")
    local parameters = core.model.create(config):numel()
    return note(path, true, random(config, parameters <= LARGE_STAND_IN), config, parameters, stored)
  end
  local opened = state.restore.load_stored(path, config)
  local parameters, full = opened:numel(), opened:config()
  local small = parameters <= LARGE
  local model = small and (stored and opened or state.restore.load(path, config)) or random(full)
  return note(path, false, model, full, parameters, stored)
end

-- The path itself, or the folder of configurations that stands in for it.
local function existing(path, what)
  if type(path) ~= "string" or core.file.exists(path) then return path end
  local folder = ("%s/%d-%s"):format(state.folder, #state.models, what)
  published.write(what, folder)
  state.names[folder] = path
  return folder
end

--- From now on, loading is as the head of this file says.
---@param options { layers: integer, folder: string }   folder: an empty one, for configurations
function dry.start(options)
  local syz = require "syz"
  state = { layers = options.layers, folder = options.folder, models = {}, names = {}, restore = {
    load = core.model.load, load_stored = core.model.load_stored, pipeline = syz.pipeline, reward = {},
  } }
  core.model.load = function(path, config) return load(path, config, false) end
  core.model.load_stored = function(path, config) return load(path, config, true) end
  local real = syz.pipeline
  syz.pipeline = setmetatable({ new = real.new, load = real.load }, { __call = function(_, path, ...)
    return real.load(existing(path, STAND_INS.pipeline), ...)
  end })
  for name, what in pairs(STAND_INS) do
    local make = syz.reward[name]
    if make then
      state.restore.reward[name] = make
      syz.reward[name] = function(path, ...) return make(existing(path, what), ...) end
    end
  end
end

--- Loading is as it was. Returns what was loaded meanwhile.
---@return syz.DryModel[]
function dry.stop()
  local syz, restore, models = require "syz", state.restore, state.models
  core.model.load, core.model.load_stored = restore.load, restore.load_stored
  syz.pipeline = restore.pipeline
  for name, make in pairs(restore.reward) do syz.reward[name] = make end
  state = nil
  return models
end

return dry
