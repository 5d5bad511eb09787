-- What the recipes of the paper's experiments share: the emoji world, one evaluation for all of them, and the settings
-- of each method as recipes/paper/search.lua found them.
local syz = require "syz"

local M = {}

--- The options of every comparison, with those of the recipe.
function M.options(extra)
  local spec = {
    model = { "examples/emoji/pipeline", "pipeline folder in the diffusers layout" },
    reward = { "examples/emoji/reward", "the reward that is trained on" },
    held_out = { "examples/emoji/held_out", "a reward that is never trained on" },
    judge = { "examples/emoji/judge", "independent judge, never trained on" },
    style = { "fluent-3d", "the judge's name of the wanted style" },
    positive = { { "3D render" }, "control words to move towards" },
    negative = { { "Flat", "Sticker" }, "control words to move away from" },
    seeds = { { 1, 2, 3 }, "training seeds" }, steps = { 30, "updates of each cell" },
    batch = { 16, "prompts per update" }, prompts = { 64, "evaluation prompts" },
    precision = { "bf16", "of matrix products and convolutions", { "bf16", "f32" } },
    quick = { false, "one seed, 12 updates, 32 prompts: a look, not a result" },
    publish = { "", "folder that also receives table, figure and pictures, such as docs/results" },
  }
  for name, declared in pairs(extra or {}) do spec[name] = declared end
  local opt = syz.options(spec)
  if not opt.quick then return opt end
  local less = { seeds = { opt.seeds[1] }, steps = math.min(opt.steps, 12), prompts = math.min(opt.prompts, 32) }
  return setmetatable(less, { __index = opt })
end

--- The first items of a list.
function M.first(list, count)
  local out = {}
  for i = 1, math.min(count, #list) do out[i] = list[i] end
  return out
end

--- Models, words, prompts and the evaluation, as fields of syz.compare.
function M.world(opt)
  local pipe, reward = syz.pipeline(opt.model), syz.reward.clip(opt.reward)
  local control = { positive = opt.positive, negative = opt.negative }
  return {
    pipeline = pipe, reward = reward, control = control,
    relative = syz.reward.relative(reward, { control = control, kappa = M.kappa }),
    spec = {
      pipeline = pipe, reward = reward, prompts = syz.prompts "examples/emoji/prompts.txt",
      steps = opt.steps, batch = opt.batch, seeds = opt.seeds, precision = opt.precision, publish = opt.publish,
      optimizer = { weight_decay = 1e-4 },
      eval = {
        prompts = M.first(syz.prompts "examples/emoji/prompts-eval.txt", opt.prompts), steps = 12, guidance = 2,
        grid = 12, control = control, rewards = { held_out = syz.reward.clip(opt.held_out) },
        judge = syz.judge(opt.judge), style = opt.style,
      },
    },
  }
end

--- A comparison of these variants: common fields, and the recipe's own on top.
function M.compare(world, fields)
  local spec = {}
  for _, list in ipairs { world.spec, { columns = M.columns }, fields } do
    for key, value in pairs(list) do spec[key] = value end
  end
  return syz.compare(spec)
end

M.columns = {
  { "judge_style_probability", "style" }, { "judge_subject_accuracy", "subject" }, { "reward", "reward" },
  { "held_out", "held out" }, { "sgp", "SGP" }, { "held_out_sgp", "held-out SGP" }, { "diversity", "diversity" },
  { "saturation", "saturation" }, { "contrast", "contrast" }, { "sharpness", "sharpness" },
  { "steps", "updates", digits = 0 }, { "cpu_seconds", "CPU s", digits = 0 },
}

--- How far the look has moved, and what the trained reward gains beyond the held-out one: signs of a hacked reward.
function M.hacking(before, after)
  local drift = 0
  for _, name in ipairs { "saturation", "contrast", "sharpness" } do
    drift = drift + math.abs(after[name] - before[name]) / before[name] / 3
  end
  local function gain(name) return after[name] - before[name] end
  return { drift = drift, hacked = gain("reward") - gain("held_out") + gain("sgp") - gain("held_out_sgp") }
end
M.hacking_columns = {
  { "judge_style_probability", "style" }, { "judge_subject_accuracy", "subject" }, { "reward", "reward" },
  { "held_out", "held out" }, { "sgp", "SGP" }, { "held_out_sgp", "held-out SGP" }, { "hacked", "hacked" },
  { "drift", "drift" }, { "saturation", "saturation" }, { "contrast", "contrast" }, { "sharpness", "sharpness" },
  { "diversity", "diversity" }, { "steps", "updates", digits = 0 }, { "cpu_seconds", "CPU s", digits = 0 },
}

-- The pull of the relative reward towards the prompt (docs/methods.md).
M.kappa = 1

local grid = syz.schedule.flow { steps = 12, shift = 3 }
local direct = { schedule = grid, window = { sigma = { 0.9, 0.3 } }, dsigma = 0.1, train_guidance = 1 }

local function with(base, more)
  local out = {}
  for _, list in ipairs { base, more or {} } do
    for key, value in pairs(list) do out[key] = value end
  end
  return out
end
M.with = with

--- Settings of each method. The rates are what the search found for the plain and for the relative reward.
M.methods = {
  ["ReFL"] = { method = "refl", options = { schedule = grid }, clip = 0.1, lr = { plain = 1e-4, relative = 3e-5 } },
  ["DRaFT-LV"] = { method = "draft", options = { schedule = grid, last = 1, renoise = 2 }, clip = 0.1,
    lr = { plain = 3e-5, relative = 3e-5 } },
  ["DanceGRPO"] = { method = "grpo", batch = 4, clip = 1, lr = { plain = 3e-5, relative = 1e-4 },
    options = { form = "dance", schedule = grid, guidance = 1, group = 8 } },
  ["Direct-Align"] = { method = "direct_align", options = direct, clip = 0.1, lr = { plain = 1e-4, relative = 3e-5 } },
  ["SRPO"] = { method = "srpo", options = direct, clip = 0.1, lr = { plain = 1e-4, relative = 3e-5 } },
}
M.order = { "ReFL", "DRaFT-LV", "DanceGRPO", "Direct-Align", "SRPO" }

-- SRPO climbs a pair of texts. With one text on both sides and kappa = 1 the pair is the plain reward, climbed in the
-- denoise branch and descended in the inversion branch.
local function plain_pair(_, prompt) return prompt, prompt end

--- SRPO's own fields for one kind of reward.
function M.srpo(world, kind)
  if kind == "plain" then return { control = plain_pair, kappa = { denoise = 1, inversion = 1 } } end
  return { control = world.control, kappa = { denoise = { 0.3, 1 }, inversion = { 0, 0.5 } } }
end

--- A method with the plain or the relative reward, as a variant of syz.compare.
---@param kind "plain"|"relative"
---@param more table|nil   fields that win, those of `options` one by one
function M.variant(world, name, kind, more)
  local settings, fields = M.methods[name], with(more)
  local options = with(settings.options, name == "SRPO" and M.srpo(world, kind))
  return with({
    name = ("%s, %s"):format(name, kind), method = settings.method, clip = settings.clip, batch = settings.batch,
    lr = settings.lr[kind], reward = kind == "relative" and name ~= "SRPO" and world.relative or nil,
    colour = kind == "plain" and 2 or 1,
  }, with(fields, { options = with(options, fields.options) }))
end

return M
