--- An exponential moving average of what a training moves: shadow = decay * shadow + (1 - decay) * parameter. The
--- average is what is evaluated, kept and saved; training goes on with the parameters themselves.
--
-- A checkpoint's folders of weights hold the average, so that whoever reads them reads the model; the parameters that
-- training goes on with lie beside them in unaveraged.safetensors, and for bf16 parameters the average in f32 too.
--
-- With `ramp` the first decays are smaller, u / (9 + u) at update u, so that the average leaves its start sooner: what
-- Flow-GRPO's code does, with decay .9 at every 8th update.
local core = require "syz.core"

local M = {}

---@class syz.Average
local Average = {}
Average.__index = Average

local FILE = "/unaveraged.safetensors"

--- A recipe's `ema`: a decay, or { decay = 0.9, every = 8, ramp = true }: the average moves at every 8th update.
---@param ema number|table
---@param owner string        for messages
---@param level integer|nil   whose line an error names, as in error()
---@return number decay, integer every, boolean ramp
function M.read(ema, owner, level)
  local given = type(ema) == "table" and ema or { decay = ema }
  level = (level or 1) + 1
  for key in pairs(given) do
    if key ~= "decay" and key ~= "every" and key ~= "ramp" then
      error(("%s: ema has no field %q; it is a decay, or { decay = 0.9, every = 8, ramp = true }"):format(owner,
        tostring(key)), level)
    end
  end
  local decay, every = given.decay, given.every or 1
  if type(decay) ~= "number" or not (decay >= 0 and decay < 1) then
    error(("%s: ema must be a decay from 0 and below 1, not %s"):format(owner, tostring(decay)), level)
  end
  if type(every) ~= "number" or every < 1 or every % 1 ~= 0 then
    error(("%s: ema.every must be a whole number from 1, not %s"):format(owner, tostring(every)), level)
  end
  return decay, every, given.ramp == true
end

--- An average that starts at the parameters as they are.
---@param parameters syz.Tensor[]
---@param ema number|table
---@param adamw table|nil   core.adamw of the parameters: where they are bf16, it holds the rest of them
---@return syz.Average
function M.new(parameters, ema, adamw)
  local decay, every, ramp = M.read(ema, "loop")
  return setmetatable({ parameters = parameters, ema = core.ema(adamw or parameters, decay), decay = decay,
                        every = every, ramp = ramp }, Average)
end

--- Follow the parameters.
---@param updates integer  how many the optimizer has made
function Average:update(updates)
  if updates % self.every ~= 0 then return end
  self.ema:update(self.ramp and math.min(self.decay, updates / (9 + updates)) or self.decay)
end

--- Give the parameters the values of the average; again: give them theirs back.
function Average:swap() self.ema:swap() end

local function name_of(i) return ("%05d"):format(i) end
local function shadow_name(i) return ("average.%05d"):format(i) end

--- Write the parameters beside a checkpoint's average.
---@param folder string
function Average:save(folder)
  local tensors, shadows = {}, self.ema:tensors()
  for i, tensor in ipairs(self.parameters) do
    tensors[name_of(i)] = tensor
    if tensor:dtype() ~= "f32" then tensors[shadow_name(i)] = shadows[i] end
  end
  core.safetensors.write(folder .. FILE, tensors, { format = "syzygy" })
end

local function read(folder)
  return core.file.exists(folder .. FILE) == "file" and core.safetensors.read(folder .. FILE) or nil
end

--- Give the parameters the values that training goes on with, where a checkpoint tells them from the model's, and the
--- average its own.
---@param folder string
---@param parameters syz.Tensor[]
---@param average syz.Average|nil
function M.restore(folder, parameters, average)
  core.scope(function()
    local tensors = read(folder)
    if not tensors then return end
    local shadows = average and average.ema:tensors()
    for i, tensor in ipairs(parameters) do
      local value, shadow = tensors[name_of(i)], tensors[shadow_name(i)]
      if not value then
        error(("%s lacks parameter %d: the checkpoint is of another model"):format(folder .. FILE, i), 0)
      end
      tensor:assign(value)
      if shadows and shadow then shadows[i]:assign(shadow) end
    end
  end)
end

--- Give bf16 parameters the f32 values of a checkpoint's average, where it has one.
---@param folder string
---@param adamw table
function M.restore_masters(folder, adamw)
  core.scope(function()
    for name, shadow in pairs(read(folder) or {}) do
      local i = name:match "^average%.(%d+)$"
      if i then adamw:set_master(tonumber(i), shadow) end
    end
  end)
end

return M
