--- A text tower's tokenizer: the ids of texts, with a word about those that are too long or no text at all.
--
-- A text of more tokens than the tower reads is cut, as CLIP does it; the first one is said, once per tokenizer.

local core = require "syz.core"
local message = require "syz.message"
local progress = require "syz.progress"
local text = require "syz.text"

local texts = {}

---@class syz.Texts
---@field inner syz.Tokenizer
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
    if count > length - 2 then
      self.warned = true
      progress.note(('warning: a text has %d tokens and %s reads %d; what follows is left out ("%s"); later ones '
        .. "are cut without a word"):format(count, self.reader, length - 2, shown(one)), "yellow")
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
---@return syz.Texts
function texts.open(folder, vocabulary, reader)
  local inner = core.tokenizer(folder)
  if inner:size() > vocabulary then
    error(("%s: the tokenizer has ids up to %d, %s knows %d (vocab_size): they do not belong together"):format(folder,
      inner:size() - 1, reader, vocabulary), 0)
  end
  return setmetatable({ inner = inner, reader = reader }, Texts)
end

return texts
