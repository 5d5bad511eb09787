-- A method of your own, in one file: noise the sample to a random level, take the one-step guess of the clean image
-- there, and let a reward pull it while the model's first weights hold it. Run it:
--
--   syz run examples/custom_method.lua
--   syz run examples/custom_method.lua --set hold=0 --set level=0.8
--
-- A method has a name, a pipeline, a reward, the modules it trains, and step(batch, generator) -> numbers, ledger rows.
local syz = require "syz"
local opt = syz.options {
  model = { "examples/emoji/pipeline", "pipeline folder in the diffusers layout" },
  reward = { "examples/emoji/reward", "a CLIP-like reward model" },
  prompts = { "examples/emoji/prompts.txt", "prompts, one per line" }, size = { 64, "pixels of a side" },
  level = { 0.5, "highest noise level that is drawn" }, hold = { 0.1, "weight of staying where the model was" },
  steps = { 20, "optimizer steps" }, batch = { 8, "prompts per step" }, lr = { 1e-5, "AdamW learning rate" },
  rollout = { 12, "sampler steps of the rollout" }, seed = { 42, "random seed" },
}

local function renoise(o)
  local pipe, reward = o.pipeline, o.reward
  local method = { name = "renoise", pipeline = pipe, reward = reward, modules = { transformer = pipe.transformer } }
  local first -- the velocity of the model as it was, read from a second copy
  if o.hold > 0 then first = syz.pipeline(opt.model, { size = { opt.size, opt.size } }) end

  function method.step(_, batch, generator)
    local grid, noise = pipe.schedule, pipe:noise(generator, #batch.prompts)
    local x0 = syz.sampler.euler(pipe, { noise = noise, cond = batch.cond, schedule = grid, steps = opt.rollout })
    local level = opt.level * (0.1 + 0.9 * generator:number())
    local x = grid:inject(x0, pipe:noise(generator, #batch.prompts), level)
    local v = pipe:velocity(x, level, batch.cond, 1)
    local guess = (grid:split(x, v, level))
    local score = reward:score(pipe:decode(guess), batch.prompts):mean()
    local loss = -score
    if first then
      local kept = syz.no_grad(function() return first:velocity(x, level, batch.cond, 1) end)
      loss = loss + o.hold * v:mse_loss(kept)
    end
    loss:backward()
    local stats = { loss = loss:item(), reward = score:item() }
    return stats, { { branch = "renoise", from = level, to = 0, reward = stats.reward } }
  end
  return method
end

local pipe = syz.pipeline(opt.model, { size = { opt.size, opt.size }, steps = opt.rollout })
return syz.train {
  method = renoise { pipeline = pipe, reward = syz.reward.clip(opt.reward), hold = opt.hold },
  prompts = syz.prompts(opt.prompts), optimizer = syz.adamw { lr = opt.lr, clip = 1 },
  steps = opt.steps, batch = opt.batch, seed = opt.seed, eval = { every = 10, grid = 8, steps = opt.rollout },
}
