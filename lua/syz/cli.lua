--- The command line: finds the command, reads its flags, turns what happens into an exit code and one clear line.
--
-- Exit codes: 0 done, 1 a recipe or its data failed, 2 misuse, 75 stopped with a checkpoint by SIGTERM (resumable),
-- 130 interrupted.

local core = require "syz.core"
local args = require "syz.cli.args"
local device = require "syz.device"
local message = require "syz.message"
local nearest = require "syz.nearest"
local progress = require "syz.progress"
local text = require "syz.text"

local cli = {}

cli.ok, cli.failed, cli.misused, cli.resumable, cli.interrupted = 0, 1, 2, 75, 130

-- Each is a file in cli/; the order is that of the overview.
cli.commands = { "run", "console", "sample", "score", "eval", "embed", "words", "study", "merge", "inspect", "report",
                 "doctor", "completion", "help", "version" }

--- The declaration of a command.
---@param name string
---@return syz.Command
function cli.command(name)
  return require("syz.cli." .. name)
end

--- Print to stdout.
---@param s string
function cli.out(s)
  io.stdout:write(s)
  io.stdout:flush()
end

--- Print one line that says what went wrong.
---@param reason any        what was raised, or a text
---@param code integer|nil
---@return integer code   1 unless given
function cli.fail(reason, code)
  local paint = text.painter("stderr")
  io.stderr:write(paint("red", "error: ") .. message.of(reason) .. "\n")
  return code or cli.failed
end

--- Print what was wrong with a command line, and where to read more.
---@param reason string
---@param command syz.Command|nil
---@return integer code
function cli.misuse(reason, command)
  local name = command and "syz " .. command.name or "syz"
  cli.fail(("%s: %s"):format(name, reason))
  io.stderr:write(("%s --help shows how it is used\n"):format(name))
  return cli.misused
end

--- The few lines that `syz` alone prints.
---@return string
function cli.overview()
  local paint = text.painter("stdout")
  local rows = {}
  for _, name in ipairs(cli.commands) do
    rows[#rows + 1] = { paint("cyan", name), cli.command(name).summary }
  end
  return table.concat {
    paint("bold", "Syzygy " .. core.version()), "  aligns text-to-image flow models with human preference\n\n",
    text.columns(rows, 2), "\n",
    "  ", paint("dim", "syz run recipes/srpo.lua"), "          train, then look at the report\n",
    "  ", paint("dim", "syz run recipes/srpo.lua --help"), "   what this recipe lets you turn\n",
    "  ", paint("dim", "syz COMMAND --help"), "                flags and examples\n",
  }
end

local function run_command(command, given)
  local trace
  local ok, code = xpcall(function() return command.run(given) end, function(raised)
    trace = debug.traceback("", 2)
    return raised
  end)
  if ok then return code or cli.ok end
  if core.terminating() then return cli.resumable end
  if core.interrupted() or tostring(code):find("interrupted", 1, true) then return cli.interrupted end
  if given.trace then io.stderr:write(trace .. "\n") end
  return cli.fail(code)
end

local shortcuts = { ["--version"] = "version", ["-V"] = "version", ["--help"] = "help", ["-h"] = "help" }

--- Run a command line.
---@param argv string[]   the words after `syz`
---@return integer code
function cli.main(argv)
  if #argv == 0 then
    cli.out(cli.overview())
    return cli.ok
  end
  -- global flags may stand before the command
  local words, name = {}, nil
  for i, word in ipairs(argv) do
    local before = argv[i - 1]
    local is_value = before == "--threads" or before == "--seed" or before == "--device"
    if not name and (word:sub(1, 1) ~= "-" or shortcuts[word]) and not is_value then
      name = shortcuts[word] or word
    else
      words[#words + 1] = word
    end
  end
  if not name then return cli.misuse("needs a command" .. nearest.hint("", cli.commands)) end
  local known
  for _, candidate in ipairs(cli.commands) do known = known or candidate == name end
  if not known then
    if name:match("%.lua$") then return cli.misuse(("to run a recipe: syz run %s"):format(text.shell(name))) end
    return cli.misuse(('unknown command "%s"%s'):format(name, nearest.hint(name, cli.commands)))
  end
  local command = cli.command(name)
  local given, reason = args.parse(command, words)
  if not given then return cli.misuse(reason, command) end
  if given.help and not command.helps then
    cli.out(args.help(command, text.painter("stdout")))
    return cli.ok
  end
  progress.configure { quiet = given.quiet, json = given.json }
  local typed = { "syz" }
  for i, word in ipairs(argv) do typed[i + 1] = text.shell(word) end
  given.command = table.concat(typed, " ")
  if given.threads then
    if given.threads < 1 or given.threads > 4096 then return cli.misuse("--threads takes 1 to 4096", command) end
    core.threads(given.threads)
  end
  if given.device then
    local ok, raised = pcall(device.choose, given.device)
    if not ok then return cli.fail(raised, cli.misused) end
  end
  return run_command(command, given)
end

return cli
