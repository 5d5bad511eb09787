--- Timings of this engine on a device, at full size with random weights, one JSON line for each part as it is finished.
--
--   luajit tests/gpu/bench.lua DEVICE SIZE FOLDER           cuda full /tmp
--
-- SIZE is a section of sizes.json, which peer.py reads too: the same shapes, the same work. FOLDER takes an empty file
-- for a moment. Needs LUA_PATH and LUA_CPATH as check.sh sets them. Each part is warmed up, then repeated until it has
-- enough samples or has spent its seconds; figures are medians. A part that fails says why and the next one runs.
package.path = "tests/gpu/?.lua;" .. package.path
local core = require "syz.core"
local files = require "syz.files"
local message = require "syz.message"
local optim = require "syz.optim"
local pipeline = require "syz.pipeline"
local preprocess = require "syz.rewards.preprocess"
local schedule = require "syz.schedule"
local srpo = require "syz.methods.srpo"
local weights = require "weights"

local device, size, folder = arg[1], arg[2], arg[3]
local cpu = device == "cpu"
local dtype = cpu and "f32" or "bf16"
local sizes = assert(files.need_json("tests/gpu/sizes.json")[size], "no such section in tests/gpu/sizes.json")
local WARM_UP = 2

local synchronize = cpu and function() end or core.synchronize
local function place(x) return cpu and x or x:to(device) end

local function report(line)
  print(core.json.encode(line))
  io.stdout:flush()
end

local function median(samples)
  table.sort(samples)
  return samples[math.ceil(#samples / 2)]
end

-- ---- measuring ----

---@class syz.gpu.Part
---@field name string
---@field run fun()
---@field prepare nil|fun()      before each call, not timed
---@field after nil|fun()        after each call, not timed
---@field bytes number|nil       that have to be moved
---@field samples integer|nil    instead of those of sizes.json

local function sample(part)
  if part.prepare then part.prepare() end
  synchronize()
  local flops, began = core.flops(), core.clock()
  core.scope(part.run)
  synchronize()
  local seconds = core.clock() - began
  flops = core.flops() - flops
  if part.after then part.after() end
  return seconds, flops
end

local function measured(part)
  if cpu then core.memory_reset_peak() else core.device_reset_peak(device) end
  local seconds, _, flops = {}, sample(part)
  for _ = 2, math.min(WARM_UP, part.samples or WARM_UP) do sample(part) end
  local began = core.clock()
  while #seconds < (part.samples or sizes.samples) and (#seconds == 0 or core.clock() - began < sizes.seconds) do
    seconds[#seconds + 1] = (sample(part))
  end
  local memory = cpu and core.memory() or core.device_memory(device)
  return { part = part.name, ms = 1e3 * median(seconds), low = 1e3 * seconds[1], high = 1e3 * seconds[#seconds],
    n = #seconds, flops = flops > 0 and flops or nil, bytes = part.bytes, peak = memory.peak }
end

-- Measure one part; what raises is its result.
local function measure(part)
  local ok, result = pcall(measured, part)
  if not ok then
    result = { part = part.name, failed = message.of(result) }
    if part.after then part.after() end
  end
  collectgarbage()
  core.memory_trim()
  report(result)
end

-- ---- the card's own rates ----

local function rates()
  local n = sizes.product
  core.scope(function()
    local a, b = core.generator(1):randn({ n, n }):to(dtype), core.generator(2):randn({ n, n }):to(dtype)
    a, b = place(a), place(b)
    measure { name = "product", run = function() return core.no_grad(function() a:matmul(b) end) end }
  end)
  core.scope(function()
    -- random values, made there from a short piece
    local piece = place(core.generator(3):randn({ 1, 65536 }):to(dtype))
    local long = piece:broadcast_to({ sizes.copied / 65536, 65536 })
    measure { name = "copy", bytes = 2 * long:numel() * (cpu and 4 or 2), run = function() long:copy() end }
  end)
end

-- ---- models ----

local function make(name)
  return weights.model(files.need_json(sizes[name]), device, dtype, folder)
end

local transformer, vae, reward
local pipes = {} -- by side

local function pipe_of(side)
  if not pipes[side] then
    local made = pipeline.new { transformer = transformer, vae = vae, text_length = sizes.text, size = { side, side },
      schedule = schedule.flow { steps = sizes.rollout, shift = 3 } }
    if not cpu then made:to(device) end
    pipes[side] = made
  end
  return pipes[side]
end

-- Features of one prompt, as text encoders would give them.
local conditions
local function condition()
  if not conditions then
    local config, g = transformer:config(), core.generator(4)
    conditions = {
      hidden = place(g:randn({ 1, sizes.text, config.joint_attention_dim }):to(dtype)):keep(),
      pooled = place(g:randn({ 1, config.pooled_projection_dim }):to(dtype)):keep(), prompts = { "a" },
    }
  end
  return conditions
end

-- What collects gradients: "none", "first" (the first layer alone, so that the gradient passes through all others as
-- it does through a frozen tower), or "all".
local function train(what)
  transformer:zero_grad()
  transformer:requires_grad(what == "all")
  if what == "first" then transformer:param("x_embedder.weight"):requires_grad(true) end
end

local function forget() transformer:zero_grad() end

local function velocity(pipe, x) return pipe:velocity(x, 0.5, condition(), 3.5) end

-- The reward of images: cosine with a direction in place of a text.
local function scorer()
  local config = reward:config()
  local direction = place(core.generator(5):randn({ 1, config.projection_dim }):normalize(1e-12):to(dtype)):keep()
  local side = config.vision_config.image_size
  local self = {}
  function self.tower(pixels) return reward:image_features(pixels):normalize(1e-12) end
  function self.relative(_, images, _, _, kappa)
    local s = (self.tower(preprocess.apply("crop", images, side)) * direction):sum({ 1 })
    return (1 + place(kappa)) * s - 0.5 * s
  end
  self.score = function(_, images) return self:relative(images, nil, nil, core.zeros({ images:size(0) })) end
  return self
end

-- ---- parts ----

local function transformer_parts(side)
  local pipe, noise = pipe_of(side), nil
  core.scope(function() noise = place(pipe:noise(core.generator(6), 1)):keep() end)
  local function backward() velocity(pipe, noise):square():mean():backward() end
  train "none"
  measure { name = "forward/" .. side, run = function() core.no_grad(velocity, pipe, noise) end }
  train "first"
  measure { name = "inputs/" .. side, run = backward, after = forget }
  return function()
    train "all"
    measure { name = "weights/" .. side, run = backward, after = forget }
    train "none"
  end
end

local function vae_part(side)
  local pipe, latents = pipe_of(side), nil
  core.scope(function() latents = place(pipe:noise(core.generator(7), 1)):keep() end)
  latents:requires_grad(true)
  measure { name = "vae/" .. side, run = function() pipe:decode(latents):mean():backward() end,
    after = function() latents:zero_grad() end }
  latents:free()
end

local function reward_part(score)
  local side = reward:config().vision_config.image_size
  local pixels
  core.scope(function() pixels = place(core.generator(8):randn({ 1, side, side, 3 }):to(dtype)):keep() end)
  pixels:requires_grad(true)
  measure { name = "reward", run = function() score.tower(pixels):mean():backward() end,
    after = function() pixels:zero_grad() end }
  pixels:free()
end

-- One SRPO iteration as the trainer makes it, without the optimizer.
local function iteration(score)
  local pipe = pipe_of(sizes.iteration)
  local method = srpo.new { pipeline = pipe, reward = score, control = { positive = { "b" }, negative = { "c" } },
    schedule = pipe.schedule, rollout_steps = sizes.rollout }
  local step = 0
  return function()
    step = step + 1
    local stats = method:step({ step = step, prompts = { "a" }, cond = condition() }, core.generator(9, step))
    assert(stats.loss == stats.loss and math.abs(stats.loss) < math.huge, "the loss is not a finite number")
  end
end

-- Bytes that an update must move for each parameter: gradients are read for the norm and for the step; weights,
-- and on a device what their bf16 lacks of f32, and the moments are read and written.
local UPDATE_BYTES = cpu and 2 * 4 + 2 * 4 + 2 * 8 or 2 * 4 + 2 * (2 + 2) + 2 * (1 + 1)

local function update_parts(step)
  local name, pipe, noise = "optimizer/" .. sizes.iteration, pipe_of(sizes.iteration), nil
  core.scope(function() noise = place(pipe:noise(core.generator(6), 1)):keep() end)
  local function backward() velocity(pipe, noise):square():mean():backward() end
  train "all"
  local ok, raised = pcall(function()
    local optimizer = optim.adamw(cpu and { lr = 1e-9 } or { lr = 1e-9, moments = "8bit" })
    optimizer:bind(transformer:parameters())
    measure { name = name, bytes = UPDATE_BYTES * transformer:numel(), samples = math.min(5, sizes.samples),
      prepare = function() core.scope(backward) end, run = function() optimizer:update(1, 1) end }
    measure { name = "fine-tune/" .. sizes.iteration, samples = 2,
      run = function()
        step()
        optimizer:update(1, 1)
      end }
  end)
  if not ok then report { part = name, failed = message.of(raised) } end
  train "none"
end

local function machine()
  local status = core.cuda_status()
  local card = status.devices and status.devices[1] or {}
  report { about = { side = "ours", version = core.version(), device = device, size = size,
    card = card.name or core.machine().cpu, compute = card.compute, memory = card.memory, driver = status.driver,
    runtime = status.runtime, cudnn = status.cudnn } }
end

if not cpu then core.set_device(device) end
machine()
rates()
local began = core.clock()
transformer, vae, reward = make "transformer", make "vae", make "reward"
io.stderr:write(("models made in %.1f s\n"):format(core.clock() - began))
local score = scorer()
local with_weights = {}
for _, side in ipairs(sizes.sides) do with_weights[#with_weights + 1] = transformer_parts(side) end
vae_part(sizes.iteration)
reward_part(score)
local step = iteration(score)
train "first"
measure { name = "frozen-iteration/" .. sizes.iteration, run = step, after = forget, samples = 3 }
for _, part in ipairs(with_weights) do part() end -- what follows holds a gradient for every weight
train "all"
measure { name = "iteration/" .. sizes.iteration, run = step, after = forget, samples = 3 }
train "none"
update_parts(step)
