--- The embedded flow transformer, trained from its start on the embedded images: what the optimizer's states are
--- compared on (tests/lua/optimizer_spec.lua, tests/bench/optimizer_states.lua).
local core = require "syz.core"
local optim = require "syz.optim"
local syz = require "syz"

local M = {}

local HELD_OUT = 1e6 -- from this step on, no training sees the noise

--- Images, captions and the pipeline that makes latents of them.
---@param images integer  how many
function M.open(images)
  local self = setmetatable({}, { __index = M })
  local seen = 0
  self.pipe = syz.pipeline("examples/emoji/pipeline", { size = { 64, 64 } })
  self.data = syz.data.webdataset("examples/emoji/data/emoji64-train.tar", function()
    seen = seen + 1
    return seen <= images
  end)
  self.latents, self.config = self.pipe:encode_all(self.data), self.pipe.transformer:config()
  return self
end

-- Flow matching, as examples/emoji/transformer.lua has it, on the pictures and the noise of one step.
function M:loss(step, batch)
  local generator, zero_based, texts = core.generator(5, step), {}, {}
  for i = 1, batch do
    zero_based[i] = generator:integer(0, self.data:count() - 1)
    texts[i] = self.data.meta[zero_based[i] + 1].subject
  end
  local x0 = self.latents:index_select(0, core.tensor(zero_based, { batch }, "i64"))
  local eps, sigma = generator:randn(x0:shape()), generator:randn({ batch }):sigmoid()
  local x = x0 + sigma:reshape({ batch, 1, 1 }) * (eps - x0)
  return self.pipe:velocity(x, sigma, self.pipe:condition(texts)):mse_loss(eps - x0)
end

--- Train, from the same start for every setting. Returns the mean loss on pictures with noise that no training saw.
---@param dtype "f32"|"bf16"
---@param moments "f32"|"8bit"|"host"
---@param steps integer
---@param batch integer
---@param rate number
---@return number
function M:train(dtype, moments, steps, batch, rate)
  local transformer = core.model.create(self.config):init(7)
  if dtype == "bf16" then transformer:to_bf16() end
  transformer:requires_grad(true)
  self.pipe.transformer = transformer
  local optimizer = optim.adamw { lr = rate, weight_decay = 1e-2, clip = 1, moments = moments }
  optimizer:bind(transformer:parameters())
  for step = 1, steps do
    core.scope(function() self:loss(step, batch):backward() end)
    optimizer:update(step, steps)
  end
  local sum, parts = 0, 10
  core.no_grad(function()
    for part = 1, parts do sum = sum + core.scope(function() return self:loss(HELD_OUT + part, 32):item() end) end
  end)
  return sum / parts
end

return M
