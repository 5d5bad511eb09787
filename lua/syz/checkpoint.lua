--- Checkpoints of a run: folders that are either whole or absent, verified by checksum, pruned only when safe.
--
-- checkpoints/step-000020/ holds whatever the caller wrote and manifest.json, which names every file with its size and
-- SHA-256. A folder is filled under a temporary name and renamed when complete; older ones go only after the new one
-- has been read back.

local core = require "syz.core"
local disk = require "syz.disk"
local files = require "syz.files"
local message = require "syz.message"

local checkpoint = {}

local file = core.file

-- Files below `folder`, by their names relative to it, sorted.
local function files_below(folder, prefix, found)
  prefix, found = prefix or "", found or {}
  for _, name in ipairs(file.list(folder)) do
    local path = folder .. "/" .. name
    if file.exists(path) == "folder" then
      files_below(path, prefix .. name .. "/", found)
    else
      found[#found + 1] = prefix .. name
    end
  end
  table.sort(found)
  return found
end

---@param step integer
---@return string
function checkpoint.name(step) return ("step-%06d"):format(step) end

--- All finished checkpoints, oldest first, by step number (step-1000000 comes after step-999999).
---@param folder string   a run's folder
---@return { step: integer, path: string }[]
function checkpoint.list(folder)
  local root, found = folder .. "/checkpoints", {}
  if file.exists(root) ~= "folder" then return found end
  for _, name in ipairs(file.list(root)) do
    local step = name:match("^step%-(%d+)$")
    if step then found[#found + 1] = { step = tonumber(step), path = root .. "/" .. name } end
  end
  table.sort(found, function(a, b) return a.step < b.step end)
  return found
end

--- Read a checkpoint back and compare every file with its manifest.
---@param path string
---@return boolean|nil ok
---@return string|nil reason
function checkpoint.verify(path)
  local manifest = files.read_json(path .. "/manifest.json")
  if not manifest or type(manifest.files) ~= "table" then return nil, path .. ": no readable manifest.json" end
  for name, sum in pairs(manifest.files) do
    local found = file.sha256(path .. "/" .. name)
    if not found then return nil, ("%s: %s is missing or unreadable"):format(path, name) end
    if found ~= sum then return nil, ("%s: %s does not match its checksum"):format(path, name) end
  end
  return true
end

--- The newest checkpoint that verifies.
---@param folder string
---@param warn fun(line: string)
---@return string|nil path
---@return integer|nil step
function checkpoint.latest(folder, warn)
  local all = checkpoint.list(folder)
  for i = #all, 1, -1 do
    local ok, reason = checkpoint.verify(all[i].path)
    if ok then return all[i].path, all[i].step end
    warn("skipped a damaged checkpoint: " .. reason)
  end
end

--- The step of the checkpoint that is kept whatever comes later, if one was pinned.
---@param folder string
---@return integer|nil
function checkpoint.pinned(folder)
  local best = files.read_json(folder .. "/checkpoints/best.json")
  return best and tonumber(best.step)
end

--- Keep a step's checkpoint whatever comes later, in place of the one pinned before.
---@param folder string
---@param step integer
function checkpoint.pin(folder, step)
  files.write_json(folder .. "/checkpoints/best.json", { step = step })
end

local function prune(folder, keep)
  local all, pinned = checkpoint.list(folder), checkpoint.pinned(folder)
  for i = 1, #all - keep do
    if all[i].step ~= pinned then file.remove_tree(all[i].path) end
  end
end

local function fill(partial, step, write)
  files.remove_folder(partial)
  file.mkdir(partial)
  write(partial)
  local sums = {}
  for _, name in ipairs(files_below(partial)) do sums[name] = assert(file.sha256(partial .. "/" .. name)) end
  files.write_json(partial .. "/manifest.json", { step = step, files = sums })
end

-- Give the oldest checkpoint's room to a new one. The newest stays, and has been read back before.
local function make_room(folder)
  local all, pinned = checkpoint.list(folder), checkpoint.pinned(folder)
  if #all < 2 or not checkpoint.verify(all[#all].path) then return false end
  for i = 1, #all - 1 do
    if all[i].step ~= pinned then
      file.remove_tree(all[i].path)
      return true
    end
  end
  return false
end

--- Save a checkpoint. A full disk is given the room of the oldest checkpoint but one; when that does not help, or the
--- disk fails, this checkpoint is missing, nothing is raised, and the newest of the earlier ones stays.
---@param folder string
---@param step integer
---@param write fun(partial: string)   fills the folder it is given
---@param opts { keep: integer, best: boolean|nil }
---@return string|nil path
---@return string|nil reason
function checkpoint.save(folder, step, write, opts)
  local root = folder .. "/checkpoints"
  local path = root .. "/" .. checkpoint.name(step)
  local partial = root .. "/." .. checkpoint.name(step) .. ".partial"
  local function attempt()
    fill(partial, step, write)
    -- a checkpoint of the same step is either the same bytes or, after a resume, one that did not verify
    files.remove_folder(path)
    file.rename(partial, path)
    assert(checkpoint.verify(path))
    if opts.best then checkpoint.pin(folder, step) end
    prune(folder, opts.keep)
  end
  local ok, raised = pcall(attempt)
  if not ok then pcall(files.remove_folder, partial) end
  if not ok and disk.is_full(raised) and make_room(folder) then ok, raised = pcall(attempt) end
  if ok then return path end
  pcall(files.remove_folder, partial)
  if not disk.is_error(raised) then error(raised, 0) end
  return nil, message.of(raised)
end

--- Remove what an interrupted save left behind.
---@param folder string
function checkpoint.clean(folder)
  local root = folder .. "/checkpoints"
  if file.exists(root) ~= "folder" then return end
  for _, name in ipairs(file.list(root)) do
    if name:match("^%.step%-%d+%.partial$") then file.remove_tree(root .. "/" .. name) end
  end
end

return checkpoint
