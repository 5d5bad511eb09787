--- The training loop that pretraining and alignment share: scopes, updates, checkpoints, exact resume, NaN guard.
--
-- Every random number of step i comes from core.generator(seed, i), so that the state of a run is its weights, its
-- optimizer and its step count: a resumed run draws what the uninterrupted one would have drawn.
local average = require "syz.average"
local core = require "syz.core"
local device = require "syz.device"
local files = require "syz.files"
local progress = require "syz.progress"
local text = require "syz.text"

local M = {}

local MAX_BAD_STEPS = 5

local function swap_back(spec, ...)
  spec.average:swap()
  return ...
end

-- What pcall(f) returns, called while the parameters hold their average, where there is one.
local function averaged(spec, f)
  if not spec.average then return pcall(f) end
  spec.average:swap()
  return swap_back(spec, pcall(f))
end

-- `pending`: what follows the step (an evaluation, as a rule) was not done; a resumed run begins with it.
local function save_state(folder, spec, step, extra, pending)
  if spec.average then spec.average:save(folder) end
  local ok, raised = averaged(spec, function()
    for name, module in pairs(spec.modules) do module:save(folder .. "/" .. name, M.dtype(module)) end
  end)
  if not ok then error(raised, 0) end
  local tensors, count = spec.optimizer:state()
  core.safetensors.write(folder .. "/optimizer.safetensors", tensors, { count = tostring(count) })
  core.file.write(folder .. "/state.json", core.json.encode({ step = step, updates = count, extra = extra,
    pending = pending }, true))
end

--- Give modules the weights that a checkpoint holds.
---@param folder string  a checkpoint's, or any with one folder of weights per module
---@param modules table<string, table>
function M.restore(folder, modules)
  for name, module in pairs(modules) do
    local path = folder .. "/" .. name
    if type(module) == "table" then
      module:restore(path)
    else
      local saved = device.on_cpu(core.model.load_stored, path)
      for _, key in ipairs(module:names()) do
        local value = saved:param(key)
        if not value then error(("%s lacks %s: the checkpoint is of another model"):format(path, key), 0) end
        module:param(key):assign(value)
      end
    end
  end
end

--- What a module's parameters are while it is trained: "f32", or "bf16" for a network that was told so.
---@param module table
function M.dtype(module)
  return type(module) == "table" and "f32" or module:trained_dtype() -- Lua's own modules are f32 from the start
end

-- Weights that were loaded as they are stored, and what f32 takes instead.
local function announce(name, module)
  local count = 0
  for _, parameter in ipairs(module:parameters()) do
    if parameter:dtype() ~= "f32" then count = count + parameter:numel() end
  end
  if count > 0 then
    progress.note(("%s: %s parameters become f32 to be trained and take %s; gradients and AdamW take three times that "
      .. "besides"):format(name, text.count(count), text.bytes(4 * count)), "yellow")
  end
end

--- Give modules values of their own in place of those that lie in a file as they are stored: f32, unless to_bf16() was
--- called on them.
---@param modules table<string, table>
function M.own_values(modules)
  for name, module in pairs(modules) do
    if type(module) ~= "table" and M.dtype(module) == "f32" then
      announce(name, module)
      module:to_f32()
    end
  end
end

--- Make modules ready to be trained: their parameters are their own and collect gradients.
---@param modules table<string, table>
function M.trainable(modules)
  M.own_values(modules)
  for _, module in pairs(modules) do module:requires_grad(true) end
end

--- What a checkpoint's state.json says: { step, updates, extra = what the experiment added }.
---@param folder string
function M.state(folder)
  return files.need_json(folder .. "/state.json")
end

local function load_optimizer(folder, optimizer, updates)
  core.scope(function()
    optimizer:load_state(core.safetensors.read(folder .. "/optimizer.safetensors"), updates)
  end)
end

-- What training goes on with: the average, if there is one, starts at the model that the checkpoint holds.
local function load_state(folder, spec, parameters)
  M.restore(folder, spec.modules)
  if spec.ema then spec.average = average.new(parameters, spec.ema, spec.optimizer.adamw) end
  average.restore(folder, parameters, spec.average)
  local state = M.state(folder)
  load_optimizer(folder, spec.optimizer, state.updates)
  return state.step, state.extra, state.pending
end

--- Give modules the weights of a checkpoint, and bf16 ones the f32 values behind them, for Optimizer:to_f32().
---@param folder string
---@param modules table<string, table>
---@param optimizer syz.Optimizer   bound to their parameters
function M.restore_masters(folder, modules, optimizer)
  M.restore(folder, modules)
  load_optimizer(folder, optimizer, M.state(folder).updates)
  average.restore_masters(folder, optimizer.adamw)
end

-- What follows a step. It may take minutes, so unlike a step it is broken off when the run is asked to stop; what it
-- logged is taken back. Returns what `after` returned, or nothing and the reason to leave.
local function follow(run, spec, step, stats)
  if not spec.after then return end
  local leaving = run:stopping()
  if leaving then return nil, nil, leaving end
  local mark = run:mark()
  local ok, stop, best = averaged(spec, function()
    core.defer_interrupt(false)
    return spec.after(step, stats)
  end)
  core.defer_interrupt(true)
  if ok then return stop, best end
  leaving = core.terminating() and "terminated" or stop == "interrupted" and "interrupted"
  if not leaving then error(stop, 0) end
  run:back_to(mark)
  return nil, nil, leaving
end

local function describe(stats)
  local parts = {}
  for _, key in ipairs { "loss", "reward" } do
    if stats[key] then parts[#parts + 1] = ("%s %.4f"):format(key, stats[key]) end
  end
  return table.concat(parts, "  ")
end

--- Clip and apply what has been accumulated. A loss or a gradient that is not finite changes nothing; `bad` is how many
--- steps in a row had one. Returns the gradient norm, the learning rate, and whether the update was made.
local function apply(spec, step, run, loss, bad)
  if type(loss) ~= "number" then
    error(("%s: a step returns a table of numbers with `loss` among them; its loss is a %s"):format(
      spec.label or "train", type(loss)), 0)
  end
  local norm, rate, what
  if loss ~= loss or math.abs(loss) == math.huge then
    spec.optimizer:zero_grad()
    what = "loss"
  else
    local finite
    norm, rate, finite = spec.optimizer:update(step, spec.steps)
    what = not finite and "gradient" or nil
    if finite and spec.average then spec.average:update(spec.optimizer.adamw:count()) end
  end
  if what then
    run:warn(("step %d: the %s is not finite; the update was skipped (%d in a row)"):format(step, what, bad + 1))
  end
  return norm, rate, what == nil
end

local function one_step(spec, step, run, bad)
  local stats = core.scope(function()
    return spec.step(step, core.generator(spec.seed, step), function(loss) return apply(spec, step, run, loss, bad) end)
  end)
  if type(stats) ~= "table" then stats = {} end -- apply() says what is missing
  local norm, rate, finite = apply(spec, step, run, stats.loss, bad)
  stats.grad_norm, stats.lr = norm, rate
  bad = finite and 0 or bad + 1
  if bad >= MAX_BAD_STEPS then
    error(("%d steps in a row had no finite loss or gradient: lower the learning rate, or look at the ledger; "
      .. "the last checkpoint is intact"):format(bad), 0)
  end
  return stats, bad
end

--- Run the loop. `precision` is that of matrix products and convolutions, "f32" unless given; where the processor has
--- no bf16 products, "bf16" means f32 too.
---@param run table      the run folder (syz.run)
---@param spec { steps: integer, seed: integer, modules: table<string, table>, optimizer: syz.Optimizer,
---  step: fun(step: integer, generator: syz.Generator, update: fun(loss: number): number|nil): table,
---  checkpoint_every: integer|nil, label: string|nil, precision: "f32"|"bf16"|nil, log_every: integer|nil,
---  open_ended: boolean|nil, checkpoint_start: boolean|nil,
---  after: nil|fun(step: integer, stats: table): boolean|nil, boolean|nil,
---  state: nil|fun(): table, load_state: nil|fun(extra: table), ema: number|table|nil }
---  `ema` averages what is trained (lua/syz/average.lua): `after`, checkpoints and the end of the run see the average
---  `step` runs the backward pass itself and returns a table of numbers with `loss`; `after` may return true to stop,
---  and a second true to pin this step's checkpoint; `checkpoint_start` pins one of the state before the first step.
---  `update` applies what `step` has accumulated so far, for methods that make several updates of one rollout; the last
---  update is always the loop's. Checkpoints lie between steps, so that resuming stays exact.
---@return integer  the last step done
function M.run(run, spec)
  core.precision(spec.precision or "f32")
  local parameters = {}
  for _, name in ipairs(spec.order or { (next(spec.modules)) }) do
    for _, parameter in ipairs(spec.modules[name]:parameters()) do
      parameters[#parameters + 1] = parameter
    end
  end
  spec.optimizer:bind(parameters)
  local first, folder, pending = 1, run:latest(), nil
  if folder then
    local done, extra
    done, extra, pending = load_state(folder, spec, parameters)
    if spec.load_state then spec.load_state(extra) end
    first = done + 1
    spec.resumed = true
  elseif spec.ema then
    spec.average = average.new(parameters, spec.ema, spec.optimizer.adamw)
  end
  local function checkpoint(step, best, state, unfollowed)
    state = state or spec.state and spec.state()
    run:checkpoint(step, function(path) save_state(path, spec, step, state, unfollowed) end, { best = best })
  end
  if not folder and spec.checkpoint_start then checkpoint(0, true) end
  local bar = progress.new(not spec.open_ended and spec.steps or nil, spec.label or "train")
  core.defer_interrupt(true) -- Ctrl-C finishes the step and saves; whoever catches what is raised ends the deferral
  -- what comes after a step: an evaluation, a checkpoint, the end
  local function conclude(step, stats, due)
    local state = spec.state and core.json.decode(core.json.encode(spec.state()))
    local stop, best, leaving = follow(run, spec, step, stats)
    local unfollowed = leaving ~= nil or nil
    leaving = leaving or run:stopping()
    if stop or best or leaving or due then checkpoint(step, best, unfollowed and state, unfollowed) end
    if leaving then
      bar:done()
      error({ resumable = true, status = leaving, step = step }, 0)
    end
    return stop
  end
  local bad, last = 0, first - 1
  local stop = pending and conclude(last, {}, true)
  for step = first, stop and 0 or spec.steps do
    local stats
    stats, bad = one_step(spec, step, run, bad)
    last = step
    if step % (spec.log_every or 1) == 0 or step == spec.steps then run:log(step, stats) end
    bar:update(step, describe(stats))
    local due = step == spec.steps or spec.checkpoint_every and step % spec.checkpoint_every == 0
    if conclude(step, stats, due) then break end
  end
  bar:done()
  if spec.average then spec.average:swap() end -- for good: the average is what was trained
  core.defer_interrupt(false)
  return last
end

return M
