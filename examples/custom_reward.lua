-- A reward of one's own in tensor operations: it likes colourful, sharp images and pays no heed to the prompt. Any
-- table with these methods is a reward; gradients reach the images because operations are differentiable.
--   syz run examples/custom_reward.lua --set sharpness=2
local syz = require "syz"
local opt = syz.options {
  model = { "examples/emoji/pipeline", "pipeline folder in the diffusers layout" },
  prompts = { "examples/emoji/prompts.txt", "prompts to align on, one per line" },
  size = { 64, "image side in pixels" }, colour = { 1, "weight of colourfulness" }, sharpness = { 1, "of sharpness" },
  steps = { 20, "optimizer steps" }, batch = { 8, "prompts per step" }, lr = { 1e-5, "AdamW learning rate" },
  rollout = { 12, "sampler steps of the rollout" }, grid = { 16, "images in the evaluation" },
  seed = { 42, "random seed" },
}

-- Mean and variance over the pixels of each image, {B}.
local function moments(x)
  local mean = x:mean({ 1, 2, 3 })
  return mean, x:square():mean({ 1, 2, 3 }) - mean:square()
end

-- Hasler and Suesstrunk's M: spread and mean of the red-green and yellow-blue opponents.
local function colourfulness(images)
  local r, g, b = images:slice(3, 0, 1), images:slice(3, 1, 2), images:slice(3, 2, 3)
  local mean_rg, var_rg = moments(r - g)
  local mean_yb, var_yb = moments(0.5 * (r + g) - b)
  return (var_rg + var_yb + 1e-6):sqrt() + 0.3 * (mean_rg:square() + mean_yb:square() + 1e-6):sqrt()
end

-- The root mean square of the Laplacian of luma.
local kernel = syz.tensor({ 0, 1, 0, 1, -4, 1, 0, 1, 0 }, { 1, 1, 3, 3 }):keep()
local luma = syz.tensor({ 0.299, 0.587, 0.114 }):keep()
local function sharpness(images)
  local edges = (images * luma):sum({ 3 }, true):conv2d(kernel, nil, 1, 0, 0, 0, 0)
  return (edges:square():mean({ 1, 2, 3 }) + 1e-6):sqrt()
end

local reward = {}
function reward.score(_, images) return opt.colour * colourfulness(images) + opt.sharpness * sharpness(images) end
-- What the evaluation asks for: something about the images, computed once, and its score under texts.
function reward:image(images) return self:score(images) end
function reward.pair(_, features) return features end

local prompts = syz.prompts(opt.prompts)
local shown = {}
for i = 1, math.min(opt.grid, #prompts) do shown[i] = prompts[i] end

return syz.train {
  method = syz.methods.direct_align {
    pipeline = syz.pipeline(opt.model, { size = { opt.size, opt.size } }), reward = reward, train_guidance = 1,
    schedule = syz.schedule.flow { steps = opt.rollout, shift = 3 }, aggregate = 2,
  },
  prompts = prompts, optimizer = syz.adamw { lr = opt.lr, clip = 1 }, steps = opt.steps, batch = opt.batch,
  seed = opt.seed, eval = { prompts = shown, grid = opt.grid, steps = opt.rollout },
}
