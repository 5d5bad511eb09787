-- SRPO or GRPO on a random pipeline of a few thousand parameters, with a reward written in tensor operations: what the
-- resume test runs. A few seconds on one core.
local syz = require "syz"
local opt = syz.options {
  model = { "tests/models/data/pipeline", "pipeline folder" }, steps = { 6, "optimizer steps" },
  method = { "srpo", "srpo or grpo", { "srpo", "grpo" } }, lr = { 1e-3, "learning rate" },
  rank = { 0, "of LoRA adapters; 0 for none" }, from = { "", "adapters to start from" },
  ema = { 0, "decay of a moving average; 0 for none" },
  dtype = { "f32", "of the transformer's weights", { "f32", "bf16" } },
  moments = { "f32", "of the optimizer", { "f32", "8bit", "host" } }, save = { "", "dtype of the finished model" },
  embeddings = { "", "folder that `syz embed` wrote" },
  full = { 0, "call of the reward that asks for 2 GiB; 0 for none" },
  poison = { 0, "step from which the reward is NaN; 0 for never" },
}

-- Scores are a linear map of the mean colour that depends on the text's length.
local reward = { calls = 0 }
function reward:image(images)
  self.calls = self.calls + 1
  if self.calls == opt.full then images:mean():broadcast_to { 2 ^ 29 } end
  return images:mean({ 1, 2 })
end
function reward.pair(_, features, texts)
  local weights = {}
  for i, text in ipairs(texts) do
    for c = 1, 3 do weights[(i - 1) * 3 + c] = math.sin(#text * c) end
  end
  return (features * syz.tensor(weights, { #texts, 3 })):sum({ 1 })
end
function reward:score(images, texts) return self:pair(self:image(images), texts) end
function reward:relative(images, wanted, unwanted, kappa)
  local features = self:image(images)
  local value = (1 + kappa) * self:pair(features, wanted) - self:pair(features, unwanted)
  if opt.poison > 0 then value = value * (0 / 0) end
  return value
end

local pipe = syz.pipeline(opt.model, {
  size = { 16, 16 }, dtype = opt.dtype, embeddings = opt.embeddings ~= "" and opt.embeddings or nil,
})
if opt.from ~= "" then pipe:lora { load = opt.from } end
if opt.rank > 0 then pipe:lora { rank = opt.rank } end
local control = { positive = { "Real" }, negative = { "Flat", "Painted" } }
local methods = {}

function methods.srpo()
  return syz.methods.srpo {
    pipeline = pipe, reward = reward, control = control, schedule = syz.schedule.flow { steps = 3, shift = 3 },
    rollout_steps = 3,
  }
end

-- With everything that a resumed run could get wrong: a reference, a moving window, several updates of one rollout.
function methods.grpo()
  return syz.methods.grpo {
    pipeline = pipe, reward = reward, form = "flow", rollout_steps = 4, shift = 3, group = 4, kl = 0.5, clip = 0.1,
    window = { size = 2, every = 2 }, updates = 2, relative = { control = control, kappa = 0.5 },
  }
end

return syz.train {
  method = methods[opt.method](),
  prompts = { "a red cat", "two dogs", "a green hat" }, batch = 2,
  optimizer = syz.adamw { lr = opt.lr, clip = 1, moments = opt.moments }, steps = opt.steps, checkpoint_every = 2,
  ema = opt.ema > 0 and { decay = opt.ema, every = 2 } or nil, save = opt.save ~= "" and opt.save or nil,
  eval = { every = 3, grid = 2, steps = 2 },
}
