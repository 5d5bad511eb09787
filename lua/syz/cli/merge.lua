--- syz merge PIPELINE LORA OUT: a pipeline with LoRA adapters added into its transformer's weights.
local core = require "syz.core"

---@type syz.Command
local command = {
  name = "merge",
  summary = "add LoRA adapters into a pipeline's weights",
  details = "Writes a pipeline folder in the diffusers layout that needs no adapters any more. Sums are made in f32;\n"
    .. "what --dtype bf16 cannot resolve is lost, so that the merged model may differ a little.",
  positional = { { name = "PIPELINE" }, { name = "LORA" }, { name = "OUT" } },
  complete = "folder",
  flags = {
    { name = "dtype", value = "TYPE", help = "of the weights that are written: f32, bf16 or f16 (f32)" },
    { name = "lora-scale", value = "S", kind = "number", help = "how much of the adapters (1)" },
    { name = "transformer-only", help = "write OUT/transformer alone" },
  },
  examples = {
    "syz merge examples/emoji/pipeline runs/srpo_lora-20250131-101500/model/lora merged --dtype bf16",
  },
}

function command.run(given)
  local cli = require "syz.cli"
  local base, adapters, out = given[1], given[2], given[3]
  local dtype = given.dtype or "f32"
  if dtype ~= "f32" and dtype ~= "bf16" and dtype ~= "f16" then
    return cli.misuse(('--dtype takes f32, bf16 or f16, not "%s"'):format(dtype), command)
  end
  if core.file.exists(out) then return cli.fail(out .. " exists; name a new folder", cli.misused) end
  -- a base that stays in bf16 would round every sum before it is written as anything finer
  local pipe = require("syz").pipeline(base, { dtype = dtype ~= "bf16" and "f32" or nil })
  pipe:lora { load = adapters, scale = given["lora-scale"] }
  pipe:merge_lora()
  pipe:save(out, { dtype = dtype, transformer_only = given["transformer-only"] })
  cli.out(given.json and core.json.encode { pipeline = out } .. "\n" or out .. "\n")
  return cli.ok
end

return command
