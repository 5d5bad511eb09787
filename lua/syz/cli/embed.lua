--- syz embed: text features of prompts on disk, so that training needs no text encoder.
local core = require "syz.core"
local data = require "syz.data"
local embeddings = require "syz.embeddings"
local pipeline = require "syz.pipeline"
local progress = require "syz.progress"
local text = require "syz.text"

---@type syz.Command
local command = {
  name = "embed",
  summary = "encode prompts once, so that training needs no text encoder",
  details = "PROMPTS are text files with one prompt a line. The folder is used as\n"
    .. "syz.pipeline(DIR, { embeddings = \"OUT\" }). What it holds already is kept: the command goes on where it was\n"
    .. "broken off, and adds prompts to a folder.",
  positional = { { name = "PROMPTS", many = true, optional = true } },
  complete = "file",
  flags = {
    { name = "model", short = "m", value = "DIR", help = "the pipeline folder" },
    { name = "out", short = "o", value = "DIR", help = "where the features go" },
    { name = "prompt", short = "p", value = "TEXT", many = true, help = "one prompt more" },
    { name = "dtype", value = "DTYPE", help = "f32: exactly what training would compute; bf16: half the size (f32)" },
    { name = "max-length", value = "N", kind = "integer", help = "T5 tokens per prompt (FLUX.1-dev 512, schnell 256)" },
    { name = "shard", value = "N", kind = "integer", help = "prompts per file (as many as fit into 256 MiB)" },
  },
  examples = {
    "syz embed examples/emoji/prompts.txt --model examples/emoji/pipeline --out embeddings",
    "syz embed train.txt eval.txt --model FLUX.1-dev --out embeddings --dtype bf16",
    'syz embed --prompt "a red cat" --model FLUX.1-dev --out embeddings',
  },
}

-- What is wrong with the flags, or nil.
local function mistake(given)
  if #given == 0 and not given.prompt then return 'needs PROMPTS, a text file, or --prompt "a prompt"' end
  for _, name in ipairs { "model", "out" } do
    if not given[name] then return ("needs --%s DIR"):format(name) end
  end
  if given.dtype and given.dtype ~= "f32" and given.dtype ~= "bf16" then
    return ('--dtype takes f32 or bf16, not "%s"'):format(given.dtype)
  end
  if given.shard and given.shard < 1 then return "--shard takes 1 or more" end
  if given["max-length"] and (given["max-length"] < 2 or given["max-length"] > 65536) then
    return "--max-length takes 2 to 65536"
  end
end

local function prompts_of(given)
  local prompts = {}
  for _, path in ipairs(given) do
    for _, prompt in ipairs(data.prompts(path)) do prompts[#prompts + 1] = prompt end
  end
  for _, prompt in ipairs(given.prompt or {}) do prompts[#prompts + 1] = prompt end
  return prompts
end

function command.run(given)
  local cli = require "syz.cli"
  local wrong = mistake(given)
  if wrong then return cli.misuse(wrong, command) end
  local prompts = prompts_of(given)
  local bar = progress.new(nil, "encoding")
  local made = embeddings.write(given.out, pipeline.text(given.model, { max_length = given["max-length"] }), prompts, {
    dtype = given.dtype, shard = given.shard,
    on_prompt = function(done, total)
      bar.total = total
      bar:update(done)
    end,
  })
  bar:done()
  made.out = given.out
  if given.json then
    cli.out(core.json.encode(made) .. "\n")
  else
    cli.out(("%s: %s prompts, %s of them new, %s\n"):format(given.out, text.count(made.prompts), text.count(made.new),
      text.bytes(made.bytes)))
  end
  return cli.ok
end

return command
