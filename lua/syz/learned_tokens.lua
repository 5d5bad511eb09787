--- Tokens that are embeddings rather than vocabulary: how names such as "<positive>" in a text become rows of what a
--- CLIP text tower reads. The name is the placeholder of textual inversion.
local core = require "syz.core"
local data = require "syz.data"

local M = {}

M.table_name = "text_model.embeddings.token_embedding.weight"

--- Refuse a learned token that this reward cannot read.
---@param reward syz.ClipReward
---@param name string
---@param tensor syz.Tensor
function M.check(reward, name, tensor)
  if type(name) ~= "string" or not name:match("^<[^<>%s]+>$") then
    error(('a learned token has a name in angle brackets such as "<positive>", not %q'):format(tostring(name)), 3)
  end
  local width = reward.config.text_config.hidden_size
  if tensor:rank() ~= 2 or tensor:size(1) ~= width then
    error(("%s is [%s]; this reward's text tower reads [n,%d]: learn the tokens with this reward"):format(name,
      table.concat(tensor:shape(), ","), width), 3)
  end
  if tensor:size(0) > reward.length - 2 then
    error(("%s is %d tokens long; this reward's texts hold %d"):format(name, tensor:size(0), reward.length - 2), 3)
  end
end

-- The next name in a text: where it starts and ends, and which.
local function next_name(text, from, learned)
  local first, last, found
  for name in pairs(learned) do
    local a, b = text:find(name, from, true)
    if a and (not first or a < first) then first, last, found = a, b, name end
  end
  return first, last, found
end

-- A text as runs of vocabulary ids and of learned tokens, without its ends.
local function runs_of(tokenizer, text, learned)
  local runs, from = {}, 1
  local function add_text(piece)
    local ids = tokenizer:encode(piece)
    if #ids > 0 then runs[#runs + 1] = { ids = ids, length = #ids } end
  end
  while true do
    local first, last, name = next_name(text, from, learned)
    if not first then break end
    add_text(text:sub(from, first - 1))
    runs[#runs + 1] = { tensor = learned[name], length = learned[name]:size(0) }
    from = last + 1
  end
  add_text(text:sub(from))
  return runs
end

-- One text as rows [T,C] and ids. Learned tokens have no id: a stand-in that does not end a text keeps their place.
local function embed_one(reward, text, learned)
  local length = reward.length
  local frame = reward.tokenizer:batch({ "" }, length):totable() -- begin, end, padding
  local begin, finish, padding = frame[1], frame[2], frame[3] or frame[2]
  local stand_in = finish == 0 and 1 or 0
  local vocabulary, ids, rows = reward.model:param(M.table_name), { begin }, {}
  local function flush(list)
    rows[#rows + 1] = vocabulary:embedding(core.tensor(list, { #list }, "i64"))
  end
  flush { begin }
  for _, run in ipairs(runs_of(reward.tokenizer, text, learned)) do
    local room = math.min(run.length, length - 1 - #ids)
    if room > 0 then
      local part = {}
      for k = 1, room do part[k] = run.ids and run.ids[k] or stand_in end
      for _, id in ipairs(part) do ids[#ids + 1] = id end
      if run.ids then flush(part) else rows[#rows + 1] = run.tensor:slice(0, 0, room) end
    end
  end
  local tail = { finish }
  while #ids + #tail < length do tail[#tail + 1] = padding end
  for _, id in ipairs(tail) do ids[#ids + 1] = id end
  flush(tail)
  return data.stack(rows), ids
end

--- What text_features_from_embeddings takes for some texts: embeddings [B,T,C] and ids [B,T].
---@param reward syz.ClipReward
---@param texts string[]
---@param learned table<string, syz.Tensor>
function M.embed(reward, texts, learned)
  local rows, ids = {}, {}
  for i, text in ipairs(texts) do
    local embedded, row = embed_one(reward, text, learned)
    rows[i] = embedded:reshape({ 1, reward.length, embedded:size(1) })
    for _, id in ipairs(row) do ids[#ids + 1] = id end
  end
  return data.stack(rows), core.tensor(ids, { #texts, reward.length }, "i64")
end

return M
