--- What there is to say about CUDA here: the lines of `syz doctor`, and why a GPU cannot be used.
local core = require "syz.core"
local text = require "syz.text"

local cuda = {}

-- The oldest that will do: Ampere, and the cuDNN whose attention takes lengths that 128 does not divide.
local OLDEST_COMPUTE, OLDEST_CUDNN = 80, 91600

local BUILD = "cmake --preset cuda && cmake --build build/cuda, with the CUDA toolkit and cuDNN"

---@class syz.CudaStatus        core.cuda_status()
---@field built boolean         whether this build has CUDA; without it there are no other fields
---@field runtime number        as CUDA numbers versions: 13000 is 13.0
---@field driver number|nil     the CUDA version that the driver serves; nil without a driver
---@field cudnn number|nil      91600 is 9.16.0
---@field nccl number|nil       22803 is 2.28.3
---@field devices { name: string, compute: number, memory: number }[]|nil   compute: 90 is sm_90; memory in bytes
---@field problem string|nil    why there is no device, as CUDA says it

--- A version of the toolkit or the driver: 13000 is "13.0".
---@param number number
---@return string
function cuda.version(number)
  return ("%d.%d"):format(number / 1000, number % 1000 / 10)
end

--- A version of cuDNN or NCCL: 91600 is "9.16.0".
---@param number number
---@return string
function cuda.library_version(number)
  return ("%d.%d.%d"):format(number / 10000, number % 10000 / 100, number % 100)
end

-- Whether the driver is for an older CUDA; within one major version any will do.
local function old_driver(status)
  return status.driver and math.floor(status.driver / 1000) < math.floor(status.runtime / 1000)
end

local function drivers(add, status)
  if not status.driver then
    add("CUDA driver", "none", "bad", "install NVIDIA's driver, and pass the GPU on to a container or virtual machine")
  elseif old_driver(status) then
    add("CUDA driver", ("for CUDA %s, this build needs %s"):format(cuda.version(status.driver),
      cuda.version(status.runtime)), "bad", "install a newer driver, or build with an older CUDA toolkit")
  else
    add("CUDA driver", ("for CUDA %s; built with %s"):format(cuda.version(status.driver), cuda.version(status.runtime)))
  end
end

local function old_cudnn(status)
  return not status.cudnn or status.cudnn < OLDEST_CUDNN
end

-- Without usable devices, and where no other line has said why.
local function no_card(add, status)
  if not status.driver or old_driver(status) or old_cudnn(status) then return end
  local problem = status.problem or "CUDA sees no device"
  local remedy = "nvidia-smi must list one, and CUDA_VISIBLE_DEVICES must not hide it"
  if problem:find("compute capability", 1, true) then
    remedy = "let CUDA_VISIBLE_DEVICES name a GPU that this build runs on; --device cpu works"
  end
  add("GPU", "none: " .. problem, "bad", remedy)
end

local function cards(add, status)
  local devices = status.devices or {}
  if #devices == 0 then no_card(add, status) end
  for i, device in ipairs(devices) do
    local name = #devices > 1 and ("GPU %d"):format(i) or "GPU"
    local value = ("%s, sm_%d, %s"):format(device.name, device.compute, text.bytes(device.memory))
    if device.compute < OLDEST_COMPUTE then
      add(name, value, "bad", ("too old: sm_%d (Ampere) or newer is needed; --device cpu works"):format(OLDEST_COMPUTE))
    else
      add(name, value)
    end
  end
end

local function libraries(add, status)
  if not status.cudnn then
    add("cuDNN", "not found", "bad", ("install cuDNN %s or newer"):format(cuda.library_version(OLDEST_CUDNN)))
  elseif old_cudnn(status) then
    add("cuDNN", cuda.library_version(status.cudnn), "bad",
      ("too old: attention needs %s or newer"):format(cuda.library_version(OLDEST_CUDNN)))
  else
    add("cuDNN", cuda.library_version(status.cudnn))
  end
  if status.nccl then
    add("NCCL", cuda.library_version(status.nccl))
  else
    add("NCCL", "not found", "note", "only training on several GPUs needs it; build again after installing it")
  end
end

--- Lines about CUDA, each with a remedy where something is missing.
---@param status syz.CudaStatus|nil   core.cuda_status() unless given
---@return syz.Finding[]
function cuda.findings(status)
  status = status or core.cuda_status()
  local list = {}
  local function add(name, value, state, remedy)
    list[#list + 1] = { name = name, value = value, state = state or "good", remedy = remedy }
  end
  if not status.built then
    add("GPU", "none: this is a build without CUDA", "note", BUILD)
    return list
  end
  drivers(add, status)
  cards(add, status)
  libraries(add, status)
  return list
end

--- Why no GPU can be used, in one line with its remedy; nil when one can.
---@param status syz.CudaStatus|nil   core.cuda_status() unless given
---@return string|nil
function cuda.obstacle(status)
  status = status or core.cuda_status()
  for _, finding in ipairs(cuda.findings(status)) do
    if finding.state == "bad" or not status.built then
      return ("%s: %s; %s"):format(finding.name, finding.value, finding.remedy)
    end
  end
end

return cuda
