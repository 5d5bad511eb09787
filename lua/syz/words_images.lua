--- Images for the lab of control words, drawn once and kept: each prompt plainly and with each word in front.
local core = require "syz.core"
local control = require "syz.control"
local data = require "syz.data"
local files = require "syz.files"

local M = {}

--- What stands in the metadata field `word` of images drawn without one.
M.plain = "plain"

local function plan(options)
  local list, seen = { "" }, { [""] = true }
  for _, side in ipairs { options.positive, options.negative } do
    for _, word in ipairs(side) do
      if not seen[word] then list[#list + 1], seen[word] = word, true end
    end
  end
  return { words = core.array(list), prompts = core.array(options.prompts), model = options.model,
           steps = options.steps or 12, guidance = options.guidance or 2, seed = options.seed or 0 }
end

local function draw(folder, settings, on_step)
  local pipe = require("syz.pipeline").load(settings.model)
  local lines, done = {}, 0
  local total = #settings.words * #settings.prompts
  core.file.mkdir(folder)
  for w, word in ipairs(settings.words) do
    core.scope(function()
      local texts = {}
      for i, prompt in ipairs(settings.prompts) do texts[i] = word == "" and prompt or control.join(word, prompt) end
      -- the same seeds for every word: what differs between two images of a prompt is the word
      local batch = pipe:sample { prompts = texts, steps = settings.steps, guidance = settings.guidance,
                                  seed = settings.seed }
      for i, prompt in ipairs(settings.prompts) do
        local name = ("%03d-%04d.png"):format(w - 1, i)
        local one = batch:slice(0, i - 1, i)
        core.image.write(folder .. "/" .. name, one:reshape({ one:size(1), one:size(2), 3 }))
        lines[#lines + 1] = core.json.encode { file_name = name, prompt = prompt,
                                               word = word == "" and M.plain or word } .. "\n"
      end
    end)
    done = done + #settings.prompts
    if on_step then on_step(done, total) end
  end
  core.file.write(folder .. "/metadata.jsonl", table.concat(lines))
  files.write_json(folder .. "/drawn.json", settings)
end

--- The images of a pipeline for these words and prompts; drawn unless the folder holds them already.
---@param folder string
---@param options { model: string, prompts: string[], positive: string[], negative: string[], steps: integer|nil,
---  guidance: number|nil, seed: integer|nil, on_step: nil|fun(done: integer, total: integer) }
---@return syz.Images
---@return boolean drawn   false when they were there
function M.cached(folder, options)
  local settings = plan(options)
  local there = core.file.exists(folder .. "/drawn.json") and files.read_json(folder .. "/drawn.json")
  local fresh = not there or core.json.encode(there) ~= core.json.encode(core.json.decode(core.json.encode(settings)))
  if fresh then
    files.remove_folder(folder)
    draw(folder, settings, options.on_step)
  end
  return data.folder(folder), fresh
end

return M
