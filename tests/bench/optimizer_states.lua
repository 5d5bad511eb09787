--- What the optimizer's states cost a training in quality: the embedded flow transformer trained from its start, on the
--- same pictures and noise, f32 against bf16 weights and 8-bit moments.
--
--   luajit tests/bench/optimizer_states.lua [steps [batch [rate]]]        1000 8 1e-3
--
-- Needs LUA_PATH and LUA_CPATH as tests/bench/compare.py sets them. Prints a line for each setting: the loss on noise
-- that no training has seen, and how far it is from the first line's. docs/optimizer-states.md has what it printed.
local core = require "syz.core"
local flow = dofile "tests/lua/flow_objective.lua"

local steps, batch = tonumber(arg[1] or 1000), tonumber(arg[2] or 8)
local rate = tonumber(arg[3] or 1e-3)
core.threads(1)
local objective, first = flow.open(512), nil
for _, setting in ipairs { { "f32", "f32" }, { "bf16", "f32" }, { "bf16", "8bit" } } do
  local loss = objective:train(setting[1], setting[2], steps, batch, rate)
  first = first or loss
  print(("%-4s weights, %-4s moments   %.5f   %+.2f %%"):format(setting[1], setting[2], loss, 100 * (loss / first - 1)))
  io.stdout:flush()
end
