--- syz sample: images for prompts, as one picture.
local core = require "syz.core"
local files = require "syz.files"
local images = require "syz.images"
local lora = require "syz.lora"
local progress = require "syz.progress"
local run = require "syz.run"

---@type syz.Command
local command = {
  name = "sample",
  summary = "draw prompts with a pipeline, or with what a run has trained",
  positional = { { name = "PROMPT", many = true, optional = true } },
  complete = "folder",
  flags = {
    { name = "model", short = "m", value = "DIR", help = "a pipeline folder, or a run's folder (the emoji pipeline)" },
    { name = "prompt", short = "p", value = "TEXT", many = true, help = "the same as PROMPT" },
    { name = "n", short = "n", value = "N", kind = "integer", help = "images per prompt (4)" },
    { name = "steps", value = "N", kind = "integer", help = "sampling steps (24; FLUX.1-dev 28, schnell 4)" },
    { name = "guidance", value = "G", kind = "number", help = "guidance (2; FLUX.1-dev 3.5, schnell 1)" },
    { name = "size", value = "N|WxH", help = "pixels of a side, or width and height (the pipeline's)" },
    { name = "transformer", value = "DIR", help = "use these transformer weights instead of the pipeline's" },
    { name = "lora", value = "PATH", help = "LoRA adapters, a folder or a file, on the transformer" },
    { name = "lora-scale", value = "S", kind = "number", help = "how much of the adapters (1)" },
    { name = "rollout", value = "TYPE", help = "fp8: as rollouts with that setting draw" },
    { name = "compare", help = "with --rollout: how far the images are from those without, for the same seeds" },
    { name = "out", short = "o", value = "FILE", help = "where the picture goes (sample.png)" },
  },
  examples = {
    'syz sample "red apple" "3D render. red apple"',
    'syz sample "red apple" --model examples/emoji/pipeline --lora runs/srpo_lora-20250131-101500/model/lora',
    'syz sample "red apple" --model runs/srpo-20250131-101500 --n 8 --out after.png',
  },
}

-- Of images per prompt, and of steps.
local MOST = 1000

-- Drawn with when no model is named.
local EMOJI = "examples/emoji/pipeline"

-- A run's folder holds only what training changed, the transformer or adapters; the rest comes from the pipeline its
-- recipe named.
local function parts_of(folder, given)
  if not run.record(folder) then return folder, given.transformer, given.lora end
  local trained, adapters = folder .. "/model/transformer", lora.of_run(folder)
  local ok, config = pcall(core.yaml.decode, core.file.read(folder .. "/config.yaml") or "", folder .. "/config.yaml")
  if not ok then return nil, config end
  local base = type(config) == "table" and config.model
  if not (adapters or core.file.exists(trained)) then
    return nil, folder .. ": this run left no trained transformer; name a pipeline folder with --model"
  end
  if type(base) ~= "string" then
    local part = adapters and "lora" or "transformer"
    return nil, ("%s: its recipe has no option `model` to name the pipeline; say --model PIPELINE --%s %s/model/%s")
      :format(folder, part, folder, part)
  end
  return base, given.transformer or not adapters and trained or nil, given.lora or adapters
end

-- "720" or "1280x720" as { height, width }; nil when it is neither.
local function size_of(typed)
  local width, height = typed:match("^(%d+)x(%d+)$")
  if not width then width, height = typed:match("^%d+$"), typed:match("^%d+$") end
  return width and { tonumber(height), tonumber(width) }
end

local function draw(pipe, given, rollout)
  local prompts = {}
  for _, prompt in ipairs(given.prompt) do
    for _ = 1, given.n or 4 do prompts[#prompts + 1] = prompt end
  end
  local bar = progress.new(nil, "sampling")
  local batch = pipe:sample {
    prompts = prompts, steps = given.steps or pipe.default_steps or 24,
    guidance = given.guidance or pipe.default_guidance or 2, seed = given.seed or 0,
    rollout = rollout,
    on_step = function(done, total)
      bar.total = total
      bar:update(done)
    end,
  }
  bar:done()
  return batch
end

-- Images [N,H,W,3] in [0, 1]: the mean absolute difference and the peak signal-to-noise ratio in decibels, of all.
local function difference(a, b)
  local error = (a - b):mul(a - b):mean():item()
  return (a - b):abs():mean():item(), error > 0 and -10 * math.log10(error) or math.huge
end

-- Draws, writes the picture, and says how far it is from the one without the rollout's type.
local function picture(pipe, given, out)
  local batch = draw(pipe, given, given.rollout)
  core.image.write(out, (images.grid(batch, #given.prompt > 1 and (given.n or 4) or nil)))
  if not given.compare then return { image = out } end
  local absolute, decibels = difference(batch, draw(pipe, given))
  return { image = out, mean_absolute_difference = absolute, psnr = decibels }
end

function command.run(given)
  local cli = require "syz.cli"
  given.prompt = given.prompt or {}
  for _, prompt in ipairs(given) do table.insert(given.prompt, prompt) end
  if #given.prompt == 0 then return cli.misuse('needs a prompt: "what to draw"', command) end
  if not given.model then
    if core.file.exists(EMOJI .. "/model_index.json") ~= "file" then return cli.misuse("needs --model DIR", command) end
    given.model = EMOJI
  end
  for _, name in ipairs { "n", "steps" } do
    local value = given[name] or 1
    if value < 1 or value > MOST then return cli.misuse(("--%s takes 1 to %d"):format(name, MOST), command) end
  end
  local out = given.out or "sample.png"
  local writable, why = files.picture(out)
  if not writable then return cli.misuse(why, command) end
  local base, transformer, adapters = parts_of(given.model, given)
  if not base then return cli.fail(transformer) end
  if given["lora-scale"] and not adapters then return cli.misuse("--lora-scale needs --lora PATH", command) end
  if given.rollout and given.rollout ~= "fp8" then return cli.misuse("--rollout takes fp8", command) end
  if given.compare and not given.rollout then return cli.misuse("--compare needs --rollout fp8", command) end
  local size = given.size and size_of(given.size)
  if given.size and not size then return cli.misuse("--size takes N or WxH, such as 720 or 1280x720", command) end
  local pipe = require("syz").pipeline(base, { size = size })
  if transformer then pipe.transformer = require("syz.pipeline").transformer(transformer) end
  if adapters then pipe:lora { load = adapters, scale = given["lora-scale"] } end
  local said = core.scope(function() return picture(pipe, given, out) end)
  cli.out(given.json and core.json.encode(said) .. "\n" or out .. "\n")
  if said.psnr and not given.json then
    cli.out(("fp8 against the weights' own type: PSNR %.2f dB, mean absolute difference %.5f\n"):format(said.psnr,
      said.mean_absolute_difference))
  end
  return cli.ok
end

return command
