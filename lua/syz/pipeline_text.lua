--- What a pipeline knows of its prompts: features from its text encoders, or from a folder that `syz embed` wrote.
--
-- FLUX.1 reads a prompt twice: CLIP gives one vector, T5 one per token. The embedded pipeline has one encoder for both.

local core = require "syz.core"
local data = require "syz.data"
local precision = require "syz.precision"

local M = {}

-- Features that are kept at hand; a prompt's are eight mebibytes in FLUX.1, and some data sets have a million prompts.
M.most_bytes = 2 ^ 30

--- The features of one text: hidden [1,S,J] and pooled [1,P], in f32.
-- One text at a time: a matrix product's rounding may depend on the batch, and a resumed run must see the same features
-- as one that met its prompts in another company.
---@param parts { text_encoder: table, tokenizer: syz.Texts, text_encoder_2: table|nil, tokenizer_2: syz.Texts|nil,
---  text_length: integer, pooled_length: integer }
---@param text string
---@return syz.Tensor hidden, syz.Tensor pooled
function M.encode(parts, text)
  return precision.exact(core.no_grad, core.scope, function()
    local hidden, pooled = parts.text_encoder:forward((parts.tokenizer:batch({ text }, parts.pooled_length)))
    if parts.text_encoder_2 then
      hidden = parts.text_encoder_2:forward((parts.tokenizer_2:batch({ text }, parts.text_length)))
    end
    return hidden:to("f32"):keep(), pooled:to("f32"):keep()
  end)
end

-- Keep a text's features, and let go of the oldest when there are too many. Whoever still uses those holds them.
local function remember(pipe, text, hidden, pooled)
  local line = pipe.remembered
  if not line or line.cache ~= pipe.cache then
    line = { cache = pipe.cache, first = 1, last = 0 }
    pipe.remembered = line
  end
  pipe.cache[text] = { hidden = hidden, pooled = pooled }
  line.last = line.last + 1
  line[line.last] = text
  local most = math.max(1, math.floor(M.most_bytes / (4 * (hidden:numel() + pooled:numel()))))
  while line.last - line.first >= most do
    pipe.cache[line[line.first]] = nil
    line[line.first], line.first = nil, line.first + 1
  end
end

local function features(pipe, text)
  local kept = pipe.cache[text]
  if not kept then
    if pipe.embeddings then
      remember(pipe, text, pipe.embeddings:features(text))
    else
      remember(pipe, text, M.encode(pipe, text))
    end
    kept = pipe.cache[text]
  end
  return kept
end

--- Text features of a list of prompts, cached by text: { hidden = [B,S,J], pooled = [B,P], prompts = list }.
---@param pipe syz.Pipeline
---@param prompts string[]
function M.condition(pipe, prompts)
  local hidden, pooled = {}, {}
  for i, text in ipairs(prompts) do
    local kept = features(pipe, text)
    hidden[i], pooled[i] = kept.hidden, kept.pooled
  end
  return { hidden = data.stack(hidden):to(pipe.where), pooled = data.stack(pooled):to(pipe.where), prompts = prompts }
end

return M
