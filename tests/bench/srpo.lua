--- How long one SRPO iteration of the embedded emoji model takes here, and each of its parts.
--
--   luajit tests/bench/srpo.lua [threads [precision [repeats [batch]]]]        2 f32 5 16
--
-- Needs LUA_PATH and LUA_CPATH as tests/bench/compare.py sets them. Weights are random: the time does not depend on
-- them. An iteration is a rollout of 12 steps, two branches (transformer, VAE decoder, reward tower: forward and
-- backward), clipping and AdamW. Prints one JSON object: the median of each part in milliseconds.
local core = require "syz.core"
local syz = require "syz"

local threads, precision = tonumber(arg[1] or 2), arg[2] or "f32"
local repeats, batch = tonumber(arg[3] or 5), tonumber(arg[4] or 16)
local STEPS = 12

core.threads(threads)
assert(core.precision(precision) == precision, "this processor has no " .. precision .. " products")

local function model(name)
  local made = syz.model.create(syz.json.decode(core.file.read("examples/emoji/configs/" .. name .. ".json")))
  made:init(1)
  made:requires_grad(false)
  return made
end

local transformer, vae, clip = model "transformer", model "vae", model "reward"
local config = clip:config()
local optimizer = syz.adamw { lr = 1e-9, clip = 0.1 }
optimizer:bind(transformer:parameters())

local generator = core.generator(1)
local noise = generator:randn({ batch, 16, 64 }):keep()
local hidden, pooled = generator:randn({ batch, 16, 256 }):keep(), generator:randn({ batch, 256 }):keep()
local level = core.full({ batch }, 0.7):keep()
local direction = generator:randn({ batch, 128 }):keep()
local grid = {}
for i = 0, 15 do
  grid[3 * i + 1], grid[3 * i + 2], grid[3 * i + 3] = 0, math.floor(i / 4), i % 4
end
local image_ids, text_ids = core.tensor(grid, { 16, 3 }):keep(), core.zeros({ 16, 3 }):keep()

local function velocity(x)
  return transformer:forward(x, hidden, pooled, level, nil, image_ids, text_ids)
end

local function rollout()
  return core.no_grad(core.scope, function()
    local x = noise
    for _ = 1, STEPS do x = core.scope(function() return x - velocity(x) / STEPS end) end
    return x
  end)
end

-- Packed latents [B,16,64] to the reward {B}: unpack 2x2 patches, decode, normalise, score.
local function reward(x)
  local z = x:reshape({ batch, 4, 4, 16, 2, 2 }):permute({ 0, 1, 4, 2, 5, 3 }):reshape({ batch, 8, 8, 16 })
  local images = (vae:decode(z) * 0.5 + 0.5):clamp(0, 1)
  local features = clip:image_features(syz.reward.normalize(images, config)):normalize(1e-12)
  return (features * direction):sum({ 1 })
end

local function branch()
  core.scope(function()
    local xhat = noise + velocity(noise) * 0.1;
    (-reward(xhat):mean()):backward()
  end)
end

local parts = {
  { "rollout", rollout },
  { "transformer forward", function() core.no_grad(velocity, noise) end },
  { "transformer forward and backward", function() velocity(noise):mean():backward() end, train = true },
  { "VAE and reward forward", function() core.no_grad(reward, noise) end },
  { "VAE and reward forward and input gradient", function() reward(noise):mean():backward() end, input = true },
  { "clip and AdamW", function() optimizer:update(1, 1) end, train = true, prepare = branch },
  { "iteration", function()
    rollout()
    branch()
    branch()
    optimizer:update(1, 1)
  end, train = true },
}

local function time(part)
  transformer:requires_grad(part.train or false)
  noise:requires_grad(part.input or false)
  local samples = {}
  for i = -1, repeats do
    if part.prepare then part.prepare() end
    local start = core.clock()
    core.scope(part[2])
    if i > 0 then samples[i] = (core.clock() - start) * 1000 end
    if not part.prepare then optimizer:zero_grad() end
  end
  table.sort(samples)
  return samples[math.ceil(#samples / 2)]
end

local results = {}
for _, part in ipairs(parts) do results[part[1]] = time(part) end
print(syz.json.encode(results))
