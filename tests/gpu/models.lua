--- Small random models on a device against the tensors that diffusers and transformers made of them (committed in
--- tests/models/data): outputs and gradients of FLUX's transformer, the VAE and CLIP, and a FLUX pipeline from prompts
--- to image.
--
--   luajit tests/gpu/models.lua DEVICE FOLDER               cuda /tmp
--
-- Every model in f32 and in bf16; FOLDER takes the bf16 weights for a moment. Prints the error of each and fails when
-- one is above its limit. Needs LUA_PATH and LUA_CPATH as check.sh sets them.
local core = require "syz.core"
local files = require "syz.files"
local pipeline = require "syz.pipeline"
local sampler = require "syz.sampler"

local device, folder = arg[1], arg[2]
local cpu = device == "cpu"
local DATA = "tests/models/data/"

-- Largest errors, as lengths of differences over lengths of the reference: of outputs, of all gradients as one vector,
-- and of any one of them. A bf16 number has 8 bits, and some ten roundings lie between input and output. Rounding the
-- weights alone costs up to 1.4e-2, 2.3e-2 and 7.5e-2 (on a CPU, which computes in f32 with them).
local LIMITS = {
  f32 = { output = 1e-4, gradients = 1e-4, worst = 1e-3 },
  bf16 = { output = 3e-2, gradients = 6e-2, worst = 2e-1 },
}

local function place(x) return cpu and x or x:to(device) end
local function back(x) return (cpu and x or x:to("cpu")):to("f32") end
local function length(x) return math.sqrt(x:square():sum():item()) end
local function images(x) return x:permute { 0, 2, 3, 1 } end -- the reference keeps them as [N,C,H,W]

local function error_of(found, wanted)
  return length(back(found) - wanted) / length(wanted)
end

-- What is compared in one case: { what, error, limit }.
local rows, failed = {}, 0

local function compare(case, kind, found, dtype)
  local limit = LIMITS[dtype][kind]
  local good = found <= limit -- false for NaN
  if not good then failed = failed + 1 end
  rows[#rows + 1] = ("%-4s  %-16s %-5s %-9s error %.2e, at most %.0e"):format(good and "ok" or "FAIL", case, dtype,
    kind, found, limit)
end

-- Gradients of inputs and parameters, by name, against grad.NAME. Some are zero by symmetry, so that one is measured
-- against at least a hundredth of the longest.
local function compare_gradients(case, found, reference, dtype)
  local longest, worst, all, difference = 0, 0, 0, 0
  for name in pairs(found) do longest = math.max(longest, length(reference["grad." .. name])) end
  for name, gradient in pairs(found) do
    local wanted = reference["grad." .. name]
    local distance = length(back(gradient) - wanted)
    worst = math.max(worst, distance / math.max(length(wanted), 1e-2 * longest)) -- NaN shows in the sum below
    all, difference = all + length(wanted) ^ 2, difference + distance ^ 2
  end
  compare(case, "gradients", math.sqrt(difference / all), dtype)
  compare(case, "worst", worst, dtype)
end

local function open(name, dtype)
  local model = core.model.load(DATA .. name)
  if dtype == "bf16" then
    model:save(folder .. "/" .. name, "bf16")
    model = core.model.load_stored(folder .. "/" .. name)
  end
  if not cpu then model:to(device) end
  return model:requires_grad(true), core.safetensors.read(DATA .. name .. "/reference.safetensors")
end

-- A copy of an input that collects a gradient. A CPU computes in f32 whatever the weights are stored in.
local function leaf(x, dtype)
  return place(x:to(cpu and "f32" or dtype):copy()):requires_grad(true)
end

local function gradients_of(model, prefix)
  local found = {}
  for _, name in ipairs(model:names()) do
    if name:sub(1, #prefix) == prefix then
      found[name] = assert(model:param(name):grad(), name .. " has no gradient")
    end
  end
  return found
end

local models = {}

function models.flux(name, dtype)
  local model, reference = open(name, dtype)
  local x, inputs = {}, { "hidden_states", "encoder_hidden_states", "pooled_projections" }
  for i, key in ipairs(inputs) do x[i] = leaf(reference[key], dtype) end
  local y = model:forward(x[1], x[2], x[3], place(reference.timestep),
    reference.guidance and place(reference.guidance), place(reference.img_ids), place(reference.txt_ids))
  compare(name, "output", error_of(y, reference.output), dtype)
  ;(y * place(reference.grad_output:to(dtype))):sum():backward()
  local found = gradients_of(model, "")
  for i, key in ipairs(inputs) do found[key] = x[i]:grad() end
  compare_gradients(name, found, reference, dtype)
end

function models.vae(name, dtype)
  local model, reference = open(name, dtype)
  local ways = { { "encode", "image", "moments", "encoder." }, { "decode", "latent", "decoded", "decoder." } }
  for _, way in ipairs(ways) do
    local x = leaf(images(reference[way[2]]), dtype)
    local y = model[way[1]](model, x)
    compare(name .. " " .. way[1], "output", error_of(y, images(reference[way[3]])), dtype)
    ;(y * place(images(reference["grad_" .. way[3]]):to(dtype))):sum():backward()
    local found, wanted = gradients_of(model, way[4]), setmetatable({}, { __index = reference })
    found[way[2]], wanted["grad." .. way[2]] = x:grad(), images(reference["grad." .. way[2]])
    compare_gradients(name .. " " .. way[1], found, wanted, dtype)
  end
end

function models.clip(name, dtype)
  local model, reference = open(name, dtype)
  local x = leaf(images(reference.pixel_values), dtype)
  local logits, texts, pictures = model:forward(place(reference.input_ids), x)
  compare(name .. " logits", "output", error_of(logits, reference.logits_per_image), dtype)
  compare(name .. " texts", "output", error_of(texts, reference.text_embeds), dtype)
  compare(name .. " images", "output", error_of(pictures, reference.image_embeds), dtype)
  ;(logits * place(reference.grad_logits_per_image:to(dtype))):sum():backward()
  local found, wanted = gradients_of(model, ""), setmetatable({}, { __index = reference })
  found.pixel_values, wanted["grad.pixel_values"] = x:grad(), images(reference["grad.pixel_values"])
  compare_gradients(name, found, wanted, dtype)
end

-- Prompts, five steps and the decoder, in f32.
function models.pipeline(name)
  local path = DATA .. name
  local asked = files.need_json(path .. "/reference.json")
  local reference = core.safetensors.read(path .. "/reference.safetensors")
  local pipe = pipeline.load(path, { size = { asked.height, asked.width }, steps = asked.steps })
  if not cpu then pipe:to(device) end
  core.no_grad(function()
    local x = sampler.euler(pipe, { noise = place(reference.latents_0), cond = pipe:condition(asked.prompts),
      schedule = pipe.schedule, guidance = asked.guidance })
    compare(name .. " latents", "output", error_of(x, reference["latents_" .. asked.steps]), "f32")
    compare(name .. " image", "output", error_of(pipe:decode(x), images(reference.image)), "f32")
  end)
end

local CASES = { flux = { "flux_a", "flux_b", "flux_c" }, vae = { "vae_a", "vae_b", "vae_c" },
                clip = { "clip_a", "clip_b", "clip_c" }, pipeline = { "flux_dev" } }

for _, kind in ipairs { "flux", "vae", "clip", "pipeline" } do
  for _, name in ipairs(CASES[kind]) do
    for _, dtype in ipairs(kind == "pipeline" and { "f32" } or { "f32", "bf16" }) do
      local ok, raised = pcall(core.scope, function() models[kind](name, dtype) end)
      if not ok then
        failed = failed + 1
        rows[#rows + 1] = ("FAIL  %-16s %-5s %s"):format(name, dtype, raised)
      end
    end
  end
end
print(table.concat(rows, "\n"))
print(("%d comparisons, %d failed"):format(#rows, failed))
os.exit(failed == 0 and 0 or 1)
