-- Milliseconds of FLUX's transformer at full width and little depth: luajit flux_blocks.lua THREADS REPEATS IMAGE TEXT
-- DTYPE CONFIG. Forward without gradients, then forward and backward to all weights. The last line is JSON.
local core = require "syz.core"

core.threads(tonumber(arg[1]))
core.precision(arg[5] == "bfloat16" and "bf16" or "f32")
local repeats, image, text = tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4])
local model = core.model.create(core.json.decode(arg[6])):init(1)

local function inputs()
  local g = core.generator(2)
  return g:randn { 1, image, 64 }, g:randn { 1, text, 4096 }, g:randn { 1, 768 }, core.full({ 1 }, 0.5),
    core.full({ 1 }, 3.5), core.zeros { image, 3 }, core.zeros { text, 3 }
end

local function median(step)
  local times = {}
  for i = 0, repeats do
    local began = core.clock()
    core.scope(step)
    if i > 0 then times[i] = 1e3 * (core.clock() - began) end -- the first one warms up
  end
  table.sort(times)
  return times[math.floor((#times + 1) / 2)]
end

local before = core.flops()
local forward = median(function() core.no_grad(function() model:forward(inputs()) end) end)
local flops = (core.flops() - before) / (repeats + 1)
model:requires_grad(true)
local step = median(function()
  model:forward(inputs()):square():mean():backward()
  model:zero_grad()
end)
print(core.json.encode { forward = forward, step = step, flops = flops })
