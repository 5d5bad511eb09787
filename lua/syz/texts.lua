--- A text tower's tokenizer: the ids of texts, with a word about those that are too long or no text at all.
--
-- A text of more tokens than the tower reads is cut, as CLIP does it; the first one is said, once per tokenizer.
-- Vocabularies of checkpoints that come without one are bundled: docs/tokenizers.md.

local core = require "syz.core"
local message = require "syz.message"
local progress = require "syz.progress"
local text = require "syz.text"

local texts = {}

---@class syz.Texts
---@field inner syz.Tokenizer
---@field frame integer   how many ids of a row are not the text's: CLIP's begin and end, T5's end
local Texts = {}
Texts.__index = Texts

local function shown(s)
  return text.clip(message.line(s:gsub("[\128-\255]", "?")), 40)
end

-- Which of several texts cannot be read, and why.
local function refuse(inner, list, length, pad, raised)
  for _, one in ipairs(list) do
    local ok, reason = pcall(inner.batch, inner, { one }, length, pad)
    if not ok and type(one) == "string" then
      error(('the text "%s" cannot be read: %s'):format(shown(one), message.of(reason)), 0)
    end
  end
  error(raised, 0)
end

function Texts:warn_of_cuts(list, length, used)
  for i, one in ipairs(list) do
    local count = used[i] == length and #self.inner:encode(one) or 0
    if count > length - self.frame then
      self.warned = true
      progress.note(('warning: a text has %d tokens and %s reads %d; what follows is left out ("%s"); later ones '
        .. "are cut without a word"):format(count, self.reader, length - self.frame, shown(one)), "yellow")
      return
    end
  end
end

--- As of a tokenizer: ids [B,length] and how many of each row are no padding.
function Texts:batch(list, length, pad)
  local ok, ids, used = pcall(self.inner.batch, self.inner, list, length, pad)
  if not ok then
    if ids == "interrupted" or type(list) ~= "table" then error(ids, 0) end
    refuse(self.inner, list, length, pad, ids)
  end
  if not self.warned then self:warn_of_cuts(list, length, used) end
  return ids, used
end

for _, name in ipairs { "encode", "decode", "size", "max_length", "specials" } do
  Texts[name] = function(self, ...) return self.inner[name](self.inner, ...) end
end

--- The tokenizer in a folder, for a tower that knows `vocabulary` ids.
---@param folder string
---@param vocabulary integer   the tower's vocab_size
---@param reader string        how a message calls the tower
---@param reading? string       "open_clip": CLIP's vocabulary, the text cleaned as open_clip does it
---@return syz.Texts
function texts.open(folder, vocabulary, reader, reading)
  local inner = core.tokenizer(folder, reading)
  if inner:size() > vocabulary then
    error(("%s: the tokenizer has ids up to %d, %s knows %d (vocab_size): they do not belong together"):format(folder,
      inner:size() - 1, reader, vocabulary), 0)
  end
  local _, used = inner:batch({ "" }, 8)
  return setmetatable({ inner = inner, reader = reader, frame = used[1] }, Texts)
end

--- The folder of a bundled vocabulary: "clip" (CLIP, open_clip, HPSv2.1, PickScore) or "bert" (bert-base-uncased with
--- BLIP's two added tokens: ImageReward).
---@param name string
---@return string
function texts.bundled(name)
  local here = assert(package.searchpath("syz.texts", package.path))
  local folder = here:gsub("texts%.lua$", "") .. "vocabularies/" .. name
  if name:find("[^%w_]") or not core.file.exists(folder) then
    error(('there is no bundled vocabulary "%s": clip, bert'):format(shown(name)), 2)
  end
  return folder
end

return texts
