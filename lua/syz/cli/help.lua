--- syz help [COMMAND]
local args = require "syz.cli.args"
local nearest = require "syz.nearest"
local text = require "syz.text"

---@type syz.Command
return {
  name = "help",
  summary = "show what a command does and its flags",
  positional = { { name = "COMMAND", optional = true } },
  examples = { "syz help run" },
  run = function(given)
    local cli = require "syz.cli"
    if not given[1] then
      cli.out(cli.overview())
      return cli.ok
    end
    for _, name in ipairs(cli.commands) do
      if name == given[1] then
        cli.out(args.help(cli.command(name), text.painter("stdout")))
        return cli.ok
      end
    end
    return cli.misuse(('unknown command "%s"%s'):format(given[1], nearest.hint(given[1], cli.commands)))
  end,
}
