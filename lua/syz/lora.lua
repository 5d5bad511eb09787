--- LoRA: low-rank adapters on the linear layers of a model, trained in place of its weights, in PEFT's terms.
--
--   pipe:lora { rank = 32, alpha = 64 }              new adapters on a pipeline's transformer; every method trains them
--   pipe:lora { load = "FOLDER", scale = 0.8 }       adapters from a file
--   syz.lora(model, { rank = 8, targets = "all-linear" })   the same on any model; a module that syz.fit can train
--
-- A layer computes W x + b + scale * B A x with scale = alpha / rank, or alpha / sqrt(rank) with rslora. There is no
-- dropout. docs/lora.md has the files and what other programs make of them.
local core = require "syz.core"
local fields = require "syz.fields"
local identity = require "syz.identity"
local nearest = require "syz.nearest"

local M = {}

---@class syz.Lora
---@field model table            whose layers it adapts
---@field component string|nil   the model's name in its pipeline; nil: files are PEFT's
local Lora = {}
Lora.__index = Lora

local FIELDS = {
  rank = "integer", alpha = "number", targets = "string|table", rslora = "boolean", init = "string", seed = "integer",
  rank_pattern = "table", alpha_pattern = "table", load = "string", scale = "number",
}

local ATTENTION = { "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0" }

--- Named targets of FluxTransformer2DModel. "blocks" is what diffusers' training scripts for FLUX adapt.
M.targets = {
  attention = ATTENTION,
  blocks = { "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj",
             "attn.add_v_proj", "attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj",
             "ff_context.net.2" },
}

-- Names of layers without the numbers of their blocks: "attn.to_q" of "transformer_blocks.3.attn.to_q".
local function layer_names(model)
  local names, seen = {}, {}
  for _, weight in ipairs(model:linears()) do
    local name = weight:gsub("%.weight$", ""):gsub("^.*%.%d+%.(%a)", "%1")
    if not seen[name] then names[#names + 1] = name end
    seen[name] = true
  end
  return names
end

local function is_layer(model, target)
  for _, weight in ipairs(model:linears()) do
    local name = "." .. weight:gsub("%.weight$", "")
    if name:sub(-#target - 1) == "." .. target then return true end
  end
  return false
end

local function resolve_targets(model, targets, level)
  local flux = model:class() == "FluxTransformer2DModel"
  if targets == nil then
    if not flux then
      error(("lora: targets must name layers of %s, or be \"all-linear\""):format(model:class()), level + 1)
    end
    targets = "blocks"
  end
  if targets == "all-linear" then return targets end
  if type(targets) == "string" then
    fields.choice("lora", "targets", targets, flux and { "attention", "blocks", "all-linear" } or { "all-linear" },
      level + 1)
    targets = M.targets[targets]
  end
  local list = {}
  for i, target in ipairs(targets) do
    if type(target) ~= "string" then error("lora: targets must be a list of names of layers", level + 1) end
    if not is_layer(model, target) then
      error(("lora: targets: %s has no linear layer %q%s"):format(model:class(), target,
        nearest.hint(target, layer_names(model))), level + 1)
    end
    list[i] = target
  end
  return core.array(list)
end

local function attach(model, options, level)
  local rank = options.rank or 8
  fields.choice("lora", "init", options.init or "kaiming", { "kaiming", "gaussian" }, level + 1)
  model:lora_attach({
    r = rank, lora_alpha = options.alpha or rank, target_modules = resolve_targets(model, options.targets, level + 1),
    use_rslora = options.rslora or false, init_lora_weights = options.init == "gaussian" and "gaussian" or true,
    rank_pattern = options.rank_pattern, alpha_pattern = options.alpha_pattern,
  }, options.seed or 42)
end

local function load(model, options, component, level)
  for _, name in ipairs { "rank", "alpha", "targets", "rslora", "init", "seed", "rank_pattern", "alpha_pattern" } do
    if options[name] ~= nil then
      error(("lora: %s comes from the file that is loaded; leave it out"):format(name), level + 1)
    end
  end
  model:lora_load(options.load, component)
  identity.note("LoRA", options.load)
end

--- Attach adapters to a model.
---@param model table
---@param options { rank: integer|nil, alpha: number|nil, targets: string[]|"attention"|"blocks"|"all-linear"|nil,
---  rslora: boolean|nil, init: "kaiming"|"gaussian"|nil, seed: integer|nil, rank_pattern: table<string, integer>|nil,
---  alpha_pattern: table<string, number>|nil, load: string|nil, scale: number|nil }
---  rank 8, alpha the rank, init PEFT's uniform numbers; patterns give layers whose names end so another rank or alpha;
---  load: a folder or file to start from; scale: multiplies what the adapters add, as diffusers' adapter weight (1)
---@param component string|nil  the model's name in its pipeline, for files in diffusers' layout
---@param level integer|nil     whose line an error names, as in error()
---@return syz.Lora
function M.new(model, options, component, level)
  level = (level or 1) + 1
  fields.check("lora", options, FIELDS, level)
  if type(model) ~= "userdata" then error("lora adapts a model, such as pipe.transformer", level) end
  if options.load then load(model, options, component, level) else attach(model, options, level) end
  if options.scale then
    if options.scale - options.scale ~= 0 then error("lora: scale must be a finite number", level) end
    model:lora_strength(options.scale)
  end
  return setmetatable({ model = model, component = component, scale = options.scale or 1 }, Lora)
end

--- The parameters' names, such as "transformer_blocks.0.attn.to_q.lora_A.weight".
---@return string[]
function Lora:names() return (select(2, self.model:lora_params())) end

---@return syz.Tensor[]
function Lora:parameters() return (self.model:lora_params()) end

---@param name string
---@return syz.Tensor|nil
function Lora:param(name)
  local tensors, names = self.model:lora_params()
  for i, candidate in ipairs(names) do
    if candidate == name then return tensors[i] end
  end
end

function Lora:requires_grad(on)
  for _, tensor in ipairs(self:parameters()) do tensor:requires_grad(on) end
end

--- PEFT's LoraConfig as a table.
function Lora:config() return self.model:lora_config() end

--- Write a folder that diffusers loads (load_lora_weights), or PEFT where the model is part of no pipeline.
---@param folder string
function Lora:save(folder)
  core.file.mkdir(folder)
  self.model:lora_save(folder, self.component)
end

--- Take the values of such a folder, of the same layers and ranks.
---@param folder string
function Lora:restore(folder)
  self.model:lora_assign(folder, self.component)
  return self
end

local function back(self, was, ok, ...)
  self.model:lora_enable(was)
  if not ok then error(..., 0) end
  return ...
end

-- A layer's name without the number of its block.
local function kind_of(name)
  return (name:gsub("%.lora_[AB]%.weight$", ""):gsub("%.weight$", ""):gsub("%.%d+%.", ".#."))
end

--- How many numbers the same adapters have on a model of the same widths and another depth.
---@param model table
---@return integer
function Lora:count(model)
  local sizes, total = {}, 0
  local tensors, names = self.model:lora_params()
  for i = 1, #names, 2 do sizes[kind_of(names[i])] = tensors[i]:numel() + tensors[i + 1]:numel() end
  for _, weight in ipairs(model:linears()) do total = total + (sizes[kind_of(weight)] or 0) end
  return total
end

--- Call f while the model computes as if it had no adapters.
---@param f function
---@return any ...  what f returns
function Lora:disabled(f, ...)
  return back(self, self.model:lora_enable(false), pcall(f, ...))
end

--- Add the adapters into the weights, or take them out again, to the same bits.
function Lora:merge() self.model:lora_merge() end

function Lora:unmerge() self.model:lora_unmerge() end

--- Take the adapters off: the model is what it was, or stays as it is when they are merged.
function Lora:remove() self.model:lora_remove() end

--- What a method trains: where its pipeline has adapters on a model, the adapters in place of the model.
---@param method table
function M.redirect(method)
  local adapter = method.pipeline and method.pipeline.adapter
  if not adapter then return end
  for name, module in pairs(method.modules) do
    if module == adapter.model then
      method.modules[name] = nil
      method.modules.lora = adapter
      return
    end
  end
end

--- The adapters that a run has trained, if it trained some.
---@param folder string  of the run
---@return string|nil
function M.of_run(folder)
  local path = folder .. "/model/lora"
  return core.file.exists(path) == "folder" and path or nil
end

return setmetatable(M, { __call = function(_, model, options) return M.new(model, options, nil, 2) end })
