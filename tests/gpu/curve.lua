--- The loss curve of SRPO on the emoji model, on a device against the CPU.
--
--   luajit tests/gpu/curve.lua SYZ DEVICE FOLDER [NAME=VALUE ...] [--device-set NAME=VALUE ...]
--
-- SYZ is the program, FOLDER takes the runs, NAME=VALUE are settings of all of them (tests/gpu/srpo.lua); what follows
-- --device-set is for the device's alone, to see the check fail. The CPU runs in f32, the device in f32 and in bf16.
-- Losses and gradient norms must agree step by step. Needs LUA_PATH and LUA_CPATH as check.sh sets them.
local core = require "syz.core"
local text = require "syz.text"

local program, device, folder = arg[1], arg[2], arg[3]

-- How far a curve may be from the CPU's: the length of the difference over the length of the curve. f32 differs by the
-- order of its sums. A CPU whose products alone are bf16 is up to 0.02 and 0.04 away; another seed was 0.36 and 0.75
-- away, a learning rate ten times as large 0.17 in the loss.
local LIMITS = { f32 = { loss = 1e-3, grad_norm = 1e-3 }, bf16 = { loss = 6e-2, grad_norm = 1e-1 } }

-- Settings for all runs, and for the device's.
local function settings()
  local all, own = {}, {}
  local list = all
  for i = 4, #arg do
    if arg[i] == "--device-set" then list = own else list[#list + 1] = arg[i] end
  end
  return all, own
end

-- Run the recipe; returns its curves: { loss = {...}, grad_norm = {...} }.
local function curves(name, flags, ...)
  local out = folder .. "/" .. name
  local words = { text.shell(program), "run tests/gpu/srpo.lua --quiet --out", text.shell(out), flags }
  for _, list in ipairs { ... } do
    for _, setting in ipairs(list) do words[#words + 1] = "--set " .. text.shell(setting) end
  end
  local command = table.concat(words, " ")
  if os.execute(command .. " >/dev/null") ~= 0 then error("this run failed: " .. command, 0) end
  local found = { loss = {}, grad_norm = {} }
  for line in core.file.read(out .. "/metrics.jsonl"):gmatch("[^\n]+") do
    local row = core.json.decode(line)
    for key, values in pairs(found) do values[#values + 1] = row[key] end
  end
  return found
end

local function distance(a, b)
  local difference, total = 0, 0
  for i, value in ipairs(a) do difference, total = difference + (value - b[i]) ^ 2, total + value ^ 2 end
  return math.sqrt(difference / total)
end

-- Print both curves and the verdict on each; true when all are near enough.
local function compare(wanted, found, precision)
  local good = true
  if #wanted.loss == 0 or #found.loss ~= #wanted.loss then
    error(("%d steps on the CPU, %d on %s"):format(#wanted.loss, #found.loss, device), 0)
  end
  for _, key in ipairs { "loss", "grad_norm" } do
    local apart, limit = distance(wanted[key], found[key]), LIMITS[precision][key]
    local near = apart <= limit -- false for NaN
    good = good and near
    for i, value in ipairs(wanted[key]) do
      print(("      %-4s  %-9s  step %2d  %10.6f  %10.6f"):format(precision, key, i, value, found[key][i]))
    end
    print(("%-4s  %-4s  %-9s  %.2e apart over %d steps, at most %.0e"):format(near and "ok" or "FAIL", precision, key,
      apart, #wanted[key], limit))
  end
  return good
end

local function main()
  local all, own = settings()
  local flags = device == "cpu" and "" or "--device " .. device
  local wanted = curves("cpu", "", all)
  local good = true
  for _, precision in ipairs { "f32", "bf16" } do
    local found = curves(precision, flags, all, { "precision=" .. precision }, own)
    good = compare(wanted, found, precision) and good
  end
  return good
end

local ok, good = pcall(main)
if not ok then print("FAIL  " .. tostring(good)) end
os.exit(ok and good and 0 or 1)
