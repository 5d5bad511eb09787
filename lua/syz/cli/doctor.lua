--- syz doctor: what this machine has, what the engine makes of it, and what is missing with its remedy.
local core = require "syz.core"
local cuda = require "syz.cuda"
local device = require "syz.device"
local message = require "syz.message"
local text = require "syz.text"

---@type syz.Command
local command = {
  name = "doctor",
  summary = "show what this machine has, and what is missing",
  examples = { "syz doctor", "syz doctor --json" },
}

---@class syz.Finding
---@field name string
---@field value string
---@field state "good"|"note"|"bad"
---@field remedy string|nil

local function instruction_sets(machine)
  local names = {}
  for _, set in ipairs { { "avx2", "AVX2" }, { "avx512", "AVX-512" }, { "avx512_bf16", "AVX512-BF16" },
                         { "amx_bf16", "AMX-BF16" } } do
    if machine[set[1]] then names[#names + 1] = set[2] end
  end
  return #names > 0 and table.concat(names, ", ") or "none of AVX2, AVX-512, AMX"
end

local function processor(add, machine)
  add("processor", machine.cpu ~= "" and machine.cpu or "unknown")
  if machine.avx2 then
    add("instructions", instruction_sets(machine))
  else
    add("instructions", instruction_sets(machine), "note", "training works, but slowly; a newer processor helps")
  end
  local threads = core.threads()
  add("threads", ("%d of %d cores"):format(threads, machine.cores), threads < machine.cores and "note" or "good",
    threads < machine.cores and "--threads " .. ("%d"):format(machine.cores) .. " uses them all" or nil)
  add("matrix products", ("%s in force, %s"):format(core.precision(),
    machine.bf16 and "bf16 on request" or "bf16 not in this processor"), machine.bf16 and "good" or "note",
    not machine.bf16 and "f32 is used throughout; nothing is missing" or nil)
  local gibibytes = machine.ram / 2 ^ 30
  add("memory", text.bytes(machine.ram), gibibytes < 2 and "bad" or "good",
    gibibytes < 2 and "the embedded model trains in about 2 GiB" or nil)
end

local function libraries(add, machine)
  add("Syzygy", core.version())
  add("oneDNN", machine.onednn)
  add("LuaJIT", machine.luajit)
  for _, finding in ipairs(cuda.findings()) do add(finding.name, finding.value, finding.state, finding.remedy) end
  local unused = not device.is_gpu() and not cuda.obstacle()
  add("device", device.current(), unused and "note" or "good", unused and "--device cuda computes on the GPU" or nil)
end

-- Whether a file can be made in a folder; what was made for the test is removed.
local function writable(folder)
  local existed = core.file.exists(folder)
  local probe = folder .. "/.syz-doctor"
  local ok, reason = pcall(function()
    core.file.mkdir(folder)
    core.file.write(probe, "")
    core.file.remove(probe)
  end)
  if ok and not existed then core.file.remove(folder) end
  return ok, not ok and message.of(reason) or nil
end

-- The folder that holds lua/ and examples/, where this program has its library.
local function home()
  local library = package.path:match("^([^;]*)/lua/%?%.lua")
  return library and core.file.exists(library .. "/examples") and library or nil
end

-- Where the embedded model is: here, or in the program's own folder, which recipes do not look into.
local function embedded(add)
  local place = "examples/emoji/pipeline/model_index.json"
  if core.file.exists(place) then return add("embedded model", "found in examples/emoji") end
  local root = home()
  if not root or not core.file.exists(root .. "/" .. place) then
    return add("embedded model", "not found", "note", "name a model of your own, or get the repository whole")
  end
  add("embedded model", ("found in %s/examples/emoji"):format(root), "note",
    ("recipes look for it below the current folder: cd %s"):format(text.shell(root)))
end

local function system(add, machine)
  local version = machine.landlock
  add("Landlock", version > 0 and ("version %d, not used yet"):format(version) or "not in this kernel", "note",
    "an allow-list limits recipes, not yet the system: run those of strangers in a container")
  local ok, reason = writable("runs")
  add("runs/", ok and "writable" or "not writable: " .. tostring(reason), ok and "good" or "bad",
    not ok and "start syz in a folder of your own, or give --out" or nil)
  embedded(add)
end

--- What there is to say about this machine.
---@return syz.Finding[]
local function examine()
  local findings, machine = {}, core.machine()
  local function add(name, value, state, remedy)
    findings[#findings + 1] = { name = name, value = value, state = state or "good", remedy = remedy }
  end
  processor(add, machine)
  libraries(add, machine)
  system(add, machine)
  return findings
end

function command.run(given)
  local cli = require "syz.cli"
  local findings, bad = examine(), 0
  local paint, rows = text.painter("stdout"), {}
  local signs = text.utf8() and { good = "✓", note = "·", bad = "✗" } or { good = "+", note = ".", bad = "x" }
  local colours = { good = "green", note = "dim", bad = "red" }
  for i, finding in ipairs(findings) do
    if finding.state == "bad" then bad = bad + 1 end
    rows[i] = { paint(colours[finding.state], signs[finding.state]), finding.name, finding.value,
                finding.remedy and paint(finding.state == "bad" and "yellow" or "dim", finding.remedy) }
  end
  if given.json then
    cli.out(core.json.encode(core.array(findings)) .. "\n")
  else
    cli.out(text.columns(rows, 1))
    cli.out(bad == 0 and "\nNothing is missing.\n" or ("\n%d to mend.\n"):format(bad))
  end
  return bad == 0 and cli.ok or cli.failed
end

return command
