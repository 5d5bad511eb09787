--- A run's folder: everything that is written while an experiment executes.
--
--   recipe.lua config.yaml env.json run.json   what ran, where, and how it ended
--   metrics.jsonl ledger.jsonl events.out.*    one object per step; the ledger holds what happened inside a step
--   samples/ checkpoints/ summary.json report.html
--
-- `syz run FOLDER/recipe.lua --config FOLDER/config.yaml` repeats the run.

local core = require "syz.core"
local checkpoint = require "syz.checkpoint"
local disk = require "syz.disk"
local events = require "syz.events"
local files = require "syz.files"
local identity = require "syz.identity"
local images = require "syz.images"
local message = require "syz.message"
local options = require "syz.options"
local progress = require "syz.progress"
local run_folder = require "syz.run_folder"
local text = require "syz.text"

local file = core.file

---@class syz.Run
---@field folder string
---@field resumed { folder: string, step: integer }|nil   the checkpoint a resumed run starts from
---@field keep integer   how many checkpoints stay
local Run = {}
Run.__index = Run

local run = { class = Run, record = run_folder.record, fits = run_folder.fits }

-- JSON has no nan and no infinity; what was not finite is null.
local function finite(value)
  if type(value) == "number" and value - value ~= 0 then return core.null end
  if type(value) ~= "table" then return value end
  local out = {}
  for k, v in pairs(value) do out[k] = finite(v) end
  return #value > 0 and core.array(out) or out
end

--- The newest run of a recipe below `root`.
---@param name string   the recipe's name
---@param root string|nil
---@return string|nil folder
function run.newest(name, root)
  root = root or "runs"
  if file.exists(root) ~= "folder" then return nil end
  local best, latest
  for _, entry in ipairs(file.list(root)) do
    local record = run.record(root .. "/" .. entry)
    if record and record.name == name and (not latest or (record.started or 0) >= latest) then
      best, latest = root .. "/" .. entry, record.started or 0
    end
  end
  return best
end

-- Back to the newest checkpoint that can be read. When there are some and none can, nothing is touched.
function Run:rewind()
  local path, step = self:latest()
  local lost = #checkpoint.list(self.folder)
  if not path and lost > 0 then
    return nil, ("%s: none of its %d checkpoints can be read back; the folder is left as it is"):format(self.folder,
      lost)
  end
  checkpoint.clean(self.folder)
  if path then self.resumed = { folder = path, step = step } end
  -- without a checkpoint the run starts anew, before step 0 was logged
  local last = step or -1
  run_folder.truncate_lines(self.folder .. "/metrics.jsonl", last)
  run_folder.truncate_lines(self.folder .. "/ledger.jsonl", last)
  events.truncate(self.folder, last)
  return true
end

-- What has changed since the run began: a reason to refuse, or nothing after having said what should be known.
function Run:compare(opts)
  local before = files.read_json(self.folder .. "/env.json") or {}
  local refused, changed = identity.compare(before.inputs, opts.recipe.inputs or {})
  if refused then return refused .. "; restore it, or start a new run with another --out" end
  for _, line in ipairs(changed) do self:warn(line) end
  if before.recipe_sha256 and before.recipe_sha256 ~= core.sha256(opts.recipe.source) then
    local kept = ("recipe-before-%s.lua"):format(before.recipe_sha256:sub(1, 8))
    local old = file.read(self.folder .. "/recipe.lua")
    if old then file.write(self.folder .. "/" .. kept, old) end
    self:warn(("the recipe has changed since the run began; the run goes on with the new one, the old one is %s")
      :format(kept))
  end
end

---@class syz.RunOptions
---@field recipe syz.Recipe
---@field out string|nil          the folder; default runs/<recipe>-<date>-<time>
---@field root string|nil         where default folders go
---@field resume boolean|nil      go on in `out`, which holds a run
---@field keep integer|nil        checkpoints to keep (2)
---@field command string|nil      as it was typed
---@field detailed boolean|nil    the ledger also holds gradient norms and every sample's numbers

function Run:open_logs()
  local function warn(line) self:warn(line) end
  self.metrics = disk.log(self.folder .. "/metrics.jsonl", warn)
  self.rows = disk.log(self.folder .. "/ledger.jsonl", warn)
  self:attempt("events", function() self.events = core.tfevents(self.folder) end)
end

--- Open a run's folder.
---@param opts syz.RunOptions
---@return syz.Run|nil
---@return string|nil reason
function run.open(opts)
  local folder = run_folder.fresh(opts)
  local fits, reason = run_folder.fits(folder, opts.resume)
  if not fits then return nil, reason end
  local record = run.record(folder)
  local self = setmetatable({ folder = folder, keep = opts.keep or 2, started = core.clock() }, Run)
  self.recipe = opts.recipe
  self.state = record or { name = opts.recipe.name, recipe = opts.recipe.path, started = core.unix_time() }
  if opts.resume then
    reason = self:compare(opts)
    if reason then return nil, reason end
    local ok
    ok, reason = self:rewind()
    if not ok then return nil, reason end
  end
  file.mkdir(folder)
  self.state.status, self.state.reason = "running", nil
  self.state.detailed = opts.detailed or self.state.detailed -- a resumed run keeps the ledger it began
  self.detailed = self.state.detailed
  self.state.resumed_at = self.resumed and self.resumed.step or nil
  files.write_json(folder .. "/run.json", self.state)
  file.mkdir(folder .. "/samples")
  file.mkdir(folder .. "/checkpoints")
  run_folder.keep_recipe(folder, opts.recipe)
  file.write(folder .. "/config.yaml", options.to_yaml(opts.recipe.declared, opts.recipe.values))
  files.write_json(folder .. "/env.json", run_folder.environment(opts))
  self:open_logs()
  return self
end

--- Do something that a run can live without: a disk that is full or fails is said, once for each thing.
---@param what string
---@param write fun()
---@return boolean ok
function Run:attempt(what, write)
  local ok, raised = pcall(write)
  if ok then return true end
  if not disk.is_error(raised) then error(raised, 0) end
  self.failed = self.failed or {}
  if not self.failed[what] then self:warn(("%s: the run goes on without"):format(message.of(raised))) end
  self.failed[what] = true
  return false
end

--- Do what must not be lost, such as saving the result: a full disk is waited for.
---@param what string   how a message calls it
---@param write fun()
function Run:insist(what, write) disk.insist(self, what, write) end

--- Record what was measured at a step: a line of metrics.jsonl, TensorBoard scalars, a line with --json.
---@param step integer
---@param fields table<string, any>
function Run:log(step, fields)
  local object = finite(fields)
  object.step = step
  self.metrics:add(core.json.encode(object) .. "\n")
  self:attempt("events", function()
    for name, value in pairs(fields) do
      if type(value) == "number" and name ~= "step" and self.events then self.events:scalar(name, step, value) end
    end
  end)
  self.state.step = step
  progress.object(object)
end

--- Where metrics.jsonl ends now, for back_to().
---@return integer
function Run:mark()
  return file.stat(self.folder .. "/metrics.jsonl") or 0
end

--- Take back the lines that were logged after a mark.
---@param mark integer
function Run:back_to(mark)
  local path = self.folder .. "/metrics.jsonl"
  if self:mark() > mark then file.write(path, assert(file.read(path, 2 ^ 40)):sub(1, mark)) end
end

--- Record what happened inside a step: one line of ledger.jsonl per row, each with its "step".
---@param step integer
---@param rows table[]|nil
function Run:ledger(step, rows)
  local lines = {}
  for i, row in ipairs(rows or {}) do
    local object = finite(row)
    object.step = step
    lines[i] = core.json.encode(object) .. "\n"
  end
  if #lines > 0 then self.rows:add(table.concat(lines)) end
end

--- Save a batch of images as samples/<name>.png, a grid.
---@param step integer
---@param batch syz.Tensor     [N,H,W,3] in [0,1]
---@param name string|nil      default step-000010
---@param columns integer|nil  near a square unless given
---@return string path
function Run:sample(step, batch, name, columns)
  name = name or checkpoint.name(step)
  local picture, layout = images.grid(batch, columns)
  local path = ("%s/samples/%s.png"):format(self.folder, name)
  self:attempt("samples", function()
    core.image.write(path, picture)
    local index = files.read_json(self.folder .. "/samples/layout.json") or {}
    layout.step = step
    index[name] = layout
    files.write_json(self.folder .. "/samples/layout.json", index)
  end)
  self:attempt("events", function()
    if self.events then self.events:image("samples", step, picture) end
  end)
  return path
end

--- Save the texts under the sampled images; the report prints them as captions.
---@param prompts string[]
function Run:prompts(prompts)
  self:attempt("samples", function()
    files.write_json(self.folder .. "/samples/prompts.json", core.array(prompts))
  end)
end

--- Save a checkpoint. A full disk costs this one only: the run goes on and tries again at the next.
---@param step integer
---@param write fun(folder: string)      fills the folder it is given
---@param opts { best: boolean|nil }|nil  best: keep this one whatever comes later
---@return string|nil path
---@return string|nil reason
function Run:checkpoint(step, write, opts)
  local path, reason = checkpoint.save(self.folder, step, write, { keep = self.keep, best = opts and opts.best })
  if path then
    self.newest = { path, step }
  else
    self.state.failed_checkpoints = (self.state.failed_checkpoints or 0) + 1
    self:warn(("checkpoint of step %d not saved: %s; earlier ones are intact, the next will be tried"):format(step,
      reason))
  end
  return path, reason
end

--- The newest checkpoint that verifies.
---@return string|nil folder
---@return integer|nil step
function Run:latest()
  -- read back once: a large one takes its time, and what is damaged is said once
  self.newest = self.newest or { checkpoint.latest(self.folder, function(line) self:warn(line) end) }
  return self.newest[1], self.newest[2]
end

--- Write summary.json; called again, it adds to what is there.
---@param values table<string, any>   "metric" = { before = x, after = y }, seconds = n
function Run:summary(values)
  self.summarised = self.summarised or {}
  for name, value in pairs(values) do self.summarised[name] = value end
  self:insist("the summary", function()
    files.write_json(self.folder .. "/summary.json", finite(self.summarised))
  end)
end

--- The command that makes this run again: the recipe and what differs from its defaults.
---@return string
function Run:again()
  local parts = { "syz run", text.shell(self.recipe.path) }
  for _, set in ipairs(options.changed(self.recipe.declared, self.recipe.values)) do
    parts[#parts + 1] = "--set " .. text.shell(set)
  end
  if self.state.device and self.state.device ~= "cpu" then parts[#parts + 1] = "--device " .. self.state.device end
  return table.concat(parts, " ")
end

--- What the command line prints when the run is finished, in place of before and after.
---@param shown string
function Run:show(shown)
  self.shown = shown
end

--- Why the run should save and stop now, if it should.
---@return "interrupted"|"terminated"|nil
function Run.stopping(_)
  if core.terminating() then return "terminated" end
  if core.interrupted() then return "interrupted" end
end

--- A line for the person watching, kept in run.json too.
---@param line string
function Run:warn(line)
  if self.state then
    self.state.warnings = core.array(self.state.warnings or {})
    table.insert(self.state.warnings, line)
  end
  progress.note("warning: " .. line, "yellow")
end

--- Close the folder.
---@param status "finished"|"interrupted"|"terminated"|"failed"
---@param reason string|nil   of a failure
function Run:close(status, reason)
  self.metrics:close()
  self.rows:close()
  self:attempt("events", function()
    if self.events then self.events:close() end
  end)
  self.state.status, self.state.reason = status, reason
  self.state.seconds = (self.state.seconds or 0) + core.clock() - self.started
  self:attempt("run.json", function() files.write_json(self.folder .. "/run.json", self.state) end)
end

return run
