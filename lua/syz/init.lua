--- The public module: what recipes and the console see as `syz`.
local core = require "syz.core"
local data = require "syz.data"
local nn = require "syz.nn"
local optim = require "syz.optim"
local pipeline = require "syz.pipeline"
local recipe = require "syz.recipe"

local syz = {
  version = core.version(),
  -- tensors
  tensor = core.tensor, zeros = core.zeros, ones = core.ones, full = core.full, arange = core.arange, ops = core.ops,
  scope = core.scope, no_grad = core.no_grad, generator = core.generator,
  memory = core.memory, threads = core.threads, clock = core.clock,
  -- files
  json = core.json, yaml = core.yaml, image = core.image, safetensors = core.safetensors, sha256 = core.sha256,
  file = { read = core.file.read, exists = core.file.exists, list = core.file.list },
  -- what the paper varies
  schedule = require "syz.schedule", discount = require "syz.discount", control = require "syz.control",
  aggregate = require "syz.aggregate",
  -- building blocks
  model = core.model, tokenizer = core.tokenizer, data = data, prompts = data.prompts, nn = nn, optim = optim,
  adamw = optim.adamw, sampler = require "syz.sampler", loss = require "syz.loss", rank = require "syz.rank",
  lora = require "syz.lora",
  -- experiments
  options = recipe.options, train = require("syz.trainer").experiment, fit = require("syz.fit").experiment,
  eval = require "syz.eval", words = require "syz.words", preferences = require "syz.preferences",
  compare = require("syz.compare").experiment,
}

local clip = require "syz.rewards.clip"
syz.reward = { clip = clip.load, normalize = clip.normalize, mix = require("syz.rewards.mix").new,
  relative = require("syz.rewards.relative").new }
for _, name in ipairs { "hps", "pickscore", "clip_score", "aesthetic", "image_reward" } do
  syz.reward[name] = require("syz.rewards." .. name).load
end
syz.reward_mix = syz.reward.mix

syz.methods = {}
for _, name in ipairs { "direct_align", "srpo", "refl", "draft", "drtune", "leapalign", "flowbp", "grpo" } do
  syz.methods[name] = require("syz.methods." .. name).new
end
syz.backprop = require "syz.methods.backprop"
syz.quadrature, syz.draws = require "syz.methods.quadrature", require "syz.methods.draws"
syz.captions = require("syz.offline").captions

syz.pipeline = setmetatable({ new = pipeline.new, load = pipeline.load }, {
  __call = function(_, folder, options) return pipeline.load(folder, options) end,
})

local judge = require "syz.judge"
syz.judge = setmetatable({ new = judge.new, load = judge.load }, {
  __call = function(_, folder) return judge.load(folder) end,
})

return syz
