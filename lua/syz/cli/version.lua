--- syz version
local core = require "syz.core"

---@type syz.Command
return {
  name = "version",
  summary = "show the version",
  run = function(given)
    local cli = require "syz.cli"
    if given.json then
      cli.out(core.json.encode { version = core.version(), lua = jit.version } .. "\n")
    else
      cli.out("syz " .. core.version() .. "\n")
    end
    return cli.ok
  end,
}
