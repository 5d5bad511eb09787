--- A pipeline's scheduler/scheduler_config.json: the grid of diffusers' FlowMatchEulerDiscreteScheduler.
--
-- Its grid is that of syz.schedule.flow with a shift s, t' = s t / (1 + (s - 1) t). With use_dynamic_shifting s depends
-- on the number of image tokens n: mu runs linearly from base_shift at base_image_seq_len to max_shift at
-- max_image_seq_len, and s = exp(mu), or mu itself when time_shift_type is "linear".

local core = require "syz.core"

local scheduler = {}

local NUMBERS = { "shift", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len" }

-- Grids of other kinds, which are refused rather than passed over.
local OTHERS = { "shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas",
                 "invert_sigmas", "stochastic_sampling" }

--- Check a configuration; an error names the file, the key and what it may be.
---@param config table
---@param path string
---@return table config
function scheduler.check(config, path)
  local function wrong(key, what) error(('%s: "%s" %s'):format(path, key, what), 0) end
  for _, key in ipairs(NUMBERS) do
    local value = config[key]
    if value ~= nil and not (type(value) == "number" and value > 0) then wrong(key, "must be a number above 0") end
  end
  for _, key in ipairs(OTHERS) do
    local value = config[key]
    if value and value ~= core.null then wrong(key, "asks for a grid that is not implemented here") end
  end
  local kind = config.time_shift_type
  if kind ~= nil and kind ~= "exponential" and kind ~= "linear" then
    wrong("time_shift_type", 'must be "exponential" or "linear"')
  end
  if config.use_dynamic_shifting and (config.base_image_seq_len or 256) == (config.max_image_seq_len or 4096) then
    wrong("max_image_seq_len", "must differ from base_image_seq_len")
  end
  return config
end

--- What FLUX.1 was published with, for folders that hold no scheduler.
---@param guidance boolean   whether the transformer embeds guidance, as FLUX.1-dev's does
---@return table
function scheduler.published(guidance)
  return { shift = guidance and 3 or 1, use_dynamic_shifting = guidance, base_shift = 0.5, max_shift = 1.15,
           base_image_seq_len = 256, max_image_seq_len = 4096 }
end

--- The shift for an image of that many tokens.
---@param config table
---@param tokens integer
---@return number
function scheduler.shift(config, tokens)
  if not config.use_dynamic_shifting then return config.shift or 1 end
  local low, high = config.base_image_seq_len or 256, config.max_image_seq_len or 4096
  local least, most = config.base_shift or 0.5, config.max_shift or 1.15
  local mu = least + (most - least) * (tokens - low) / (high - low)
  return config.time_shift_type == "linear" and mu or math.exp(mu)
end

return scheduler
