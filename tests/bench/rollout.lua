--- What 8 bits do to rollouts: images of the same prompts and seeds with f32, bf16 and fp8 products, and what the judge
--- makes of each.
--
--   luajit tests/bench/rollout.lua [steps [seed]]        12 500
--
-- Needs LUA_PATH and LUA_CPATH as tests/bench/compare.py sets them. bf16 is left out where the processor has no such
-- products.
local core = require "syz.core"
local syz = require "syz"

local steps, seed = tonumber(arg[1] or 12), tonumber(arg[2] or 500)

local subjects = {}
for line in core.file.read "examples/emoji/prompts-eval.txt":gmatch "[^\n]+" do subjects[#subjects + 1] = line end
local pipe, judge = syz.pipeline "examples/emoji/pipeline", syz.judge "examples/emoji/judge"

local function draw(rollout)
  return pipe:sample { prompts = subjects, steps = steps, guidance = 2, seed = seed, batch = 16,
    rollout = rollout }
end

-- Each image by itself: the mean over images of the PSNR in decibels, and the mean absolute difference.
local function difference(a, b)
  local error = a - b
  local squares = (error * error):mean { 1, 2, 3 }:totable()
  local decibels = 0
  for _, square in ipairs(squares) do decibels = decibels - 10 * math.log10(square) / #squares end
  return decibels, error:abs():mean():item()
end

local exact = draw()

local function row(name, images)
  local line = ("%-5s subject %.3f"):format(name, judge:assess(images, subjects, "fluent-3d").subject_accuracy)
  if images ~= exact then
    line = line .. (", from f32: PSNR %.2f dB, mean absolute difference %.5f"):format(difference(images, exact))
  end
  print(line)
end

row("f32", exact)
if core.precision "bf16" == "bf16" then
  local images = draw()
  core.precision "f32"
  row("bf16", images)
end
row("fp8", draw "fp8")
