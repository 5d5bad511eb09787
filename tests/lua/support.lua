--- What several specs need: folders that go away, files, and the program itself.
local core = require "syz.core"

local support = {}

local folders = {}

--- A new empty folder, removed by clean().
function support.folder()
  local path = os.tmpname()
  os.remove(path)
  core.file.mkdir(path)
  folders[#folders + 1] = path
  return path
end

--- Remove every folder made so far.
function support.clean()
  for _, path in ipairs(folders) do
    if core.file.exists(path) then core.file.remove_tree(path) end
  end
  folders = {}
end

--- Write a file into a folder and return its path.
function support.write(folder, name, content)
  local path = folder .. "/" .. name
  core.file.write(path, content)
  return path
end

--- Run the program in a folder: exit code, stdout, stderr.
function support.syz(folder, arguments)
  local program = assert(os.getenv "SYZ", "SYZ must name the program under test")
  local out, err = os.tmpname(), os.tmpname()
  local result = os.execute(("cd '%s' && env -u NO_COLOR LC_ALL=C.UTF-8 '%s' %s >'%s' 2>'%s'"):format(folder, program,
    arguments, out, err))
  local stdout, stderr = core.file.read(out), core.file.read(err)
  os.remove(out)
  os.remove(err)
  return math.floor(result / 256), stdout, stderr
end

--- Write a CLIPModel folder of a few thousand random parameters, with the tokenizer of the reference pipeline.
function support.clip(folder, seed)
  local tokenizer = "tests/models/data/pipeline/tokenizer"
  local config = core.model.load("tests/models/data/clip_a"):config()
  config.text_config.vocab_size, config.text_config.max_position_embeddings = core.tokenizer(tokenizer):size(), 16
  config.text_config.eos_token_id = core.tokenizer(tokenizer):specials().eos
  local model = core.model.create(config)
  model:init(seed)
  model:save(folder)
  require("syz.data").copy_folder(tokenizer, folder)
  return folder
end

--- The lines of a text.
function support.lines(content)
  local lines = {}
  for line in content:gmatch("[^\n]+") do lines[#lines + 1] = line end
  return lines
end

return support
