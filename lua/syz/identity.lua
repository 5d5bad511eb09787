--- What a run was made with: fingerprints of the models and prompt files that its recipe reads, so that it is resumed
--- with the same ones or not at all.
--
-- A fingerprint is the SHA-256 over the names and contents of the files that decide; of a file above 16 MiB over its
-- size and 65 samples of 64 KiB. It tells other weights from these, not a forgery.

local core = require "syz.core"

local identity = {}

local WHOLE, SAMPLES, SAMPLE = 16 * 2 ^ 20, 64, 2 ^ 16

local seen = {}

local function sample_file(path, size)
  local file, reason = io.open(path, "rb")
  if not file then error(reason, 0) end
  local sums = {}
  for i = 0, SAMPLES do
    file:seek("set", math.floor((size - SAMPLE) * i / SAMPLES))
    sums[#sums + 1] = core.sha256(file:read(SAMPLE) or "")
  end
  file:close()
  return core.sha256(table.concat(sums))
end

local function file_sum(path)
  local size = assert(core.file.stat(path))
  return ("%d %s"):format(size, size > WHOLE and sample_file(path, size) or assert(core.file.sha256(path)))
end

local decisive = { safetensors = true, bin = true, json = true, txt = true, model = true }

local function folder_lines(folder, prefix, lines)
  for _, name in ipairs(assert(core.file.list(folder))) do
    local path = folder .. "/" .. name
    if core.file.exists(path) == "folder" then
      if prefix == "" then folder_lines(path, name .. "/", lines) end
    elseif decisive[name:match("%.(%w+)$") or ""] then
      lines[#lines + 1] = prefix .. name .. " " .. file_sum(path)
    end
  end
  return lines
end

--- The fingerprint of a file or folder.
---@param path string
---@return string
function identity.of(path)
  if core.file.exists(path) ~= "folder" then return core.sha256(file_sum(path)) end
  return core.sha256(table.concat(folder_lines(path, "", {}), "\n"))
end

--- Remember that the recipe being loaded reads this.
---@param role "pipeline"|"embeddings"|"reward"|"judge"|"prompts"
---@param path string
function identity.note(role, path)
  seen[#seen + 1] = { role = role, path = path }
end

--- What has been noted since the last call, each with its fingerprint.
---@return { role: string, path: string, sha256: string }[]
function identity.taken()
  local list = seen
  seen = {}
  for _, input in ipairs(list) do input.sha256 = identity.of(input.path) end
  return list
end

--- Forget what was noted.
function identity.forget() seen = {} end

--- Compare the inputs of a run that goes on with those it began with.
---@param before table|nil    of env.json; nil for a run of an earlier version
---@param now table
---@return string|nil refused  other weights: the run would be another one
---@return string[] changed    lines about what may change, but should be known
function identity.compare(before, now)
  local changed = {}
  if type(before) ~= "table" then return nil, changed end
  local old = {}
  for _, input in ipairs(before) do
    old[input.role] = old[input.role] or {}
    table.insert(old[input.role], input)
  end
  for _, input in ipairs(now) do
    local other = old[input.role] and table.remove(old[input.role], 1)
    if other and other.sha256 ~= input.sha256 then
      local line = ("the %s %s differs from the one the run began with (%s)"):format(input.role, input.path,
        other.path == input.path and "its files changed" or other.path)
      if input.role ~= "prompts" then return line, changed end
      changed[#changed + 1] = line
    end
  end
  return nil, changed
end

return identity
