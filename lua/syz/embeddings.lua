--- Features of prompts on disk, so that training needs no text encoder: what `syz embed` writes and a pipeline reads.
--
-- A folder of shards, each a safetensors file with hidden [N,S,J] and pooled [N,P], and index.json: which prompt lies
-- where, how long the texts were cut, and a fingerprint of the encoders and tokenizers. Shards are mapped, not read.

local core = require "syz.core"
local data = require "syz.data"
local files = require "syz.files"
local pipeline_text = require "syz.pipeline_text"
local text = require "syz.text"

local M = {}

M.FORMAT = "syzygy text embeddings 1" -- of index.json

-- A shard holds as many prompts as fit into this.
local SHARD_BYTES = 2 ^ 28

---@class syz.Embeddings
---@field folder string
---@field index { format: string, fingerprint: string, model: string, length: integer, dtype: string, shards: table[] }
local Embeddings = {}
Embeddings.__index = Embeddings

-- Where each prompt lies.
local function places(index)
  local where = {}
  for number, shard in ipairs(index.shards) do
    for row, prompt in ipairs(shard.prompts) do where[prompt] = { shard = number, row = row - 1 } end
  end
  return where
end

local function read_index(folder)
  local path = folder .. "/index.json"
  local index = files.need_json(path)
  if index.format ~= M.FORMAT or type(index.shards) ~= "table" or type(index.length) ~= "number" then
    error(path .. ": is not an index that syz embed wrote", 0)
  end
  return index
end

--- Open a folder.
---@param folder string
---@return syz.Embeddings
function M.open(folder)
  if core.file.exists(folder .. "/index.json") ~= "file" then
    error(folder .. ": holds no text embeddings (index.json); make them with syz embed", 0)
  end
  local index = read_index(folder)
  return setmetatable({ folder = folder, index = index, where = places(index), shards = {} }, Embeddings)
end

--- Whether a prompt's features are there.
---@param prompt string
---@return boolean
function Embeddings:has(prompt) return self.where[prompt] ~= nil end

--- Raise the line about the first of some prompts that is not there.
---@param prompts string[]
function Embeddings:need(prompts)
  for _, prompt in ipairs(prompts) do
    if not self:has(prompt) then
      error(("%s: the prompt %q has no embedding; add it: syz embed --prompt %s --model %s --out %s"):format(
        self.folder, prompt, text.shell(prompt), text.shell(self.index.model), text.shell(self.folder)), 0)
    end
  end
end

local function open_shard(self, number)
  local shard = self.index.shards[number]
  local path = self.folder .. "/" .. shard.file
  local size = core.file.stat(path)
  if size ~= shard.bytes then
    error(size and ("%s has %d bytes, its index says %d: it was cut or replaced"):format(path, size, shard.bytes)
      or path .. ": is not there, and index.json lists it", 0)
  end
  local tensors = core.safetensors.read(path)
  for _, name in ipairs { "hidden", "pooled" } do
    local shape = tensors[name] and tensors[name]:shape()
    if not shape or shape[1] ~= #shard.prompts or (name == "hidden" and shape[2] ~= self.index.length) then
      error(("%s: %s does not have the shape that index.json tells of"):format(path, name), 0)
    end
    tensors[name]:keep()
  end
  self.shards[number] = tensors
end

--- A prompt's hidden [1,S,J] and pooled [1,P] as f32, kept; one clear line when it is not there.
---@param prompt string
---@return syz.Tensor hidden, syz.Tensor pooled
function Embeddings:features(prompt)
  self:need { prompt }
  local place = self.where[prompt]
  return core.no_grad(core.scope, function()
    if not self.shards[place.shard] then open_shard(self, place.shard) end
    local tensors, row = self.shards[place.shard], place.row
    local hidden = tensors.hidden:slice(0, row, row + 1):to("f32")
    local pooled = tensors.pooled:slice(0, row, row + 1):to("f32")
    return hidden:keep(), pooled:keep()
  end)
end

--- Refuse features of other encoders, or of texts cut at another length.
---@param fingerprint string|nil   of the pipeline's text parts; nil when they are not on this disk
---@param length integer|nil       what the pipeline was asked for
function Embeddings:check(fingerprint, length)
  if fingerprint and fingerprint ~= self.index.fingerprint then
    error(("%s was made with other text encoders or tokenizers (%s)"):format(self.folder, self.index.model), 0)
  end
  if length and length ~= self.index.length then
    error(("%s holds texts of %d tokens, %d were asked for"):format(self.folder, self.index.length, length), 0)
  end
end

-- ---- writing ----

local function new_index(parts, options)
  return { format = M.FORMAT, model = parts.folder, fingerprint = parts.fingerprint, length = parts.text_length,
           dtype = options.dtype or "f32", shards = {} }
end

-- The index to go on with: that of the folder, if it was made in the same way.
local function begun(folder, parts, options)
  if core.file.exists(folder .. "/index.json") ~= "file" then
    core.file.mkdir(folder)
    return new_index(parts, options)
  end
  local index = read_index(folder)
  local asked = new_index(parts, { dtype = options.dtype or index.dtype })
  for _, key in ipairs { "fingerprint", "length", "dtype" } do
    if index[key] ~= asked[key] then
      local what = key == "fingerprint" and "with other text encoders or tokenizers"
        or ("with %s %s, not %s"):format(key, tostring(index[key]), tostring(asked[key]))
      error(("%s was begun %s; name another folder"):format(folder, what), 0)
    end
  end
  return index
end

-- The prompts that are not there yet, each once; always also the empty one, of classifier-free guidance.
local function missing_of(index, prompts)
  local where, list = places(index), {}
  local function add(prompt)
    if where[prompt] then return end
    where[prompt] = true
    list[#list + 1] = prompt
  end
  add ""
  for _, prompt in ipairs(prompts) do add(prompt) end
  return list
end

local function write_shard(folder, index, prompts, hidden, pooled)
  local name = ("embeddings-%05d.safetensors"):format(#index.shards + 1)
  local path = folder .. "/" .. name
  core.no_grad(core.scope, function()
    core.safetensors.write(path, { hidden = data.stack(hidden):to(index.dtype),
                                   pooled = data.stack(pooled):to(index.dtype) })
  end)
  table.insert(index.shards, { file = name, bytes = (core.file.stat(path)), sha256 = core.file.sha256(path),
                               prompts = core.array(prompts) })
  files.write_json(folder .. "/index.json", index)
end

--- Encode what a folder lacks of some prompts. Each shard is whole once the index lists it: a run that was broken off
--- goes on where it stopped.
---@param folder string
---@param parts table      what syz.pipeline_folder's text() loads
---@param prompts string[]
---@param options { dtype: "f32"|"bf16"|nil, shard: integer|nil, on_prompt: nil|fun(done: integer, total: integer) }
---@return { prompts: integer, new: integer, shards: integer, bytes: integer }
function M.write(folder, parts, prompts, options)
  local index = begun(folder, parts, options)
  local missing = missing_of(index, prompts)
  local first = 1
  while first <= #missing do
    local chunk, hidden, pooled, most = {}, {}, {}, options.shard
    for i = first, #missing do
      local h, p = pipeline_text.encode(parts, missing[i])
      most = most or math.max(1, math.floor(SHARD_BYTES / (4 * (h:numel() + p:numel()))))
      chunk[#chunk + 1], hidden[#hidden + 1], pooled[#pooled + 1] = missing[i], h, p
      if options.on_prompt then options.on_prompt(i, #missing) end
      if #chunk == most then break end
    end
    write_shard(folder, index, chunk, hidden, pooled)
    for i = 1, #chunk do
      hidden[i]:free()
      pooled[i]:free()
    end
    first = first + #chunk
  end
  local count, bytes = 0, 0
  for _, shard in ipairs(index.shards) do count, bytes = count + #shard.prompts, bytes + shard.bytes end
  return { prompts = count, new = #missing, shards = #index.shards, bytes = bytes }
end

return M
