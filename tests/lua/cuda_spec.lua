-- What `syz doctor` says of CUDA, for machines that are not this one.

local core = require "syz.core"
local cuda = require "syz.cuda"

local GIB = 2 ^ 30

-- A machine where nothing is missing, with some fields changed; `nothing` takes one away.
local nothing = {}
local function status(changes)
  local made = { built = true, driver = 13000, runtime = 13000, cudnn = 92400, nccl = 22803,
    devices = { { name = "NVIDIA H200", compute = 90, memory = 140 * GIB } } }
  for key, value in pairs(changes or {}) do
    if value == nothing then made[key] = nil else made[key] = value end
  end
  return made
end

-- The one line about `name`.
local function line(name, changes)
  local found
  for _, finding in ipairs(cuda.findings(status(changes))) do
    if finding.name == name then
      assert.is_nil(found)
      found = finding
    end
  end
  return assert(found, "no line about " .. name)
end

local function says(name, changes, state, value, remedy)
  local found = line(name, changes)
  assert.equal(state, found.state)
  assert.equal(value, found.value)
  if remedy then
    assert.matches(remedy, found.remedy, 1, true)
  else
    assert.is_nil(found.remedy)
  end
end

describe("what is said of CUDA", function()
  it("where nothing is missing", function()
    says("CUDA driver", nil, "good", "for CUDA 13.0; built with 13.0")
    says("GPU", nil, "good", "NVIDIA H200, sm_90, 140.0 GiB")
    says("cuDNN", nil, "good", "9.24.0")
    says("NCCL", nil, "good", "2.28.3")
    assert.equal(4, #cuda.findings(status()))
    assert.is_nil(cuda.obstacle(status()))
  end)

  it("in a build without it", function()
    local found = cuda.findings { built = false }
    assert.equal(1, #found)
    assert.equal("note", found[1].state)
    assert.matches("cmake --preset cuda", found[1].remedy, 1, true)
    assert.matches("without CUDA", cuda.obstacle { built = false }, 1, true)
  end)

  it("without a driver", function()
    local missing = { driver = nothing, devices = {} }
    says("CUDA driver", missing, "bad", "none", "install NVIDIA's driver")
    assert.equal(3, #cuda.findings(status(missing))) -- nothing about devices, which nobody can see
    assert.matches("^CUDA driver: none; ", cuda.obstacle(status(missing)))
  end)

  it("with a driver that is of an older major version than the runtime", function()
    says("CUDA driver", { driver = 12080 }, "bad", "for CUDA 12.8, this build needs 13.0", "a newer driver")
    says("CUDA driver", { driver = 13000, runtime = 13010 }, "good", "for CUDA 13.0; built with 13.1")
    says("CUDA driver", { driver = 14000 }, "good", "for CUDA 14.0; built with 13.0")
  end)

  it("without a device, and with several", function()
    says("GPU", { devices = {} }, "bad", "none: CUDA sees no device", "CUDA_VISIBLE_DEVICES")
    local two = { { name = "A", compute = 100, memory = 180 * GIB }, { name = "B", compute = 80, memory = 40 * GIB } }
    says("GPU 1", { devices = two }, "good", "A, sm_100, 180.0 GiB")
    says("GPU 2", { devices = two }, "good", "B, sm_80, 40.0 GiB")
  end)

  it("with a card that is too old", function()
    local old = { { name = "NVIDIA T4", compute = 75, memory = 15 * GIB } }
    says("GPU", { devices = old }, "bad", "NVIDIA T4, sm_75, 15.0 GiB", "sm_80 (Ampere) or newer")
    assert.matches("^GPU: NVIDIA T4", cuda.obstacle(status { devices = old }))
  end)

  it("with a cuDNN that is too old, or none", function()
    says("cuDNN", { cudnn = 91599 }, "bad", "9.15.99", "9.16.0 or newer")
    says("cuDNN", { cudnn = 91600 }, "good", "9.16.0")
    says("cuDNN", { cudnn = nothing }, "bad", "not found", "install cuDNN 9.16.0 or newer")
  end)

  it("once: where the driver or cuDNN is too old for any device, not also that there is none", function()
    for name, changes in pairs { cuDNN = { cudnn = 90100 }, ["CUDA driver"] = { driver = 12080 } } do
      changes.devices, changes.problem = {}, "what the engine says of it"
      local bad = {}
      for _, finding in ipairs(cuda.findings(status(changes))) do
        if finding.state == "bad" then bad[#bad + 1] = finding.name end
      end
      assert.same({ name }, bad)
      assert.matches("^" .. name .. ": ", cuda.obstacle(status(changes)))
    end
  end)

  it("with cards that this build does not run on", function()
    local problem = "cuda:0 has compute capability 7.5, and 8.0 (Ampere) is the least that is supported"
    says("GPU", { devices = {}, problem = problem }, "bad", "none: " .. problem, "--device cpu works")
  end)

  it("without NCCL, which one GPU does not need", function()
    says("NCCL", { nccl = nothing }, "note", "not found", "several GPUs")
    assert.is_nil(cuda.obstacle(status { nccl = nothing }))
  end)

  it("when CUDA does not start, in its own words", function()
    local broken = { devices = {}, problem = "initialization error" }
    says("GPU", broken, "bad", "none: initialization error", "nvidia-smi")
    assert.matches("^GPU: none: initialization error; ", cuda.obstacle(status(broken)))
  end)

  it("here: the engine tells whether it was built with CUDA", function()
    assert.is_boolean(core.cuda_status().built)
    assert.is_true(#cuda.findings() > 0)
  end)
end)

describe("--device", function()
  local support = dofile "tests/lua/support.lua"

  local function refused(flags, wanted)
    for _, command in ipairs { "run tests/recipes/tiny.lua", "sample cat" } do
      local code, out, err = support.syz(".", command .. " " .. flags)
      assert.equal(2, code)
      assert.equal("", out)
      assert.equal("error: " .. wanted .. "\n", err)
    end
  end

  it("is one line in a build without CUDA", function()
    if core.cuda_status().built then return end
    refused("--device cuda", "cuda:0: this build has no CUDA: configure it with `cmake --preset cuda`")
  end)

  it("is one line for a name that none has", function()
    refused("--device gpu", 'unknown device "gpu": cpu, cuda, or cuda: and a number')
  end)
end)
