--- What the method specs share: the tiny random pipeline with a linear reward, and a world so small that every gradient
--- can be written down by hand.
local core = require "syz.core"
local pipeline = require "syz.pipeline"
local schedule = require "syz.schedule"

local support = {}

support.prompts = { "a red cat", "two dogs" }

--- A reward whose scores are a fixed linear map of the mean colour per text.
function support.linear_reward(bias)
  local function score(images, texts)
    local weights = {}
    for i, text in ipairs(texts) do
      local hash = #text * 0.37 + text:byte(1) * 0.11
      for c = 1, 3 do weights[(i - 1) * 3 + c] = math.sin(hash * c) end
    end
    return (images:mean({ 1, 2 }) * core.tensor(weights, { #texts, 3 })):sum({ 1 }) + (bias or 0)
  end
  return {
    score = function(_, images, texts) return score(images, texts) end,
    relative = function(_, images, wanted, unwanted, kappa)
      return (1 + kappa) * score(images, wanted) - score(images, unwanted)
    end,
    mixed = function(_, images, wanted, unwanted, k)
      return k * score(images, wanted) + (1 - k) * score(images, unwanted)
    end,
  }
end

function support.pipeline(steps)
  local pipe = pipeline.load("tests/models/data/pipeline", { steps = steps or 5, shift = 3, size = { 16, 16 } })
  pipe.transformer:requires_grad(true)
  return pipe
end

--- One step of a method on the tiny pipeline, in a scope of its own.
function support.step(method, number, seed)
  return core.scope(function()
    local batch = { step = number or 1, prompts = support.prompts, cond = method.pipeline:condition(support.prompts) }
    return method:step(batch, core.generator(seed or 5, number or 1))
  end)
end

--- The norm of the transformer's gradient.
function support.gradient_norm(pipe)
  local total = 0
  for _, parameter in ipairs(pipe.transformer:parameters()) do
    local grad = parameter:grad()
    if grad then total = total + grad:square():sum():item() end
  end
  return math.sqrt(total)
end

--- Train for some updates on the same prompts and draws; returns the losses.
function support.train(method, updates, rate)
  local optimizer = require("syz.optim").adamw { lr = rate or 3e-3, clip = 1, weight_decay = 0 }
  optimizer:bind(method.pipeline.transformer:parameters())
  local losses = {}
  for i = 1, updates do
    losses[i] = support.step(method, 1).loss
    optimizer:update(i, updates)
  end
  return losses
end

--- Elementwise v(x, t) = a x + b t with the numbers a and b as parameters; images are latents, and the reward is the
--- sum of c x. `numbers` does the rollout in plain Lua.
function support.world(steps, a, b, grid)
  local world = { n = steps, a = a or 0.3, b = b or -0.8, x0 = { 0.4, -1.2, 0.7 }, c = { 0.5, -0.3, 0.9 },
    grid = grid or schedule.flow { steps = steps, shift = 3 } }
  world.levels = world.grid:levels()
  local pa = core.tensor({ world.a }):keep():requires_grad(true)
  local pb = core.tensor({ world.b }):keep():requires_grad(true)
  local module = {}
  function module.parameters() return { pa, pb } end
  local pipe = { schedule = world.grid, transformer = module, a = pa, b = pb }
  function pipe.velocity(_, x, level) return x * pa + pb * level end
  function pipe.noise() return core.tensor(world.x0, { 1, 1, 3 }) end
  function pipe.decode(_, x) return x end
  world.pipe = pipe
  world.reward = { score = function(_, x) return (x * core.tensor(world.c, { 1, 1, 3 })):sum({ 1, 2 }) end }

  --- States x[1 .. n + 1] and predictions v[1 .. n] of one element.
  function world.numbers(element)
    local x, v = { world.x0[element] }, {}
    for i = 1, steps do
      v[i] = world.a * x[i] + world.b * world.levels[i]
      x[i + 1] = x[i] + (world.levels[i + 1] - world.levels[i]) * v[i]
    end
    return x, v
  end

  --- d R / d a and d R / d b from what `derivative(x, levels, n)` says of one element: dx/da, dx/db, and the value.
  function world.expected(derivative)
    local da, db, value = 0, 0, 0
    for element = 1, 3 do
      local x, v = world.numbers(element)
      local ga, gb, seen = derivative(x, world.levels, steps, v)
      da, db, value = da + world.c[element] * ga, db + world.c[element] * gb, value + world.c[element] * seen
    end
    return da, db, value
  end

  --- One step of a method; its gradients of R (not of the loss), and what it reports.
  function world.step(method, generator)
    return core.scope(function()
      pa:zero_grad()
      pb:zero_grad()
      local stats, rows = method:step({ step = 1, prompts = { "x" }, cond = {} }, generator or core.generator(3, 1))
      return -pa:grad():item(), -pb:grad():item(), stats, rows
    end)
  end
  return world
end

return support
