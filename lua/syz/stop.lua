--- When a training stops, and which of its models it keeps: decided from evaluations on fixed prompts and seeds alone.
--
--   keep_best  a metric, or a function of the metrics; the evaluation where it is highest is the model that is kept
--   guard      { metric = limit }: stop as soon as a metric has moved from its value before training by more than the
--              limit; negative limits bound a fall, positive ones a rise, "-15%" is relative to the value before
--   watch      held-out metrics. One has turned when it lies below its best by more than the noise while the optimised
--              metric lies above its own value at that best: the reward rises, and what it stands for falls
--   patience   evaluations in a row for which a metric must have turned before training stops
--   noise      what a difference must exceed: a number, or { metric = number }. Not given: twice the standard error of
--              the difference over the prompts, which are the same in every evaluation
--
-- An evaluation at which a guard is broken or a watched metric has turned is never the one that is kept. What the rule
-- remembers is plain data and travels in every checkpoint, so that a resumed run decides as an uninterrupted one.
local evaluation = require "syz.eval"
local fields = require "syz.fields"
local nearest = require "syz.nearest"
local text = require "syz.text"

local M = {}

---@class syz.StopRule
local Rule = {}
Rule.__index = Rule

local PATIENCE, DEVIATIONS = 3, 2

local KINDS = {
  keep_best = "string or function or boolean", guard = "table", watch = "table", optimised = "string",
  patience = "number", noise = "number or table",
}

local function contains(list, item)
  for _, candidate in ipairs(list) do
    if candidate == item then return true end
  end
  return false
end

local function finite(value)
  return type(value) == "number" and value - value == 0
end

-- { amount = -0.05, relative = false } from -0.05, or from "-5%".
local function read_limit(name, value, level)
  local percent = type(value) == "string" and value:match("^%s*([+-]?[%d.]+)%s*%%%s*$")
  local amount = percent and tonumber(percent) or value
  if not finite(amount) or amount == 0 then
    error(('stop.guard.%s must be a number other than 0 (-0.05: may fall by so much; 0.1: may rise) or "-15%%", not %s')
      :format(name, tostring(value)), level)
  end
  return { amount = percent and amount / 100 or amount, relative = percent and true or false,
           shown = percent and ("%g%%"):format(math.abs(amount)) or ("%g"):format(math.abs(amount)) }
end

--- Check a recipe's `stop` against the metrics its evaluation has.
---@param spec table
---@param names string[]     metrics of the evaluation
---@param held_out string[]  which of them are watched unless `watch` names others
---@param level integer|nil  whose line an error names, as in error()
---@return syz.StopRule
function M.new(spec, names, held_out, level)
  level = (level or 1) + 1
  for key, value in pairs(spec) do
    if not KINDS[key] then
      error(("stop has no field %q%s"):format(tostring(key), nearest.hint(tostring(key), fields.names(KINDS))), level)
    end
    if not KINDS[key]:find(type(value), 1, true) then
      error(("stop.%s must be a %s, not a %s"):format(key, KINDS[key], type(value)), level)
    end
  end
  local function metric(name, where)
    if not contains(names, name) then
      error(("%s: the evaluation has no metric %q%s"):format(where, tostring(name),
        nearest.hint(tostring(name), names)), level + 1)
    end
    return name
  end
  local self = setmetatable({ peaks = {} }, Rule)
  local usual = contains(names, "sgp") and "sgp" or contains(names, "reward") and "reward" or nil
  self.optimised = spec.optimised and metric(spec.optimised, "stop.optimised") or usual
  self.keep = spec.keep_best
  if self.keep == nil or self.keep == true then self.keep = self.optimised end
  if type(self.keep) == "string" then metric(self.keep, "stop.keep_best") end
  self.guard = {}
  for name, limit in pairs(spec.guard or {}) do
    self.guard[metric(name, "stop.guard")] = read_limit(name, limit, level + 1)
  end
  self.watch = {}
  for i, name in ipairs(spec.watch or held_out) do
    if name == self.optimised then
      error(("stop.watch: %q is the optimised metric; watch one that is held out"):format(name), level)
    end
    self.watch[i] = metric(name, "stop.watch")
  end
  if spec.patience and #self.watch == 0 then
    error("stop.patience has nothing to watch: give eval `rewards` or a `judge`, or name metrics in stop.watch", level)
  end
  if #self.watch > 0 and not self.optimised then
    error("stop.optimised must name the metric that training raises", level)
  end
  self.patience = spec.patience or PATIENCE
  if self.patience < 1 or self.patience % 1 ~= 0 then error("stop.patience must be a whole number from 1", level) end
  if type(spec.noise) == "table" then
    for name in pairs(spec.noise) do metric(name, "stop.noise") end
  end
  self.noise = spec.noise
  return self
end

--- What is to be maximised, and its name.
function Rule:score(values)
  if type(self.keep) == "string" then return values[self.keep], self.keep end
  local score = self.keep(values)
  if type(score) ~= "number" then
    error(("stop.keep_best must return a number, not %s"):format(tostring(score)), 0)
  end
  return score, "keep_best"
end

--- The evaluation before training.
---@param values table<string, number>
---@param each table<string, number[]>|nil  the values that the metrics are means of
function Rule:start(values, each)
  local used = { self.keep and type(self.keep) == "string" and self.keep or nil }
  for _, name in ipairs(self.watch) do used[#used + 1] = name end
  for name in pairs(self.guard) do used[#used + 1] = name end
  for _, name in ipairs(used) do
    if not finite(values[name]) then
      error(("stop: the evaluation before training has no finite %s%s"):format(name, name == "judge_subject_accuracy"
        and "; the judge knows none of the prompts (eval.subjects maps a prompt to the judge's name)" or ""), 0)
    end
  end
  self.before = values
  for _, name in ipairs(self.watch) do self:new_peak(name, 0, values, each or {}) end
  if not self.keep then return end
  local score = self:score(values)
  if finite(score) then self.best = { step = 0, value = score } end
end

function Rule:new_peak(name, step, values, each)
  local optimised = values[self.optimised]
  self.peaks[name] = { step = step, value = values[name], optimised = finite(optimised) and optimised or -1e300,
                       each = each[name], turned = 0 }
end

local function floor_of(self, name, peak, each)
  if type(self.noise) == "number" then return self.noise end
  if self.noise and self.noise[name] then return self.noise[name] end
  return DEVIATIONS * (evaluation.standard_error(peak.each, each[name]) or 0)
end

local function allowed(limit, before)
  return limit.relative and limit.amount * math.abs(before) or limit.amount
end

-- Whether a metric has moved further than its guard allows; the sentence that says so.
local function broken(name, limit, before, now)
  if not finite(now) then return name .. " is not a finite number" end
  local bound = allowed(limit, before)
  local change, slack = now - before, 1e-9 * math.max(1, math.abs(before))
  local within = limit.amount < 0 and change >= bound - slack or limit.amount > 0 and change <= bound + slack
  if within then return nil end
  return ("%s %s from %s to %s, by more than the guard's %s"):format(name, limit.amount < 0 and "fell" or "rose",
    text.number(before), text.number(now), limit.shown)
end

--- The values that guarded metrics must not pass, or nil without guards.
---@return table<string, number>|nil
function Rule:limits()
  local limits
  for name, limit in pairs(self.guard) do
    limits = limits or {}
    limits[name] = self.before[name] + allowed(limit, self.before[name])
  end
  return limits
end

-- Which guards are broken: a sentence per metric.
function Rule:check_guards(values)
  local reasons = {}
  for name, limit in pairs(self.guard) do
    reasons[name] = broken(name, limit, self.before[name], values[name])
  end
  return reasons
end

local function turn_of(self, name, peak, optimised)
  return ("%s lay below its best, %s at step %d, in %d evaluations while %s rose from %s to %s"):format(name,
    text.number(peak.value), peak.step, peak.turned, self.optimised, text.number(peak.optimised),
    text.number(optimised))
end

-- Bring the watched metrics up to date: whether any has turned; a sentence goes into `reasons` for each that has for
-- long enough.
function Rule:check_watched(step, values, each, reasons)
  local turned = false
  for _, name in ipairs(self.watch) do
    local peak, now, optimised = self.peaks[name], values[name], values[self.optimised]
    if finite(now) and now > peak.value then
      self:new_peak(name, step, values, each)
    else
      local below = not finite(now) or peak.value - now > floor_of(self, name, peak, each)
      local rising = finite(optimised) and optimised > peak.optimised
      peak.turned = below and rising and peak.turned + 1 or 0
      turned = turned or peak.turned > 0
      if peak.turned >= self.patience then reasons[name] = reasons[name] or turn_of(self, name, peak, optimised) end
    end
  end
  return turned
end

--- An evaluation during or at the end of training.
---@param step integer
---@param values table<string, number>
---@param each table<string, number[]>|nil
---@return boolean best        keep this step's model: it is the best so far
---@return string|nil reason   stop now, and why
function Rule:observe(step, values, each)
  local reasons, best = self:check_guards(values), false
  local safe = next(reasons) == nil
  local turned = self:check_watched(step, values, each or {}, reasons)
  if self.keep and safe and not turned then
    local score = self:score(values)
    best = finite(score) and (not self.best or score > self.best.value)
    if best then self.best = { step = step, value = score } end
  end
  if next(reasons) == nil then return best end
  local sentences = {}
  for i, name in ipairs(fields.names(reasons)) do sentences[i] = reasons[name] end
  self.stopped = { step = step, reason = table.concat(sentences, "; "), reasons = reasons }
  return best, self.stopped.reason
end

--- What a checkpoint must hold.
---@return table
function Rule:state()
  return { before = self.before, peaks = self.peaks, best = self.best, stopped = self.stopped,
           keep = type(self.keep) == "string" and self.keep or "function" }
end

--- Go on from a checkpoint. Where the recipe's `stop` has changed since, what is new starts from the values before.
---@param state table
function Rule:load(state)
  self.before, self.stopped = state.before, state.stopped
  self.best = state.keep == (type(self.keep) == "string" and self.keep or "function") and state.best or nil
  for _, name in ipairs(self.watch) do
    self.peaks[name] = state.peaks[name]
    if not self.peaks[name] then self:new_peak(name, 0, self.before, {}) end
  end
end

return M
