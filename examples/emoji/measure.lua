-- Measure the embedded generator: does it draw the subject and the style that the prompt names? The judge answers, for
-- the 64 evaluation subjects, each plain and in all five styles. Numbers go to summary.json, grids to samples/.
local syz = require "syz"
local world = require "world"
local opt = syz.options {
  model = { "examples/emoji/pipeline", "pipeline folder" },
  judge = { "examples/emoji/judge", "judge folder" },
  steps = { 12, "sampler steps" }, guidance = { 2.0, "classifier-free guidance; 1 for none" },
  shift = { 0, "time shift of the sampler; 0 for the pipeline's own" }, seed = { 500, "random seed" },
}

world.read = syz.file.read
local subjects = world.prompts "eval"
local pipe, judge = syz.pipeline(opt.model), syz.judge(opt.judge)
if opt.shift > 0 then pipe.schedule = syz.schedule.flow { steps = opt.steps, shift = opt.shift } end

local SHOWN, overview = 12, {}

-- Images of one style (plain without one), and what the judge makes of them.
local function draw(style, run)
  return syz.scope(function()
    local prompts = {}
    for i, subject in ipairs(subjects) do prompts[i] = style and style.phrase .. ". " .. subject or subject end
    local images = pipe:sample { prompts = prompts, steps = opt.steps, guidance = opt.guidance, seed = opt.seed,
      batch = 32 }
    run:sample(0, images, style and style.name or "plain")
    overview[#overview + 1] = images:slice(0, 0, SHOWN):copy():keep()
    local verdict = judge:assess(images, subjects, (style or world.styles[1]).name)
    return { style_probability = style and verdict.style_probability, subject_accuracy = verdict.subject_accuracy,
      diversity = verdict.diversity }
  end)
end

local function execute(_, run)
  run:prompts(subjects)
  local found, style, subject = { plain = draw(nil, run) }, 0, 0
  for _, which in ipairs(world.styles) do
    local verdict = draw(which, run)
    found[which.name] = verdict
    style, subject = style + verdict.style_probability / 5, subject + verdict.subject_accuracy / 5
  end
  run:sample(0, syz.ops.concat(overview, 0), "overview", SHOWN) -- a row of plain prompts, then one of each style
  found.styled_subject_accuracy, found.styled_style_probability = subject, style
  run:summary(found)
  print(("plain prompts: subject %.3f; styled prompts: subject %.3f, style %.3f"):format(found.plain.subject_accuracy,
    subject, style))
end

return { execute = execute }
