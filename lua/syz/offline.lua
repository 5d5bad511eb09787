--- Offline training: real pictures in place of the rollout, from a folder or a WebDataset.
local core = require "syz.core"
local data = require "syz.data"

local M = {}

local CAPTIONS = { "caption", "prompt", "text" }

--- The caption of an image, from its metadata.
---@param meta table
---@return string|nil
function M.caption(meta)
  for _, name in ipairs(CAPTIONS) do
    if type(meta[name]) == "string" then return meta[name] end
  end
end

local function load(path)
  if path:match("%.tar$") then
    if core.file.exists(path) ~= "file" then
      error(("offline: there is no WebDataset %q; name an existing .tar or a folder of images"):format(path), 0)
    end
    return data.webdataset(path)
  end
  if core.file.exists(path) ~= "folder" then
    error(("offline: there is no folder %q; name an existing folder of images or a .tar"):format(path), 0)
  end
  return data.folder(path)
end

--- The captions of a set, to train on as prompts.
---@param path string
---@return string[]
function M.captions(path)
  local list = {}
  for i, meta in ipairs(load(path).meta) do
    list[i] = M.caption(meta) or error(("offline: image %s of %s has no caption, prompt or text in its metadata")
      :format(tostring(meta.key), path), 0)
  end
  return list
end

local function sized(images, pipeline)
  local height, width = pipeline.height, pipeline.width
  if images:size(1) == height and images:size(2) == width then return images end
  return images:resize(height, width, 1, true):clamp(0, 1)
end

--- Pictures for prompts: a picture whose caption is the prompt, or any where the set has no captions. A function
--- (prompts, generator) -> images stays what it is.
---@param source string|function
---@param pipeline syz.Pipeline
---@return fun(prompts: string[], generator: syz.Generator): syz.Tensor
function M.resolve(source, pipeline)
  if type(source) == "function" then return source end
  local images = load(source)
  local all, by_caption, captioned = {}, {}, false
  for i, meta in ipairs(images.meta) do
    all[i] = i
    local caption = M.caption(meta)
    if caption then
      captioned = true
      by_caption[caption] = by_caption[caption] or {}
      table.insert(by_caption[caption], i)
    end
  end
  return function(prompts, generator)
    local chosen = {}
    for i, prompt in ipairs(prompts) do
      local among = captioned and by_caption[prompt] or not captioned and all
      if not among then
        error(("offline: no image of %s has the caption %q; train on its own: prompts = syz.captions %q"):format(source,
          prompt, source), 0)
      end
      chosen[i] = among[generator:integer(1, #among)]
    end
    return core.no_grad(function() return sized(images:batch(chosen), pipeline) end)
  end
end

return M
