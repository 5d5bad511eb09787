--- Evaluation: images of fixed prompts and seeds, and what they are worth to the optimised reward, to rewards that are
--- never optimised, and to an independent judge; and how their colours, contrast and sharpness drift.
--
--   reward                    the optimised reward under the prompt itself
--   sgp                       the relative reward s(image, positive text) - s(image, negative text) (paper eq. 8)
--   NAME, NAME_sgp            the same two of every entry of `rewards`
--   judge_style_probability   judge_subject_accuracy: what the independent judge recognises
--   diversity                 mean distance between the judge's unit features of all pairs of images
--   diversity_per_prompt      the same among images of one prompt (with per_prompt above 1)
--   saturation contrast sharpness   where reward hacking usually shows first
local core = require "syz.core"
local control = require "syz.control"
local fields = require "syz.fields"
local nearest = require "syz.nearest"
local precision = require "syz.precision"

local M = {}

---@class syz.Evaluation
local Evaluation = {}
Evaluation.__index = Evaluation

--- What an evaluation takes. syz.train's `eval` is this table; it fills in pipeline, reward, control and prompts, and
--- reads `every`, the steps between evaluations.
M.fields = {
  pipeline = "table", prompts = "table", reward = "table", rewards = "table", judge = "table", style = "string",
  subjects = "table", seed = "number", steps = "number", guidance = "number", grid = "number", per_prompt = "number",
  control = "table or function", every = "number",
}

local CHUNK = 32
local DRIFT = { "saturation", "contrast", "sharpness" }

--- Per image [N,H,W,3] in [0, 1]: saturation (max - min over channels, relative to max), contrast (standard deviation
--- of luma), sharpness (standard deviation of luma's Laplacian).
---@param images syz.Tensor
---@return table<string, number[]>  one number per image
function M.drift(images)
  return core.no_grad(core.scope, function()
    local r, g, b = images:slice(3, 0, 1), images:slice(3, 1, 2), images:slice(3, 2, 3)
    local high, low = r:maximum(g):maximum(b), r:minimum(g):minimum(b)
    local luma = 0.299 * r + 0.587 * g + 0.114 * b
    local function inner(rows, columns) -- luma without its border, moved by so many pixels
      return luma:slice(1, 1 + rows, luma:size(1) - 1 + rows):slice(2, 1 + columns, luma:size(2) - 1 + columns)
    end
    local edges = 4 * inner(0, 0) - inner(-1, 0) - inner(1, 0) - inner(0, -1) - inner(0, 1)
    local function deviation(x)
      local centred = x - x:mean({ 1, 2, 3 }, true)
      return (centred * centred):mean({ 1, 2, 3 }):sqrt():totable()
    end
    return {
      saturation = ((high - low) / (high + 1e-6)):mean({ 1, 2, 3 }):totable(),
      contrast = deviation(luma), sharpness = deviation(edges),
    }
  end)
end

-- A reward that can score image features under any text, so that one image is read once for all its texts.
local function has_pairs(reward)
  return reward.image ~= nil and reward.pair ~= nil
end

local function check_fields(options, known, level)
  for key, value in pairs(options) do
    local kind = known[key]
    if not kind then
      error(("eval has no field %q%s"):format(tostring(key), nearest.hint(tostring(key), fields.names(known))), level)
    end
    if not kind:find(type(value), 1, true) then
      error(("eval.%s must be a %s, not a %s"):format(key, kind, type(value)), level)
    end
  end
  if options.judge and not options.style then
    error("eval.judge needs eval.style, the judge's name of the wanted style", level)
  end
  if options.judge and options.judge.style_index and not options.judge.style_index[options.style] then
    error(("eval.style: the judge knows no style %q%s"):format(options.style,
      nearest.hint(options.style, options.judge.styles)), level)
  end
  for _, name in ipairs { "per_prompt", "grid", "steps" } do
    if options[name] and options[name] < 1 then error(("eval.%s must be at least 1"):format(name), level) end
  end
end

--- Declare an evaluation.
---@param options { pipeline: syz.Pipeline, prompts: string[], reward: table|nil, rewards: table<string, table>|nil,
---  judge: syz.Judge|nil, style: string|nil, subjects: table<string, string>|nil, seed: integer|nil,
---  steps: integer|nil, guidance: number|nil, grid: integer|nil, per_prompt: integer|nil,
---  control: table|nil|fun(step: integer, prompt: string): string, string }
---  subjects: the judge's name of a prompt's subject, where it is not the prompt itself
---@param level integer|nil  whose line an error names, as in error()
---@return syz.Evaluation
function M.new(options, level)
  level = (level or 1) + 1
  check_fields(options, M.fields, level)
  local self = setmetatable({ seed = 1000, grid = 16, per_prompt = 1, rewards = {}, subjects = {} }, Evaluation)
  for key, value in pairs(options) do self[key] = value end
  if type(self.prompts) ~= "table" or #self.prompts == 0 then
    error("eval.prompts must be a non-empty list of strings", level)
  end
  if self.control then self.control = control.resolve(self.control, self.reward) end
  self.texts = {} -- one per image
  for _, prompt in ipairs(self.prompts) do
    for _ = 1, self.per_prompt do self.texts[#self.texts + 1] = prompt end
  end
  self.rewards = {} -- a copy: the recipe's own table stays as it is
  for name, reward in pairs(options.rewards or {}) do
    if type(reward) ~= "table" or type(reward.score) ~= "function" then
      error(("eval.rewards.%s must be a reward, with a method score(images, texts)"):format(tostring(name)), level)
    end
    for _, taken in ipairs(self:names()) do
      if name == taken then error(("eval.rewards: %q is the name of another metric"):format(name), level) end
    end
  end
  for name, reward in pairs(options.rewards or {}) do self.rewards[name] = reward end
  return self
end

--- The metrics this evaluation measures, sorted. Which of them are held out (no method optimises them) comes second.
---@return string[] names, string[] held_out
function Evaluation:names()
  local names, held_out = {}, fields.names(self.rewards)
  local function add(...)
    for _, name in ipairs { ... } do names[#names + 1] = name end
  end
  for _, name in ipairs(DRIFT) do add(name) end
  if self.reward then add "reward" end
  if self.reward and self.control and has_pairs(self.reward) then add "sgp" end
  for name, reward in pairs(self.rewards) do
    add(name)
    if self.control and has_pairs(reward) then add(name .. "_sgp") end
  end
  if self.judge then
    add("judge_style_probability", "judge_subject_accuracy", "diversity")
    if self.per_prompt > 1 then add "diversity_per_prompt" end
    held_out[#held_out + 1] = "judge_style_probability"
  end
  table.sort(names)
  table.sort(held_out)
  return names, held_out
end

--- Sample and measure.
---@param on_step nil|fun(done: integer, total: integer)
---@return table<string, number> values, syz.Tensor grid, table<string, number[]> each
---  as of measure(); the grid is the first `grid` images
function Evaluation:run(on_step)
  return precision.exact(core.scope, function()
    local images = self.pipeline:sample {
      prompts = self.texts, steps = self.steps, guidance = self.guidance, seed = self.seed, on_step = on_step,
    }
    local values, each = self:measure(images)
    return values, images:slice(0, 0, math.min(self.grid, #self.texts)), each
  end)
end

local function append(each, name, list)
  local all = each[name] or {}
  each[name] = all
  for _, value in ipairs(list) do all[#all + 1] = value end
end

-- One reward's opinion of a chunk of images; `first` is the number of the chunk's first image.
local function score(self, each, name, sgp_name, reward, images, texts, first)
  if not has_pairs(reward) then
    append(each, name, reward:score(images, texts):totable())
    return
  end
  local features = reward:image(images)
  append(each, name, reward:pair(features, texts):totable())
  if not self.control then return end
  local positive, negative = {}, {}
  -- the image's number in place of the step: word lists rotate over the images, the same way in every evaluation
  for i, text in ipairs(texts) do positive[i], negative[i] = self.control(first + i - 1, text) end
  append(each, sgp_name, (reward:pair(features, positive) - reward:pair(features, negative)):totable())
end

--- Measure given images, one for each of `texts`.
---@param images syz.Tensor  [N,H,W,3] in [0, 1]
---@return table<string, number> values
---@return table<string, number[]> each  what the means are made of, one number per image
function Evaluation:measure(images)
  local each, values = {}, {}
  for first = 1, #self.texts, CHUNK do
    core.no_grad(core.scope, function()
      local last = math.min(first + CHUNK - 1, #self.texts)
      local chunk, texts = images:slice(0, first - 1, last), { unpack(self.texts, first, last) }
      if self.reward then score(self, each, "reward", "sgp", self.reward, chunk, texts, first) end
      for name, reward in pairs(self.rewards) do
        score(self, each, name, name .. "_sgp", reward, chunk, texts, first)
      end
      for name, list in pairs(M.drift(chunk)) do append(each, name, list) end
    end)
  end
  if self.judge then
    local subjects = {}
    for i, text in ipairs(self.texts) do subjects[i] = self.subjects[text] or text end
    local verdict = self.judge:assess(images, subjects, self.style)
    each.judge_style_probability, each.judge_subject_accuracy = verdict.each.style, verdict.each.subject
    each.diversity, values.diversity_per_prompt = verdict.each.diversity, verdict.diversity_per_subject
  end
  for name, list in pairs(each) do
    if #list > 0 then values[name] = M.mean(list) end
  end
  return values, each
end

---@param list number[]
---@return number
function M.mean(list)
  local sum = 0
  for _, value in ipairs(list) do sum = sum + value end
  return sum / #list
end

--- Standard error of the mean difference of two evaluations on the same prompts and seeds: how much of a change another
--- draw of prompts could have made. nil when it cannot be told.
---@param one number[]|nil
---@param other number[]|nil
---@return number|nil
function M.standard_error(one, other)
  if not one or not other or #one ~= #other or #one < 2 then return nil end
  local differences, squares = {}, 0
  for i = 1, #one do differences[i] = other[i] - one[i] end
  local mean = M.mean(differences)
  for _, d in ipairs(differences) do squares = squares + (d - mean) ^ 2 end
  return math.sqrt(squares / (#one - 1) / #one)
end

return M
