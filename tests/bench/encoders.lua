-- Milliseconds of a forward of each encoder of tests/bench/encoders.py: luajit encoders.lua THREADS REPEATS CONFIGS,
-- CONFIGS being a JSON file { name = { config =, method =, input = { shape, "ids" or "pixels" } } }. The last line of
-- the output is JSON { name = median }.
local core = require "syz.core"

core.threads(tonumber(arg[1]))

local function median(times)
  table.sort(times)
  return times[math.floor((#times + 1) / 2)]
end

local function measure(case)
  local model = core.model.create(case.config):init(1)
  local shape, kind = case.input[1], case.input[2]
  return core.no_grad(core.scope, function()
    local input = kind == "ids" and core.generator(2):randint(3, 1000, shape) or core.generator(2):randn(shape)
    local times = {}
    for i = 0, tonumber(arg[2]) do
      local began = core.clock()
      core.scope(function() model[case.method](model, input) end)
      if i > 0 then times[i] = 1e3 * (core.clock() - began) end -- the first one warms up
    end
    return median(times)
  end)
end

local result = {}
for name, case in pairs(core.json.decode(core.file.read(arg[3]))) do result[name] = measure(case) end
print(core.json.encode(result))
