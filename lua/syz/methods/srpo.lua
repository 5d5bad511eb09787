--- SRPO: Direct-Align driven by a semantic-relative reward (paper eq. 7 - 13), online or offline.
--
-- form = "inversion"   two branches from the same x0, noise and draw: denoising climbs the relative reward, inversion
--                      descends it (eq. 12, 13); the released code's form
--        "difference"  denoising only, reward s(C1) - s(C2) (eq. 8, 9)
--        "cfg"         denoising only, reward under (1 - k) C2 + k C1 (eq. 10)
-- compat = "srpo-81e5898" reproduces the released code: bf16 timesteps, relu(0.7 - R)/2, texts swapped in the inversion
-- branch, one noise shared by the whole batch. Without it the paper's forms are used (docs/methods.md has the table).
local core = require "syz.core"
local control = require "syz.control"
local direct = require "syz.methods.direct_align"
local discount = require "syz.discount"

local M = {}

local Srpo = {}
Srpo.__index = Srpo

local FORMS = { inversion = { "denoise", "inversion" }, difference = { "denoise" }, cfg = { "denoise" } }
local COMPAT = "srpo-81e5898"

--- int(sigma * 1000) / 1000 in bf16, then times 1000: what the released code hands to the transformer. Our transformer
--- multiplies by 1000 itself, so the level comes back divided.
local function released_timestep(level)
  local values = level:totable()
  for i, sigma in ipairs(values) do values[i] = math.floor(sigma * 1000) / 1000 end
  local rounded = core.tensor(values):to("bf16")
  return (rounded * core.full({ #values }, 1000):to("bf16")):to("f32") / 1000
end

---@param options { pipeline: syz.Pipeline, reward: table, control: table|function, form: string|nil,
---  compat: string|nil, kappa: { denoise: any, inversion: any }|nil, threshold: number|nil, offline: function|nil,
---  window: table|nil, lambda: any, schedule: syz.Schedule|nil, rollout_steps: integer|nil,
---  rollout_guidance: number|nil, train_guidance: number|nil, jump: integer|nil, ratio: number|nil,
---  noise: string|nil, timesteps: integer|nil }
function M.new(options)
  local self = setmetatable(direct.settings(options, "srpo"), Srpo)
  self.name = "srpo"
  self.form = options.form or "inversion"
  if not FORMS[self.form] then
    error(('srpo: form must be "inversion", "difference" or "cfg", not %q'):format(tostring(self.form)), 2)
  end
  if options.compat and options.compat ~= COMPAT then
    error(("srpo: compat must be %q, not %q"):format(COMPAT, tostring(options.compat)), 2)
  end
  self.control = control.resolve(options.control or control.released, self.reward)
  local kappa = options.kappa or {}
  self.kappa = {
    denoise = discount.resolve(kappa.denoise or { 0.1, 0.25 }, "kappa.denoise"),
    inversion = discount.resolve(kappa.inversion or { 0.3, 0.01 }, "kappa.inversion"),
  }
  self.lambda = discount.resolve(options.lambda or 1, "lambda")
  if options.compat then
    self.noise = options.noise or "shared"
    self.threshold = options.threshold or 0.7
    self.pipeline.quantize_timestep = released_timestep
  end
  return self
end

local function evaluated(f, positions)
  local values = {}
  for i, t in ipairs(positions) do values[i] = f(t) end
  return values, core.tensor(values)
end

--- The reward of one branch, always to be maximised.
function Srpo:branch_reward(direction, images, positive, negative, kappa)
  if self.form == "cfg" then return self.reward:mixed(images, positive, negative, kappa) end
  if direction == "denoise" then return self.reward:relative(images, positive, negative, kappa) end
  if self.compat then return self.reward:relative(images, negative, positive, kappa) end
  return -self.reward:relative(images, positive, negative, kappa)
end

function Srpo:branch_loss(reward, weight)
  if self.compat then return ((self.threshold - reward):relu() * weight):mean() * 0.5 end
  if self.threshold then return ((self.threshold - reward):relu() * weight):mean() end
  return -(reward * weight):mean()
end

--- One update's gradients: both branches, one after the other.
---@param batch { step: integer, prompts: string[], cond: table }
---@return table stats, table[] ledger
function Srpo:step(batch, generator)
  local x0, eps = direct.start(self, batch, generator)
  local draws = direct.draw(self, #batch.prompts, generator)
  local positive, negative = {}, {}
  for i, prompt in ipairs(batch.prompts) do positive[i], negative[i] = self.control(batch.step, prompt) end
  local stats, ledger = { loss = 0, reward = 0 }, {}
  for _, direction in ipairs(FORMS[self.form]) do
    core.scope(function()
      local from, to, position = direct.indices(self, draws, direction)
      local xhat = direct.recover(self.pipeline, x0, eps, direct.level(self, from), direct.level(self, to), batch.cond,
        self.train_guidance)
      local kappas, kappa = evaluated(self.kappa[direction], position)
      local _, weight = evaluated(self.lambda, position)
      local reward = self:branch_reward(direction, self.pipeline:decode(xhat), positive, negative, kappa)
      local loss = self:branch_loss(reward, weight)
      loss:backward()
      local mean = reward:mean():item()
      stats.loss, stats["reward_" .. direction] = stats.loss + loss:item(), mean
      stats.reward = direction == "denoise" and mean or stats.reward
      ledger[#ledger + 1] = { branch = direction, m = draws[1], k = self.k, from = self.levels[from[1]],
        to = self.levels[to[1]], kappa = kappas[1], positive = positive[1], negative = negative[1], reward = mean }
    end)
  end
  return stats, ledger
end

return M
