--- Folders of runs: which may hold one, what is written into them besides measurements, what a resumed run drops.

local core = require "syz.core"
local device = require "syz.device"
local files = require "syz.files"

local file = core.file

local run_folder = {}

--- Whether a folder holds a run.
---@param folder string
---@return table|nil record   run.json
function run_folder.record(folder)
  return file.exists(folder .. "/run.json") == "file" and files.read_json(folder .. "/run.json") or nil
end

-- A folder that holds somebody's files is no place for a run: recipe.lua, config.yaml and others would be overwritten.
local function first_stranger(folder)
  if file.exists(folder) ~= "folder" then return nil end
  for _, name in ipairs(file.list(folder) or {}) do
    if name ~= "samples" and name ~= "checkpoints" then return name end
  end
end

--- Whether a run may be started, or resumed, in a folder.
---@param folder string
---@param resume boolean|nil
---@return boolean|nil ok
---@return string|nil reason
function run_folder.fits(folder, resume)
  local kind, record = file.exists(folder), run_folder.record(folder)
  if resume and record then return true end
  if resume then
    return nil, ("%s holds no run to resume%s; leave out --resume to start one"):format(folder,
      kind and "" or " (there is no such folder)")
  end
  if kind == "file" then return nil, folder .. " is a file; a run needs a folder" end
  if record then
    return nil, ("%s already holds a run; add --resume to go on with it, or choose another --out"):format(folder)
  end
  local stranger = first_stranger(folder)
  if stranger then
    return nil, ("%s holds other files (%s) and no run; choose another --out"):format(folder, stranger)
  end
  return true
end

--- The commit of the folder a run was started in, without starting a process.
---@return string|nil
local function git_commit()
  local function line(path)
    local bytes = file.exists(path) == "file" and file.read(path)
    return bytes and bytes:match("^[^\n]*"), bytes
  end
  local head = line(".git/HEAD")
  local ref = head and head:match("^ref: (%S+)")
  if not ref then return head or nil end
  local commit = line(".git/" .. ref)
  if commit then return commit end
  local _, packed = line(".git/packed-refs")
  return packed and packed:match("(%x+) " .. ref:gsub("%p", "%%%0")) or nil
end

--- What env.json holds.
---@param opts syz.RunOptions
function run_folder.environment(opts)
  return { version = core.version(), lua = jit and jit.version or _VERSION, machine = core.machine(),
           threads = core.threads(), device = device.current(), git_commit = git_commit(), command = opts.command,
           recipe_sha256 = core.sha256(opts.recipe.source), inputs = core.array(opts.recipe.inputs or {}) }
end

--- The folder for a new run: as asked for, or one that does not exist yet.
---@param opts syz.RunOptions
function run_folder.fresh(opts)
  if opts.out then return opts.out end
  local base = ("%s/%s-%s"):format(opts.root or "runs", opts.recipe.name, os.date("%Y%m%d-%H%M%S"))
  local folder, n = base, 1
  while file.exists(folder) do
    n = n + 1
    folder = base .. "-" .. n
  end
  return folder
end

--- Copy the recipe and the files it required; read before anything is written: a copy may be running in its own folder.
---@param folder string
---@param recipe syz.Recipe
function run_folder.keep_recipe(folder, recipe)
  local copies = { ["recipe.lua"] = recipe.source }
  for name, path in pairs(recipe.required or {}) do copies[name] = assert(file.read(path)) end
  for name, source in pairs(copies) do file.write(folder .. "/" .. name, source) end
end

--- Keep the lines of a JSON-lines file whose "step" is at most `step`; a torn last line goes too.
---@param path string
---@param step integer
function run_folder.truncate_lines(path, step)
  if file.exists(path) ~= "file" then return end
  local kept = {}
  for _, entry in ipairs(files.read_lines(path)) do
    if (tonumber(entry.object.step) or 0) <= step then kept[#kept + 1] = entry.line .. "\n" end
  end
  file.write(path, table.concat(kept))
end

return run_folder
