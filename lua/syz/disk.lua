--- Disks that are full or fail: what is one, what is kept back until there is room, what is tried again for a while.

local core = require "syz.core"
local message = require "syz.message"

local disk = {}

local full = { "No space left", "Disk quota" }

local failing = { "Input/output error", "Read%-only file system", "File too large", "Permission denied",
                  "does not match its checksum" }

local PAUSE = 5

local function matches(raised, patterns)
  for _, pattern in ipairs(patterns) do
    if tostring(raised):find(pattern) then return true end
  end
  return false
end

--- Whether what was raised says that a disk has no room.
---@param raised any
function disk.is_full(raised) return matches(raised, full) end

--- Whether what was raised is the disk's fault; anything else is a mistake and goes on as an error.
---@param raised any
function disk.is_error(raised) return matches(raised, full) or matches(raised, failing) end

-- How many seconds a run waits for room, in all, before what cannot be written is given up.
local function patience()
  return tonumber(core.environment "SYZ_DISK_WAIT" or "") or 600
end

--- Write what must not be lost: on a full disk say so once and try again until there is room, patience ends, or the run
--- is asked to stop.
---@param run syz.Run
---@param what string          how a message calls it
---@param write fun()
function disk.insist(run, what, write)
  local said
  while true do
    local ok, raised = pcall(write)
    if ok then return end
    run.waited = run.waited or 0
    if not disk.is_full(raised) or run:stopping() or run.waited >= patience() then error(raised, 0) end
    if not said then
      run:warn(("%s cannot be saved: %s; make room: it is tried again for %d s"):format(what, message.of(raised),
        patience() - run.waited))
      said = true
    end
    core.sleep(math.min(PAUSE, patience()))
    run.waited = run.waited + PAUSE
  end
end

---@class syz.Log
---@field path string
local Log = {}
Log.__index = Log

--- A file that only grows. Lines that find no room wait in memory, and go with the next ones.
---@param path string
---@param warn fun(line: string)
---@return syz.Log
function disk.log(path, warn)
  return setmetatable({ path = path, warn = warn, waiting = {} }, Log)
end

---@param lines string
function Log:add(lines)
  local waiting = self.waiting
  waiting[#waiting + 1] = lines
  local ok, raised = pcall(core.file.append, self.path, table.concat(waiting))
  if ok then
    self.waiting = {}
  elseif not disk.is_error(raised) then
    error(raised, 0)
  elseif #waiting == 1 then
    self.warn(message.of(raised) .. "; what it would have held is kept in memory until it can be written")
  end
end

--- Try a last time.
function Log:close()
  if #self.waiting == 0 then return end
  local ok, raised = pcall(core.file.append, self.path, table.concat(self.waiting))
  if not ok then self.warn(("%s; its last %d entries are lost"):format(message.of(raised), #self.waiting)) end
  self.waiting = {}
end

return disk
