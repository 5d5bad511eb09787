--- A text-to-image pipeline from a folder in the diffusers layout: transformer, vae, text encoders, tokenizers.
--- The embedded emoji pipeline, with one text encoder, and FLUX.1, with two, take the same path.
local core = require "syz.core"
local data = require "syz.data"
local device = require "syz.device"
local embeddings = require "syz.embeddings"
local fields = require "syz.fields"
local identity = require "syz.identity"
local lora = require "syz.lora"
local pipeline_folder = require "syz.pipeline_folder"
local pipeline_text = require "syz.pipeline_text"
local sampler = require "syz.sampler"
local schedule = require "syz.schedule"
local scheduler = require "syz.scheduler"
local tiling = require "syz.tiling"

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

--- Row and column of every image token, and zeros for the text: FLUX's three-axis position ids. On the CPU, which reads
--- them.
local function position_ids(h, w, text_length)
  local ids = {}
  for row = 0, h / 2 - 1 do
    for column = 0, w / 2 - 1 do
      ids[#ids + 1] = { 0, row, column }
    end
  end
  return core.tensor(ids):to("cpu"):keep(), core.zeros({ text_length, 3 }):to("cpu"):keep()
end

--- Move all parts to a device: "cpu", "cuda", "cuda:1". On a GPU parts of half precision, and all of them when
--- `precision` is "bf16", compute in bf16; latents and images stay f32.
---@param where string
---@param precision "f32"|"bf16"|nil
---@return syz.Pipeline
function Pipeline:to(where, precision)
  for _, name in ipairs { "transformer", "vae", "text_encoder", "text_encoder_2" } do
    if self[name] then device.move_model(self[name], where, precision) end
  end
  self.where = where
  self.cache = {} -- features of prompts lie where they were made
  return self
end

--- Set the image size in pixels; both sides must be multiples of 2 * the VAE's factor. A schedule that the folder's
--- scheduler gave is made anew where its shift depends on the size.
function Pipeline:resize(height, width)
  local unit = 2 * self.vae_factor
  if height % unit ~= 0 or width % unit ~= 0 or height < unit or width < unit then
    error(("image sides must be multiples of %d, not %dx%d"):format(unit, height, width), 2)
  end
  self.height, self.width = height, width
  self.h, self.w = height / self.vae_factor, width / self.vae_factor
  self.image_ids, self.text_ids = position_ids(self.h, self.w, self.text_length)
  if self.scheduler and self.schedule == self.own_schedule then
    local shift = scheduler.shift(self.scheduler, self.h * self.w / 4)
    self.schedule = schedule.flow { steps = self.steps, shift = shift }
    self.own_schedule = self.schedule
  end
end

--- Text features of a list of prompts, cached by text: { hidden = [B,S,J], pooled = [B,P], prompts = list }.
---@param prompts string[]
function Pipeline:condition(prompts)
  return pipeline_text.condition(self, prompts)
end

-- Noise levels and guidance as the transformer takes them, for `count` samples.
local function embedded_conditions(self, count, t, guidance)
  local level = type(t) == "number" and core.full({ count }, t) or t:reshape({ count })
  if self.quantize_timestep then level = self.quantize_timestep(level) end
  if not self.guidance_embeds then return level end
  local embedded = type(guidance) == "userdata" and guidance or core.full({ count }, guidance or 3.5)
  if self.quantize_guidance then embedded = self.quantize_guidance(embedded) end
  return level, embedded
end

local function empty_prompts(self, count)
  local empty = {}
  for i = 1, count do empty[i] = "" end
  return self:condition(empty)
end

-- Each of a list of numbers `count` times.
local function each_repeated(list, count)
  local values = {}
  for _, value in ipairs(list) do
    for _ = 1, count do values[#values + 1] = value end
  end
  return core.tensor(values)
end

--- The modulation of all steps of a rollout at once, where the transformer has the method for it: it depends on noise
--- level, guidance and pooled prompt alone, and its weights, a quarter of the model, are read once instead of in every
--- step. Nothing for batches above `modulation_batch` (4), where those weights are a small part of the work. The
--- products have other shapes than step by step, and so other last bits.
---@param levels number[]                  where each step begins
---@param cond table                       from :condition()
---@param guidance (number|nil)[]          of each step
---@return { own: syz.Tensor, plain: syz.Tensor|nil }[]|nil   for :velocity(), one for each step
function Pipeline:modulation(levels, cond, guidance)
  local batch, steps = cond.pooled:size(0), #levels
  if batch > self.modulation_batch or steps == 0 or not self.transformer:methods().modulation then return nil end
  local strongest = 0
  for i = 1, steps do strongest = math.max(strongest, guidance[i] or 0) end
  return core.scope(function()
    local given = {}
    for i = 1, steps do given[i] = guidance[i] or 3.5 end
    local level, embedded = embedded_conditions(self, steps * batch, each_repeated(levels, batch),
      each_repeated(given, batch))
    local function rows(pooled)
      local width = pooled:size(1)
      pooled = pooled:reshape({ 1, batch, width }):broadcast_to({ steps, batch, width })
      return self.transformer:modulation(pooled:reshape({ steps * batch, width }), level, embedded)
    end
    local own = rows(cond.pooled)
    local plain = not self.guidance_embeds and strongest > 1 and rows(empty_prompts(self, batch).pooled)
    local list = {}
    for i = 1, steps do
      local first, last = (i - 1) * batch, i * batch
      list[i] = { own = own:slice(0, first, last), plain = plain and plain:slice(0, first, last) or nil }
    end
    return list
  end)
end

--- The model's velocity at noise level `t` (a number, or a tensor {B}). Gradients flow to the transformer when enabled.
--- With a guidance-distilled transformer `guidance` is embedded; with any other, a guidance above 1 means
--- classifier-free guidance against the empty prompt, which costs a second forward, and any other number none:
--- diffusers' example for schnell says 0.
---@param x syz.Tensor  [B,T,C] packed latents
---@param t number|syz.Tensor
---@param cond table  from :condition()
---@param guidance number|nil|syz.Tensor  a tensor {B} holds one per sample
---@param modulation { own: syz.Tensor, plain: syz.Tensor|nil }|nil  of this step, from :modulation()
function Pipeline:velocity(x, t, cond, guidance, modulation)
  local batch = x:size(0)
  local level, embedded = embedded_conditions(self, batch, t, guidance)
  modulation = modulation or {}
  local v = self.transformer:forward(x, cond.hidden, cond.pooled, level, embedded, self.image_ids, self.text_ids,
    modulation.own):to("f32")
  if self.guidance_embeds or not guidance or type(guidance) == "number" and guidance <= 1 then return v end
  local plain = empty_prompts(self, batch)
  local base = self.transformer:forward(x, plain.hidden, plain.pooled, level, nil, self.image_ids, self.text_ids,
    modulation.plain):to("f32")
  if type(guidance) == "userdata" then guidance = guidance:reshape({ batch, 1, 1 }) end
  return base + guidance * (v - base)
end

--- Packed latents to images [B,H,W,3] in [0, 1].
function Pipeline:decode(x)
  local z = unpack_tokens(x, self.h, self.w) / self.scaling_factor + self.shift_factor
  return (tiling.decode(self.vae, z, self.tiles) * 0.5 + 0.5):clamp(0, 1)
end

--- Images [B,H,W,3] in [0, 1] to packed latents (the posterior's mean): offline training starts here.
function Pipeline:encode(images)
  local moments = tiling.encode(self.vae, images * 2 - 1, self.tiles)
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
--- What is drawn here is what the weights say; `rollout = "fp8"` draws what rollouts in 8 bits would.
---@param options { prompts: string[], steps: integer|nil, guidance: number|nil, seed: integer|nil, batch: integer|nil,
---  rollout: "fp8"|nil,
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
        guidance = options.guidance or self.default_guidance, rollout = options.rollout or false,
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
--- in its place the adapters in the folder `lora`. `dtype` is that of the weights; unless given, f32, or as they are
--- stored for parts that were loaded so. Weights of more than `max_shard_bytes` (10 GB) become shards with an index.
---@param folder string
---@param options { transformer_only: boolean|nil, dtype: string|nil, max_shard_bytes: integer|nil }|nil
function Pipeline:save(folder, options)
  pipeline_folder.save(self, folder, options or {})
end

local M = {}

--- Assemble a pipeline from loaded parts (training recipes start here, before a folder exists). Without `schedule` it
--- follows `scheduler`, the configuration of diffusers'.
---@param parts { transformer: table, vae: table, text_encoder: table|nil, tokenizer: table|nil,
---  text_encoder_2: table|nil, tokenizer_2: table|nil, embeddings: syz.Embeddings|nil, schedule: syz.Schedule|nil,
---  scheduler: table|nil, steps: integer|nil, size: integer[]|nil, folder: string|nil, tokenizer_folder: string|nil }
---@return syz.Pipeline
function M.new(parts)
  local self = setmetatable(parts, Pipeline)
  local vae, transformer = self.vae:config(), self.transformer:config()
  self.scaling_factor, self.shift_factor = vae.scaling_factor, vae.shift_factor or 0
  self.channels = vae.latent_channels
  self.vae_factor = 2 ^ (#vae.block_out_channels - 1)
  self.guidance_embeds = transformer.guidance_embeds == true
  self.default_guidance = self.default_guidance or (self.guidance_embeds and 3.5 or nil)
  self.pooled_length = self.pooled_length or self.text_encoder and self.text_encoder:config().max_position_embeddings
  self.text_length = self.text_length or self.embeddings and self.embeddings.index.length or self.pooled_length
  self.tokenizer_folders = self.tokenizer_folders or { tokenizer = self.tokenizer_folder }
  self.cache, self.modulation_batch = {}, self.modulation_batch or 4
  self.where = device.current()
  local size = parts.size or { vae.sample_size or 1024, vae.sample_size or 1024 }
  self:resize(size[1], size[2])
  return self
end

M.transformer = pipeline_folder.transformer

local OPTIONS = {
  steps = "integer", shift = "number", size = "table", dtype = "string", max_length = "integer", embeddings = "string",
  vae_tiling = "table|boolean", rollout = "string",
  transformer = "string", vae = "string", text_encoder = "string", text_encoder_2 = "string", tokenizer = "string",
  tokenizer_2 = "string",
}

local TEXT_OPTIONS = { dtype = "string", max_length = "integer", text_encoder = "string", text_encoder_2 = "string",
  tokenizer = "string", tokenizer_2 = "string" }

--- Load only the text encoders and tokenizers of a pipeline folder, with their fingerprint: what `syz embed` needs.
---@param folder string
---@param options { dtype: "f32"|"stored"|nil, max_length: integer|nil }|nil
function M.text(folder, options)
  options = options or {}
  fields.check("syz.pipeline", options, TEXT_OPTIONS)
  pipeline_folder.check(folder, options)
  local parts = pipeline_folder.text(folder, options, pipeline_folder.published(folder, options).length)
  parts.folder, parts.fingerprint = folder, pipeline_folder.text_fingerprint(folder, options)
  return parts
end

--- Load a pipeline folder. Large parts stay as they are stored, mapped from the disk (`dtype`: "f32" or "stored" for
--- all of them, "bf16" for a transformer that is kept, and trained, in bf16); a path in the name of a part replaces
--- that part; `embeddings` names a folder that `syz embed` wrote, and no text encoder is loaded then; `max_length` is
--- T5's number of tokens; `vae_tiling`, true or { size = pixels, overlap = 0.25 }, sends large images through the VAE
--- in tiles; `rollout` "fp8" computes the layers of tokens in 8 bits where images are drawn to train on, never where
--- gradients are recorded and never for evaluation.
---@param folder string
---@param options { steps: integer|nil, shift: number|nil, size: integer[]|nil, dtype: "f32"|"stored"|"bf16"|nil,
---  max_length: integer|nil, embeddings: string|nil, vae_tiling: table|boolean|nil, rollout: "fp8"|nil,
---  transformer: string|nil, vae: string|nil, text_encoder: string|nil, text_encoder_2: string|nil,
---  tokenizer: string|nil, tokenizer_2: string|nil }|nil
---@return syz.Pipeline
function M.load(folder, options)
  options = options or {}
  fields.check("syz.pipeline", options, OPTIONS)
  if options.dtype then fields.choice("syz.pipeline", "dtype", options.dtype, { "f32", "stored", "bf16" }) end
  if options.rollout then fields.choice("syz.pipeline", "rollout", options.rollout, { "fp8" }) end
  if options.size and #options.size ~= 2 then error("syz.pipeline: size must be { height, width }, in pixels", 2) end
  pipeline_folder.check(folder, options)
  local parts = pipeline_folder.image(folder, options)
  local usual = pipeline_folder.published(folder, options)
  if options.embeddings then
    parts.embeddings = embeddings.open(options.embeddings)
    parts.embeddings:check(pipeline_folder.text_fingerprint(folder, options), options.max_length)
    identity.note("embeddings", options.embeddings .. "/index.json")
  else
    for name, value in pairs(pipeline_folder.text(folder, options, usual.length)) do parts[name] = value end
  end
  parts.folder, parts.size, parts.rollout = folder, options.size, options.rollout
  parts.tiles = options.vae_tiling and tiling.new(parts.vae, options.vae_tiling) or nil
  parts.scheduler = pipeline_folder.scheduler(folder, parts.transformer:config().guidance_embeds == true)
  parts.steps, parts.default_steps, parts.default_guidance = options.steps or usual.steps, usual.default_steps,
    usual.guidance
  if options.shift then parts.schedule = schedule.flow { steps = parts.steps, shift = options.shift } end
  local self = M.new(parts)
  pipeline_folder.note(folder, options)
  self.vae:requires_grad(false)
  return device.is_gpu() and self:to(device.current()) or self
end

return M
