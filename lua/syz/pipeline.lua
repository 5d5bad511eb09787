--- A text-to-image pipeline from a folder in the diffusers layout: transformer, vae, text encoder, tokenizer.
--- The embedded emoji pipeline and FLUX.1 take the same path.
local core = require "syz.core"
local data = require "syz.data"
local fields = require "syz.fields"
local files = require "syz.files"
local identity = require "syz.identity"
local lora = require "syz.lora"
local precision = require "syz.precision"
local sampler = require "syz.sampler"
local schedule = require "syz.schedule"
local text_reader = require "syz.texts"

---@class syz.Pipeline
local Pipeline = {}
Pipeline.__index = Pipeline

--- Latents [N,h,w,C] to tokens [N, h/2 * w/2, 4C] and back, in FLUX's order (channel, row, column).
local function pack(z)
  local s = z:shape()
  local n, h, w, c = s[1], s[2], s[3], s[4]
  return z:reshape({ n, h / 2, 2, w / 2, 2, c }):permute({ 0, 1, 3, 5, 2, 4 }):reshape({ n, h * w / 4, c * 4 })
end

local function unpack_tokens(x, h, w)
  local s = x:shape()
  local n, c = s[1], s[3] / 4
  return x:reshape({ n, h / 2, w / 2, c, 2, 2 }):permute({ 0, 1, 4, 2, 5, 3 }):reshape({ n, h, w, c })
end

--- Row and column of every image token, and zeros for the text: FLUX's three-axis position ids.
local function position_ids(h, w, text_length)
  local ids = {}
  for row = 0, h / 2 - 1 do
    for column = 0, w / 2 - 1 do
      ids[#ids + 1] = { 0, row, column }
    end
  end
  return core.tensor(ids):keep(), core.zeros({ text_length, 3 }):keep()
end

--- Set the image size in pixels; both sides must be multiples of 2 * the VAE's factor.
function Pipeline:resize(height, width)
  local unit = 2 * self.vae_factor
  if height % unit ~= 0 or width % unit ~= 0 then
    error(("image sides must be multiples of %d, not %dx%d"):format(unit, height, width), 2)
  end
  self.height, self.width = height, width
  self.h, self.w = height / self.vae_factor, width / self.vae_factor
  self.image_ids, self.text_ids = position_ids(self.h, self.w, self.text_length)
end

--- Text features of a list of prompts, cached by text: { hidden = [B,S,J], pooled = [B,P], prompts = list }.
---@param prompts string[]
function Pipeline:condition(prompts)
  local missing, seen = {}, {}
  for _, text in ipairs(prompts) do
    if not self.cache[text] and not seen[text] then
      missing[#missing + 1], seen[text] = text, true
    end
  end
  if #missing > 0 then self:encode_text(missing) end
  local hidden, pooled = {}, {}
  for i, text in ipairs(prompts) do
    hidden[i], pooled[i] = self.cache[text].hidden, self.cache[text].pooled
  end
  return { hidden = data.stack(hidden), pooled = data.stack(pooled), prompts = prompts }
end

-- One text at a time: a matrix product's rounding may depend on the batch, and a resumed run must see the same features
-- as one that met its prompts in another company.
function Pipeline:encode_text(texts)
  for _, text in ipairs(texts) do
    precision.exact(core.no_grad, core.scope, function()
      local hidden, pooled = self.text_encoder:forward((self.tokenizer:batch({ text }, self.text_length)))
      self.cache[text] = { hidden = hidden:keep(), pooled = pooled:keep() }
    end)
  end
end

--- The model's velocity at noise level `t` (a number, or a tensor {B}). Gradients flow to the transformer when enabled.
--- With a guidance-distilled transformer `guidance` is embedded; with any other, a guidance above 1 means
--- classifier-free guidance against the empty prompt, which costs a second forward.
---@param x syz.Tensor  [B,T,C] packed latents
---@param t number|syz.Tensor
---@param cond table  from :condition()
---@param guidance number|nil|syz.Tensor  a tensor {B} holds one per sample
function Pipeline:velocity(x, t, cond, guidance)
  local batch = x:size(0)
  local level = type(t) == "number" and core.full({ batch }, t) or t:reshape({ batch })
  if self.quantize_timestep then level = self.quantize_timestep(level) end
  if self.guidance_embeds then
    local embedded = type(guidance) == "userdata" and guidance or core.full({ batch }, guidance or 3.5)
    if self.quantize_guidance then embedded = self.quantize_guidance(embedded) end
    return self.transformer:forward(x, cond.hidden, cond.pooled, level, embedded, self.image_ids, self.text_ids)
  end
  local v = self.transformer:forward(x, cond.hidden, cond.pooled, level, nil, self.image_ids, self.text_ids)
  if not guidance or guidance == 1 then return v end
  local empty = {}
  for i = 1, batch do empty[i] = "" end
  local plain = self:condition(empty)
  local base = self.transformer:forward(x, plain.hidden, plain.pooled, level, nil, self.image_ids, self.text_ids)
  if type(guidance) == "userdata" then guidance = guidance:reshape({ batch, 1, 1 }) end
  return base + guidance * (v - base)
end

--- Packed latents to images [B,H,W,3] in [0, 1].
function Pipeline:decode(x)
  local z = unpack_tokens(x, self.h, self.w) / self.scaling_factor + self.shift_factor
  return (self.vae:decode(z) * 0.5 + 0.5):clamp(0, 1)
end

--- Images [B,H,W,3] in [0, 1] to packed latents (the posterior's mean): offline training starts here.
function Pipeline:encode(images)
  local moments = self.vae:encode(images * 2 - 1)
  local mean = moments:slice(3, 0, moments:size(3) / 2)
  return pack((mean - self.shift_factor) * self.scaling_factor)
end

--- Normal noise in the shape of packed latents.
---@param generator syz.Generator
---@param batch integer
function Pipeline:noise(generator, batch)
  return generator:randn({ batch, self.h * self.w / 4, self.channels * 4 })
end

--- Images for prompts. One seed per image (seed, seed + 1, ...), so that an image does not depend on its batch.
---@param options { prompts: string[], steps: integer|nil, guidance: number|nil, seed: integer|nil, batch: integer|nil,
---  on_step: nil|fun(done: integer, total: integer) }
---@return syz.Tensor  [N,H,W,3] in [0, 1]
function Pipeline:sample(options)
  local prompts, size = options.prompts, options.batch or 16
  local steps = options.steps or self.schedule.steps
  local parts, done, total = {}, 0, math.ceil(#prompts / size) * steps
  for start = 1, #prompts, size do
    parts[#parts + 1] = core.no_grad(core.scope, function()
      local chosen, noise = {}, {}
      for i = start, math.min(start + size - 1, #prompts) do
        chosen[#chosen + 1] = prompts[i]
        noise[#noise + 1] = self:noise(core.generator((options.seed or 0) + i - 1, 1), 1)
      end
      local x = sampler.euler(self, {
        noise = data.stack(noise), cond = self:condition(chosen), schedule = self.schedule, steps = steps,
        guidance = options.guidance or self.default_guidance,
        on_step = function()
          done = done + 1
          if options.on_step then options.on_step(done, total) end
        end,
      })
      return self:decode(x)
    end)
  end
  return data.stack(parts)
end

--- Packed latents [N,T,C] of a whole image set.
---@param images syz.Images
function Pipeline:encode_all(images)
  local parts = {}
  data.each_batch(images, 64, function(batch) parts[#parts + 1] = self:encode(batch):keep() end)
  local all = data.stack(parts):copy():keep()
  for _, part in ipairs(parts) do part:free() end
  return all
end

--- Attach LoRA adapters to the transformer (lua/syz/lora.lua has the fields); every method then trains these alone.
---@param options table
---@return syz.Lora
function Pipeline:lora(options)
  if self.adapter then error("this pipeline has LoRA adapters already; pipe:merge_lora() makes them part of it", 2) end
  self.adapter = lora.new(self.transformer, options, "transformer", 2)
  return self.adapter
end

--- Add the adapters into the transformer's weights for good.
function Pipeline:merge_lora()
  if not self.adapter then error("this pipeline has no LoRA adapters to merge", 2) end
  self.adapter:merge()
  self.adapter:remove()
  self.adapter = nil
end

--- Save in the diffusers layout: all parts, or with `transformer_only` just what training changed: the transformer, or
--- in its place the adapters in the folder `lora`. `dtype` is that of the weights, f32 unless given.
---@param folder string
---@param options { transformer_only: boolean|nil, dtype: string|nil }|nil
function Pipeline:save(folder, options)
  options = options or {}
  local dtype = options.dtype or "f32"
  if self.adapter then self.adapter:save(folder .. "/lora") end
  if self.adapter and options.transformer_only then return end
  self.transformer:save(folder .. "/transformer", dtype)
  if options.transformer_only then return end
  self.vae:save(folder .. "/vae", dtype)
  self.text_encoder:save(folder .. "/text_encoder", dtype)
  data.copy_folder(self.tokenizer_folder, folder .. "/tokenizer")
  core.file.mkdir(folder .. "/scheduler")
  core.file.write(folder .. "/scheduler/scheduler_config.json", core.json.encode({
    _class_name = "FlowMatchEulerDiscreteScheduler", num_train_timesteps = 1000, shift = self.schedule.shift,
    use_dynamic_shifting = false,
  }, true))
  core.file.write(folder .. "/model_index.json", core.json.encode({
    _class_name = "FluxPipeline",
    scheduler = { "diffusers", "FlowMatchEulerDiscreteScheduler" },
    text_encoder = { "transformers", "CLIPTextModel" }, tokenizer = { "transformers", "CLIPTokenizer" },
    transformer = { "diffusers", "FluxTransformer2DModel" }, vae = { "diffusers", "AutoencoderKL" },
  }, true))
end

local M = {}

--- Assemble a pipeline from loaded parts (training recipes start here, before a folder exists).
---@param parts { transformer: table, vae: table, text_encoder: table, tokenizer: table, schedule: syz.Schedule,
---  size: integer[]|nil, folder: string|nil }
---@return syz.Pipeline
function M.new(parts)
  local self = setmetatable(parts, Pipeline)
  local vae, transformer = self.vae:config(), self.transformer:config()
  self.scaling_factor, self.shift_factor = vae.scaling_factor, vae.shift_factor or 0
  self.channels = vae.latent_channels
  self.vae_factor = 2 ^ (#vae.block_out_channels - 1)
  self.guidance_embeds = transformer.guidance_embeds == true
  self.text_length = self.text_encoder:config().max_position_embeddings
  self.default_guidance = self.guidance_embeds and 3.5 or nil
  self.cache = {}
  local size = parts.size or { vae.sample_size or 1024, vae.sample_size or 1024 }
  self:resize(size[1], size[2])
  return self
end

local function check_folder(folder)
  if type(folder) ~= "string" then error("syz.pipeline needs the name of a folder, not a " .. type(folder), 3) end
  local kind = core.file.exists(folder)
  if not kind then error(folder .. ": no such folder; a pipeline folder is needed", 3) end
  if kind ~= "folder" then error(folder .. " is a file; a pipeline folder is needed", 3) end
  if core.file.exists(folder .. "/model_index.json") ~= "file" then
    error(("%s is not a pipeline folder: it has no model_index.json"):format(folder), 3)
  end
  files.need_json(folder .. "/model_index.json")
end

local function load_class(folder, class, stored)
  local model = stored and core.model.load_stored(folder) or core.model.load(folder)
  if model:class() ~= class then
    error(("%s holds %s weights; those of %s are needed there"):format(folder, model:class(), class), 0)
  end
  return model
end

local function part(folder, name, class, stored)
  if core.file.exists(folder .. "/" .. name) ~= "folder" then
    error(("%s lacks the folder %s with the weights of %s"):format(folder, name, class), 0)
  end
  return load_class(folder .. "/" .. name, class, stored)
end

--- Load the weights of a transformer alone.
---@param folder string
---@param stored boolean|nil  as of load()
function M.transformer(folder, stored)
  if core.file.exists(folder) ~= "folder" then error(folder .. ": no such folder; a transformer's is needed", 0) end
  return load_class(folder, "FluxTransformer2DModel", stored)
end

--- Load a pipeline folder.
---@param folder string
---@param options { steps: integer|nil, shift: number|nil, size: integer[]|nil, stored: boolean|nil }|nil
---  stored: weights keep their file's dtype and memory, and cannot be trained themselves: for LoRA on a bf16 base
---@return syz.Pipeline
function M.load(folder, options)
  options = options or {}
  fields.check("syz.pipeline", options, { steps = "integer", shift = "number", size = "table", stored = "boolean" })
  check_folder(folder)
  local scheduler = files.need_json(folder .. "/scheduler/scheduler_config.json")
  if scheduler.shift ~= nil and not (type(scheduler.shift) == "number" and scheduler.shift > 0) then
    error(folder .. '/scheduler/scheduler_config.json: "shift" must be a number above 0', 0)
  end
  local text_encoder = part(folder, "text_encoder", "CLIPTextModel", options.stored)
  local ids = text_encoder:config().vocab_size
  local self = M.new {
    folder = folder,
    transformer = M.transformer(folder .. "/transformer", options.stored),
    vae = part(folder, "vae", "AutoencoderKL", options.stored),
    text_encoder = text_encoder,
    tokenizer = text_reader.open(folder .. "/tokenizer", ids, "the pipeline's text encoder"),
    tokenizer_folder = folder .. "/tokenizer",
    schedule = schedule.flow { steps = options.steps or 25, shift = options.shift or scheduler.shift or 1 },
    size = options.size,
  }
  identity.note("pipeline", folder)
  self.vae:requires_grad(false)
  self.text_encoder:requires_grad(false)
  return self
end

return M
