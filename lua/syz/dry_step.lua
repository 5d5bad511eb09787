--- The one step of a dry run, and what it says about the real ones: operations, memory, and that the numbers are
--- finite.
--
-- At full depth nothing was run: its operations are those of the shallow model times the ratio of what syz.flops says
-- of the two, its memory that of the shallow one plus what each block left out would add.
local activations = require "syz.activations"
local core = require "syz.core"
local device = require "syz.device"
local flops = require "syz.flops"
local loop = require "syz.loop"
local progress = require "syz.progress"

local dry_step = {}

---@class syz.DryReport
---@field models table[]      { path, class, missing, parameters, shallow, role, bytes, flops, states }; states of a
---                            trained one: bytes of its weights, remainders, gradients and moments
---@field parts integer       equal parts of an update, of which one was made
---@field flops number        of an update, at full depth
---@field peak number         bytes, of the part that was made
---@field peak_full number    bytes, at full depth
---@field device string       "cpu", "cuda:0"
---@field uses table|nil      of a GPU: the peak's bytes of weights, gradients, optimizer, activations
---@field stats table         of the step: loss, reward, grad_norm

-- What training keeps of a module with so many parameters, and the sum.
local function trained_states(experiment, module, parameters)
  local states, sum = {}, 0
  for name, bytes in pairs(experiment.optimizer:bytes(loop.dtype(module))) do
    states[name] = parameters * bytes
    sum = sum + states[name]
  end
  return states, sum
end

-- Bytes of a frozen number, by how it is kept; large published files are bf16 or f16.
local function frozen(entry)
  if not entry.stored then return 4 end
  local dtype = not entry.missing and entry.model:param(entry.model:names()[1]):dtype()
  return dtype == "f32" and 4 or 2
end

local function blocks(config)
  return (config.num_layers or 0) + (config.num_single_layers or 0)
end

--- How many times the operations of the model that was made its full depth would take.
---@param entry syz.DryModel
---@param pipe syz.Pipeline
---@return number
function dry_step.deeper(entry, pipe)
  local made = entry.model:config()
  if entry.model:class() == "FluxTransformer2DModel" then
    local image = pipe.h * pipe.w / 4
    return flops.flux(entry.config, image, pipe.text_length) / flops.flux(made, image, pipe.text_length)
  end
  -- towers: their blocks are nearly all of it
  local function depth(config)
    local total = config.num_hidden_layers or config.num_layers or 0
    for _, name in ipairs { "text_config", "vision_config" } do
      total = total + (type(config[name]) == "table" and depth(config[name]) or 0)
    end
    return total
  end
  return math.max(1, depth(entry.config)) / math.max(1, depth(made))
end

local function live()
  return (device.is_gpu() and core.device_memory(device.current()) or core.memory()).live
end

-- What one more block of the transformer keeps for the backward pass, in bytes.
local function kept_by_a_block(experiment, pipe, config)
  return core.scope(function()
    local prompts = { "a" }
    local x, cond = pipe:noise(core.generator(1), 1), pipe:condition(prompts)
    local before = live()
    local v = pipe:velocity(x, 0.5, cond, 3.5)
    local kept = live() - before - 4 * v:numel()
    local samples = experiment.batch * (experiment.method.views_at_once or 1)
    return math.max(0, kept) / math.max(1, blocks(config)) * samples
  end)
end

-- A bar over the calls of the transformer, which is where the time goes.
local function watched(pipe, body)
  local velocity, bar, calls = pipe.velocity, progress.new(nil, "one step"), 0
  pipe.velocity = function(...)
    calls = calls + 1
    bar:update(calls, "calls of the transformer")
    return velocity(...)
  end
  local ok, raised = pcall(body)
  pipe.velocity = nil -- the class's own again
  bar:done()
  if not ok then error(raised, 0) end
end

-- Everything in its place, and what is measured before the first step, which is no part of it.
local function get_ready(experiment)
  local method, parameters = experiment.method, {}
  activations.place(experiment)
  for _, module in pairs(method.modules) do
    for _, parameter in ipairs(module:parameters()) do parameters[#parameters + 1] = parameter end
  end
  experiment.optimizer:bind(parameters)
  if type(experiment.prompts) == "table" then experiment:prepare(experiment.prompts[1]) end
end

-- One part of one update, as the loop would make it.
local function make_step(experiment)
  local method, stats = experiment.method, nil
  local step = experiment:stepper { ledger = function() end }
  watched(method.pipeline, function()
    core.scope(function()
      local function update() experiment.optimizer:update(1, experiment.steps) end
      stats = step(1, core.generator(experiment.seed or 42, 1), update)
    end)
  end)
  stats.grad_norm = experiment.optimizer:update(1, experiment.steps)
  return stats
end

local function describe(entry, experiment, before)
  local trained
  for _, module in pairs(experiment.method.modules) do trained = trained or rawequal(module, entry.model) end
  local shallow = entry.model:numel()
  local states, bytes = nil, nil
  if trained then states, bytes = trained_states(experiment, entry.model, entry.parameters) end
  return {
    path = entry.path, class = entry.model:class(), missing = entry.missing, parameters = entry.parameters,
    shallow = shallow < entry.parameters and shallow or nil, role = trained and "trained" or "frozen",
    bytes = bytes or entry.parameters * frozen(entry), states = states,
    made = entry.model:flops() - before,
  }
end

-- The adapters that are trained in place of a model's weights, if there are any.
local function describe_adapters(experiment, adapter, models)
  for _, entry in ipairs(models) do
    if adapter and rawequal(entry.model, adapter.model) then
      local shallow, full = adapter:count(entry.model), adapter:count(core.model.create(entry.config))
      local states, bytes = trained_states(experiment, adapter, full)
      return { path = ("rank %d"):format(adapter:config().r), class = "LoRA", parameters = full,
        shallow = shallow < full and shallow or nil, role = "trained", bytes = bytes, made = 0, flops = 0,
        missing = false, states = states }, bytes * (1 - shallow / full)
    end
  end
end

--- Make the step. The experiment is used up.
---@param experiment table         what syz.train returned
---@param models syz.DryModel[]
---@return syz.DryReport
function dry_step.run(experiment, models)
  local pipe = experiment.method.pipeline
  local whole = experiment.batch
  local parts = experiment.method.micro_batch and whole or experiment.accumulate
  experiment.batch, experiment.accumulate = whole / parts, 1
  core.precision(experiment.precision or "f32")
  get_ready(experiment)
  local before, rows = {}, {}
  for i, entry in ipairs(models) do before[i] = entry.model:flops() end
  core.memory_reset_peak()
  local stats = make_step(experiment)
  local peak, total, left_out = core.memory().peak, 0, 0
  local where, uses = device.current(), nil
  if device.is_gpu() then
    uses = select(2, device.memory(where))
    peak = uses.peak
  end
  for i, entry in ipairs(models) do
    local row = describe(entry, experiment, before[i])
    row.flops = row.made * dry_step.deeper(entry, pipe) * parts
    total = total + row.flops
    left_out = left_out + row.bytes * (1 - entry.model:numel() / entry.parameters)
    rows[i] = row
  end
  local adapters, more = describe_adapters(experiment, pipe.adapter, models)
  rows[#rows + 1], left_out = adapters, left_out + (more or 0)
  local config = pipe.transformer:config()
  for _, entry in ipairs(models) do
    if rawequal(entry.model, pipe.transformer) then
      left_out = left_out + (blocks(entry.config) - blocks(config)) * kept_by_a_block(experiment, pipe, config)
    end
  end
  return { models = rows, parts = parts, flops = total, peak = peak, peak_full = peak + left_out, stats = stats,
    batch = whole, device = where, uses = uses }
end

return dry_step
