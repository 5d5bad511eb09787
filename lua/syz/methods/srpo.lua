--- SRPO: Direct-Align driven by a semantic-relative reward (paper eq. 7 - 13), online or offline.
--
-- form = "inversion"   two branches from the same x0, noise and draw: denoising climbs the relative reward, inversion
--                      descends it (eq. 12, 13); the released code's form
--        "difference"  denoising only, reward s(C1) - s(C2) (eq. 8, 9)
--        "cfg"         denoising only, reward under (1 - k) C2 + k C1 (eq. 10)
-- compat = "srpo-81e5898" reproduces the released code: bf16 timesteps, relu(0.7 - R)/2, texts swapped in the inversion
-- branch, one noise shared by the whole batch. Without it the paper's forms are used (docs/methods.md has the table).
local backprop = require "syz.methods.backprop"
local core = require "syz.core"
local control = require "syz.control"
local direct = require "syz.methods.direct_align"
local discount = require "syz.discount"
local fields = require "syz.fields"

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

--- The embedded guidance in bf16, times 1000 in bf16 (3.5 becomes 3504); our transformer multiplies by 1000 itself.
local function released_guidance(guidance)
  return (guidance:to("bf16") * core.full(guidance:shape(), 1000):to("bf16")):to("f32") / 1000
end

local FIELDS = { form = "string", kappa = "table", compat = "string" }

---@param options { pipeline: syz.Pipeline, reward: table, control: table|string|function|nil, form: string|nil,
---  compat: string|nil, kappa: { denoise: any, inversion: any }|nil, threshold: number|nil, loss_scale: number|nil,
---  offline: string|function|nil, window: string|table|function|nil, lambda: any, aggregate:
---  integer|table|function|nil, spacing: integer|nil, schedule: syz.Schedule|nil, rollout_steps:
---  integer|function|nil, rollout_guidance: number|function|nil, train_guidance: number|function|nil, jump:
---  integer|function|nil, ratio: number|function|nil, dsigma: number|function|nil, noise: string|function|nil,
---  timesteps: integer|nil, views_at_once: integer|nil }
function M.new(options)
  local self = setmetatable(direct.settings(options, "srpo", FIELDS), Srpo)
  self.form = fields.choice("srpo", "form", options.form or "inversion", { "inversion", "difference", "cfg" })
  if options.compat and options.compat ~= COMPAT then
    error(("srpo: compat must be %q, not %q"):format(COMPAT, tostring(options.compat)), 2)
  end
  local needed = self.form == "cfg" and "mixed" or "relative"
  if type(self.reward[needed]) ~= "function" then
    error(("srpo: form %q needs a reward with the method %s(images, wanted, unwanted, kappa)"):format(self.form,
      needed), 2)
  end
  if needed == "mixed" and self.reward.unmixable then
    error('srpo: form "cfg": ' .. self.reward.unmixable, 2)
  end
  self.control = self.control or control.resolve(control.released, self.reward)
  local kappa = options.kappa or {}
  fields.check("srpo: kappa", kappa, { denoise = "any", inversion = "any" })
  self.kappa = {
    -- in the CFG form kappa is k, a guidance scale: 2 s_pos - s_neg
    denoise = discount.resolve(kappa.denoise or self.form == "cfg" and 2 or { 0.1, 0.25 }, "kappa.denoise"),
    inversion = discount.resolve(kappa.inversion or { 0.3, 0.01 }, "kappa.inversion"),
  }
  if options.compat then
    if not options.noise then self.noise = "shared" end
    self.threshold = options.threshold or 0.7
    self.loss_scale = options.loss_scale or 0.5
    self.pipeline.quantize_timestep, self.pipeline.quantize_guidance = released_timestep, released_guidance
  end
  return self
end

--- The reward of one branch, always to be maximised.
function Srpo:branch_reward(direction, images, positive, negative, kappa)
  if self.form == "cfg" then return self.reward:mixed(images, positive, negative, kappa) end
  if direction == "denoise" then return self.reward:relative(images, positive, negative, kappa) end
  if self.compat then return self.reward:relative(images, negative, positive, kappa) end
  return -self.reward:relative(images, positive, negative, kappa)
end

--- The views of one branch.
function Srpo:branch(direction, batch, x0, eps, draws, positive, negative)
  local views = direct.views(self, batch, x0, eps, draws, direction, function(images, positions, row)
    local kappas = {}
    for i, t in ipairs(positions) do kappas[i] = self.kappa[direction](t) end
    row.kappa = kappas[1]
    for i, sample in ipairs(row.samples or {}) do sample.kappa = kappas[i] end
    return self:branch_reward(direction, images, positive, negative, core.tensor(kappas))
  end)
  for _, view in ipairs(views) do
    view.name, view.row.positive, view.row.negative = direction, positive[1], negative[1]
  end
  return views
end

--- One update's gradients: both branches, one after the other or, with views_at_once = 2, as one batch.
---@param batch { step: integer, prompts: string[], cond: table }
---@return table stats, table[] ledger
function Srpo:step(batch, generator)
  backprop.at_step(self, batch.step)
  local x0, eps = direct.start(self, batch, generator)
  local draws = direct.draw(self, #batch.prompts, generator)
  local positive, negative = {}, {}
  for i, prompt in ipairs(batch.prompts) do positive[i], negative[i] = self.control(batch.step, prompt) end
  local views = {}
  for _, direction in ipairs(FORMS[self.form]) do
    for _, view in ipairs(self:branch(direction, batch, x0, eps, draws, positive, negative)) do
      views[#views + 1] = view
    end
  end
  return direct.update(self, batch, x0, eps, views)
end

return M
