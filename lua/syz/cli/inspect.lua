--- syz inspect: what a file or folder holds, without loading weights.
local core = require "syz.core"
local inspect = require "syz.inspect"
local text = require "syz.text"

---@type syz.Command
local command = {
  name = "inspect",
  summary = "show what a weight file, image, shard, model, pipeline or run holds",
  positional = { { name = "PATH" } },
  complete = "file",
  flags = { { name = "all", short = "a", help = "list every tensor" } },
  examples = {
    "syz inspect examples/emoji/pipeline",
    "syz inspect examples/emoji/pipeline/transformer/diffusion_pytorch_model.safetensors --all",
    "syz inspect runs/srpo-20250131-101500",
  },
}

local function print_table(cli, given, found)
  local paint = text.painter("stdout")
  cli.out(("%s  %s\n"):format(paint("bold", given[1]), found.kind))
  for _, section in ipairs(found.sections) do
    if section.title then cli.out("\n" .. paint("bold", section.title) .. "\n") end
    local rows, limit = {}, given.all and math.huge or 24
    for i, row in ipairs(section.rows) do
      if i > limit then break end
      rows[i] = row
    end
    cli.out(text.columns(rows, 2))
    if #section.rows > limit then
      cli.out(("  and %d more; --all shows them\n"):format(#section.rows - limit))
    end
  end
end

function command.run(given)
  local cli = require "syz.cli"
  local found, reason = inspect.path(given[1])
  if not found then return cli.fail(reason) end
  if given.json then
    cli.out(core.json.encode(found) .. "\n")
  else
    print_table(cli, given, found)
  end
  return found.broken and cli.failed or cli.ok
end

return command
