--- Evaluation: fixed prompts and seeds, the optimised reward, the relative reward, and what the reward cannot see
--- (the independent judge, colour and contrast drift).
local core = require "syz.core"

local M = {}

---@class syz.Evaluation
local Evaluation = {}
Evaluation.__index = Evaluation

--- Mean saturation (max - min over channels, relative to max) and contrast (standard deviation of luma), both of the
--- image as people see it; drift in either is how reward hacking usually shows first.
function M.colour(images)
  return core.no_grad(core.scope, function()
    local r, g, b = images:slice(3, 0, 1), images:slice(3, 1, 2), images:slice(3, 2, 3)
    local high, low = r:maximum(g):maximum(b), r:minimum(g):minimum(b)
    local saturation = ((high - low) / (high + 1e-6)):mean():item()
    local luma = 0.299 * r + 0.587 * g + 0.114 * b
    local centred = luma - luma:mean({ 1, 2, 3 }, true)
    return saturation, (centred * centred):mean({ 1, 2, 3 }):sqrt():mean():item()
  end)
end

--- Declare an evaluation.
---@param options { pipeline: syz.Pipeline, prompts: string[], reward: table|nil, judge: syz.Judge|nil,
---  style: string|nil, rewards: table<string, table>|nil, seed: integer|nil, steps: integer|nil,
---  guidance: number|nil, grid: integer|nil, control: fun(step: integer, prompt: string): string, string }
function M.new(options)
  return setmetatable(options, Evaluation)
end

--- Sample and measure. Returns a table of numbers and the first `grid` images.
---@param on_step nil|fun(done: integer, total: integer)
function Evaluation:run(on_step)
  return core.scope(function()
    local images = self.pipeline:sample {
      prompts = self.prompts, steps = self.steps, guidance = self.guidance, seed = self.seed or 1000, on_step = on_step,
    }
    local values = self:measure(images)
    return values, images:slice(0, 0, math.min(self.grid or 16, #self.prompts))
  end)
end

--- Measure given images, one per prompt.
function Evaluation:measure(images)
  local values = {}
  core.no_grad(core.scope, function()
    if self.reward then
      local features = self.reward:image(images)
      local positive, negative = {}, {}
      for i, prompt in ipairs(self.prompts) do positive[i], negative[i] = self.control(i, prompt) end
      values.reward = self.reward:pair(features, self.prompts):mean():item()
      values.sgp = (self.reward:pair(features, positive) - self.reward:pair(features, negative)):mean():item()
    end
    for name, reward in pairs(self.rewards or {}) do
      values[name] = reward:score(images, self.prompts):mean():item()
    end
    if self.judge then
      local verdict = self.judge:assess(images, self.prompts, self.style)
      values.judge_style_probability = verdict.style_probability
      values.judge_subject_accuracy = verdict.subject_accuracy
      values.diversity = verdict.diversity
    end
  end)
  values.saturation, values.contrast = M.colour(images)
  return values
end

return M
