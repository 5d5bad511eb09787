--- syz report RUN: write a run's report.html again.
local core = require "syz.core"

---@type syz.Command
local command = {
  name = "report",
  summary = "write a run's report.html: before and after, curves, ledger, settings",
  positional = { { name = "RUN" } },
  complete = "folder",
  examples = { "syz report runs/srpo-20250131-101500" },
}

function command.run(given)
  local cli = require "syz.cli"
  local path, reason = require("syz.report").write(given[1])
  if not path then return cli.fail(reason) end
  cli.out(given.json and core.json.encode { report = path } .. "\n" or path .. "\n")
  return cli.ok
end

return command
