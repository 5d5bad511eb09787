--- syz inspect: what a file or folder holds, without loading weights; with --random, a model to look at.
local core = require "syz.core"
local inspect = require "syz.inspect"
local message = require "syz.message"
local random_weights = require "syz.random_weights"
local text = require "syz.text"

---@type syz.Command
local command = {
  name = "inspect",
  summary = "show what a weight file, image, shard, model, pipeline or run holds",
  positional = { { name = "PATH", optional = true } },
  complete = "file",
  flags = {
    { name = "all", short = "a", help = "list every tensor" },
    { name = "random", value = "MODEL", help = "make a model with random weights: flux.1-dev, flux.1-dev-pipeline, "
      .. "t5-xxl, ..., or a config.json" },
    { name = "out", value = "DIR", help = "where to, with --random" },
    { name = "layers", value = "N", kind = "integer", help = "at most N blocks in each part of it" },
    { name = "dtype", value = "TYPE", help = "bf16, f16 or f32 (bf16)" },
    { name = "zeros", help = "keep layers that start at zero; the output of a flow transformer is then zero" },
  },
  examples = {
    "syz inspect examples/emoji/pipeline",
    "syz inspect examples/emoji/pipeline/transformer/diffusion_pytorch_model.safetensors --all",
    "syz inspect runs/srpo-20250131-101500",
    "syz inspect --random flux.1-dev-pipeline --layers 2 --out /tmp/flux",
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

local dtypes = { bf16 = true, f16 = true, f32 = true }

-- What is wrong with the flags, if anything.
local function misuse(given)
  if not given.random then
    for _, flag in ipairs { "out", "layers", "dtype", "zeros" } do
      if given[flag] then return ("--%s goes with --random"):format(flag) end
    end
    return not given[1] and "PATH is missing: what is to be shown" or nil
  end
  if given[1] then return "--random makes a model; it takes no PATH" end
  if not given.out then return "--random needs --out DIR" end
  if given.layers and given.layers < 1 then return "--layers must be at least 1" end
  if given.dtype and not dtypes[given.dtype] then return "--dtype must be bf16, f16 or f32" end
end

local function make(cli, given)
  local ok, made = pcall(random_weights.write, { what = given.random, out = given.out:gsub("(.)/+$", "%1"),
    layers = given.layers, dtype = given.dtype, seed = given.seed, zeros = given.zeros })
  if not ok then
    if made == "interrupted" then error(made, 0) end
    return cli.fail(message.of(made))
  end
  if given.json then
    cli.out(core.json.encode { out = given.out, parameters = made.parameters, bytes = made.bytes } .. "\n")
  else
    cli.out(("%s  %s parameters, %s\n"):format(given.out, text.count(made.parameters), text.bytes(made.bytes)))
  end
  return cli.ok
end

function command.run(given)
  local cli = require "syz.cli"
  local wrong = misuse(given)
  if wrong then return cli.fail(wrong, cli.misused) end
  if given.random then return make(cli, given) end
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
