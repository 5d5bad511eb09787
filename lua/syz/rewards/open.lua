--- Rewards by one string, as the command line takes them: KIND:PATH, or a folder, which is then CLIP-like.
--
--   hps:HPS_v2.1_compressed.pt   pickscore:PickScore_v1   clip_score:clip-vit-large-patch14   aesthetic:HEAD,TOWER
--   image_reward:ImageReward.pt
-- Scores are those that were published, also where training takes another scale or cuts images that are not square.
local core = require "syz.core"
local fields = require "syz.fields"

local M = {}

--- The kinds, each with what makes it of its path. Another kind is one line here.
---@type table<string, fun(path: string): table>
M.kinds = {
  clip = function(path) return require("syz.rewards.clip").load(path) end,
  hps = function(path) return require("syz.rewards.hps").load(path, { preprocess = "pad" }) end,
  pickscore = function(path)
    return require("syz.rewards.pickscore").load(path, { scale = "logit", preprocess = "processor" })
  end,
  clip_score = function(path) return require("syz.rewards.clip_score").load(path, { preprocess = "processor" }) end,
  image_reward = function(path) return require("syz.rewards.image_reward").load(path) end,
  aesthetic = function(path)
    local head, tower = path:match("^([^,]+),([^,]+)$")
    if not head then error(("aesthetic:%s: two paths are needed, aesthetic:HEAD,TOWER"):format(path), 0) end
    return require("syz.rewards.aesthetic").load(head, tower)
  end,
}

--- Open a reward.
---@param text string   "hps:HPS_v2.1_compressed.pt", or a CLIPModel folder
---@return table
function M.open(text)
  local kind, path = text:match("^([%a_]+):(.+)$")
  if M.kinds[kind or ""] then return M.kinds[kind](path) end
  local found = core.file.exists(text)
  if found == "file" then
    error(("%s: a file; say what it is, such as hps:%s (kinds: %s)"):format(text, text,
      table.concat(fields.names(M.kinds), ", ")), 0)
  end
  if kind and not found then fields.choice("reward", "kind", kind, fields.names(M.kinds), 0) end
  return M.kinds.clip(text)
end

return M
