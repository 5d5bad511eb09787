--- What a training on a GPU keeps for its backward pass: the activations of a model, or its blocks' inputs alone, from
--- which they are computed again (activation checkpointing).
--
-- memory = "auto" measures one sample's forward pass of each model, kept and checkpointed, and keeps as much as fits:
-- of all choices that fit, the one that repeats the fewest operations. "keep" and "checkpoint" choose for all models.
-- On the CPU auto leaves models as they are.
local core = require "syz.core"
local device = require "syz.device"
local loop = require "syz.loop"
local message = require "syz.message"
local progress = require "syz.progress"
local text = require "syz.text"

local M = {}

M.choices = { "auto", "checkpoint", "keep" }

-- Of the device's memory, for what cannot be measured beforehand: scratch of kernels, fragments, the sampler.
local MARGIN = 0.08
-- A backward pass needs scratch besides what was kept: gradients of activations, a block that is computed again.
local BACKWARD = 2

-- The models that a gradient passes through, with a forward pass of one sample through each.
local function passes(method, prompt)
  local pipe, generator = method.pipeline, core.generator(0)
  local list = {
    { name = "transformer", model = pipe.transformer, run = function()
      return pipe:velocity(pipe:noise(generator, 1), 0.5, pipe:condition { prompt }, 1)
    end },
    { name = "vae", model = pipe.vae, run = function()
      return pipe:decode(pipe:noise(generator, 1):requires_grad(true))
    end },
  }
  local reward = method.reward
  local tower = reward and (reward.model or reward.tower)
  if tower then
    list[3] = { name = "reward", model = tower, run = function()
      local images = core.full({ 1, pipe.height, pipe.width, 3 }, 0.5):requires_grad(true)
      return reward.image and reward:image(images) or reward:score(images, { prompt })
    end }
  end
  return list
end

-- Bytes that a forward pass leaves behind, those it needs meanwhile, and its operations.
local function measure(pass, where, checkpointed)
  pass.model:checkpointing(checkpointed)
  collectgarbage()
  return core.scope(function()
    core.device_reset_peak(where)
    local before, flops = core.device_memory(where).live, core.flops()
    local out = pass.run()
    local memory = core.device_memory(where)
    return { kept = math.max(0, memory.live - before - 4 * out:numel()), scratch = memory.peak - memory.live,
      flops = core.flops() - flops }
  end)
end

---@class syz.MemoryPass
---@field name string
---@field flops number                          operations that checkpointing repeats
---@field kept { kept: number, scratch: number, flops: number }
---@field checkpoint { kept: number, scratch: number, flops: number }

--- Of every way to checkpoint some passes, the one that needs at most `room` and repeats the fewest operations; all of
--- them where none fits.
---@param list { keep: { kept: number, scratch: number, flops: number }, checkpoint: table, name: string }[]
---@param samples integer   in one backward pass
---@param room number       bytes
---@return table<string, boolean> checkpointed
---@return number bytes     that the choice needs
---@return boolean fits
function M.choose(list, samples, room)
  local best
  for code = 0, 2 ^ #list - 1 do
    local chosen, kept, scratch, repeated = {}, 0, 0, 0
    for i, pass in ipairs(list) do
      local on = math.floor(code / 2 ^ (i - 1)) % 2 == 1
      local cost = on and pass.checkpoint or pass.keep
      chosen[pass.name] = on
      kept = kept + cost.kept
      -- a block that is computed again needs what one of the kept ones holds
      scratch = math.max(scratch, BACKWARD * cost.scratch)
      if on then repeated = repeated + pass.keep.flops end
    end
    local bytes = samples * (kept + scratch)
    if bytes <= room and (not best or repeated < best.repeated) then
      best = { chosen = chosen, bytes = bytes, repeated = repeated, fits = true }
    end
    if code == 2 ^ #list - 1 and not best then best = { chosen = chosen, bytes = bytes, fits = false } end
  end
  return best.chosen, best.bytes, best.fits
end

-- What training needs besides activations and has not taken yet: the gradients. The optimizer's states are there.
local function to_come(modules)
  local bytes = 0
  for _, module in pairs(modules) do
    for _, parameter in ipairs(module:parameters()) do
      if not parameter:grad() then bytes = bytes + 4 * parameter:numel() end
    end
  end
  return bytes
end

local function samples_of(experiment)
  local method = experiment.method
  local part = experiment.batch / experiment.accumulate
  if method.group then
    part = method.micro_batch or math.ceil(experiment.batch * method.group / (method.updates or 1))
  end
  return part * (method.views_at_once or 1)
end

local function set_all(list, on)
  for _, pass in ipairs(list) do pass.model:checkpointing(on) end
end

-- Measure; nothing when one sample is too much already.
local function measured(list, where)
  for _, pass in ipairs(list) do
    for _, kind in ipairs { "keep", "checkpoint" } do
      local ok, cost = pcall(measure, pass, where, kind == "checkpoint")
      if not ok and not M.is_full(cost) then error(cost, 0) end
      if not ok then return nil end
      pass[kind] = cost
    end
  end
  return list
end

local function names(list, chosen, on)
  local found = {}
  for _, pass in ipairs(list) do
    if chosen[pass.name] == on then found[#found + 1] = pass.name end
  end
  return #found > 0 and table.concat(found, ", ") or "none"
end

--- Whether an error says that a device's memory does not suffice.
---@param raised any
function M.is_full(raised)
  return type(raised) == "string" and raised:find("out of memory on cuda", 1, true) ~= nil
end

--- Choose before the first step. The optimizer is bound.
---@param experiment table   what syz.train returned
---@param prompt string      one of the first step's
function M.prepare(experiment, prompt)
  local choice = experiment.memory or "auto"
  if choice ~= "auto" then return set_all(passes(experiment.method, prompt), choice == "checkpoint") end
  if not device.is_gpu() then return end
  local where, list = device.current(), passes(experiment.method, prompt)
  local found = measured(list, where)
  core.memory_trim()
  local memory = core.device_memory(where)
  local room = memory.unused - MARGIN * memory.total - to_come(experiment.method.modules)
  local chosen, bytes, fits
  if found then chosen, bytes, fits = M.choose(list, samples_of(experiment), math.max(0, room)) end
  for _, pass in ipairs(list) do pass.model:checkpointing(not chosen or chosen[pass.name] == true) end
  experiment.method.pipeline.cache = {} -- the step itself encodes its prompts
  core.device_reset_peak(where)
  local what = not chosen and "checkpointed in all models, since those of one sample do not fit"
    or ("kept in %s; checkpointed in %s; about %s of %s%s"):format(names(list, chosen, false),
      names(list, chosen, true), text.bytes(bytes), text.bytes(math.max(0, room)), fits and "" or ", which may not fit")
  progress.note(('memory = "auto": activations are %s'):format(what))
end

--- Run the body of a step. The first one under "auto" that does not fit is repeated once with checkpointing in all
--- models: it has changed nothing yet but gradients, which are dropped.
---@param experiment table
---@param step integer
---@param generator syz.Generator
---@param update fun(loss: number): number|nil
---@param body fun(generator: syz.Generator, update: fun(loss: number): number|nil): table
---@return table stats
function M.guard(experiment, step, generator, update, body)
  if experiment.fits or not device.is_gpu() or (experiment.memory or "auto") ~= "auto" then
    return body(generator, update)
  end
  local changed, stats, state = false, nil, generator:state()
  local ok, raised = pcall(core.scope, function()
    stats = body(generator, function(...)
      changed = true
      return update(...)
    end)
  end)
  experiment.fits = true
  if ok then return stats end
  if changed or not M.is_full(raised) then error(raised, 0) end
  progress.note(('step %d: %s; memory = "auto" repeats it with checkpointing in all models'):format(step,
    (message.of(raised):gsub("; what helps.*$", ""))), "yellow")
  set_all(passes(experiment.method), true)
  experiment.optimizer:zero_grad()
  collectgarbage()
  core.memory_trim()
  return body(generator:set_state(state), update)
end

--- Put everything an experiment uses where it runs, in the type that it has there.
---@param experiment table
function M.place(experiment)
  local where = experiment.device and device.use(experiment.device) or device.current()
  local method, eval = experiment.method, experiment.eval or {}
  local transformer = method.modules.transformer
  local was = transformer and type(transformer) == "userdata" and transformer:parameters()[1]:dtype()
  device.move_all({ method.pipeline, method.reward, method.frozen }, where, experiment.precision)
  device.move_all(method.modules, where)
  device.move_all({ eval.pipeline, eval.reward, eval.judge }, where)
  device.move_all(eval.rewards or {}, where)
  loop.trainable(method.modules)
  -- an f32 model stays one in its files: what is saved are the masters
  if was == "f32" and loop.dtype(transformer) == "bf16" then experiment.save = experiment.save or "f32" end
end

return M
