--- syz completion bash|zsh: a completion script, made from the same declarations as the help.
local args = require "syz.cli.args"

---@type syz.Command
local command = {
  name = "completion",
  summary = "print a completion script for bash or zsh",
  positional = { { name = "SHELL" } },
  examples = {
    "source <(syz completion bash)     # in ~/.bashrc",
    "source <(syz completion zsh)      # in ~/.zshrc",
  },
}

local function flag_words(declared)
  local words = {}
  for _, flag in ipairs(args.flags(declared)) do words[#words + 1] = "--" .. flag.name end
  return table.concat(words, " ")
end

local function bash(cli)
  local cases = {}
  for _, name in ipairs(cli.commands) do
    local declared = cli.command(name)
    local files = declared.complete == "file" and "compgen -f" or declared.complete == "folder" and "compgen -d"
    local others = name == "help" and ('compgen -W "%s"'):format(table.concat(cli.commands, " "))
      or name == "completion" and 'compgen -W "bash zsh"' or files or ":"
    cases[#cases + 1] = ([[    %s) flags="%s"; others='%s' ;;]]):format(name, flag_words(declared), others)
  end
  return ([[
# completion of syz for bash
_syz() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} flags others
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "%s" -- "$word"))
    return
  fi
  case ${COMP_WORDS[1]} in
%s
    *) return ;;
  esac
  case $before in
    --checkpoint)
      COMPREPLY=($(compgen -W "best newest $(cd -- "${COMP_WORDS[2]}/checkpoints" 2>/dev/null && ls)" -- "$word"))
      return ;;
    --dtype)
      COMPREPLY=($(compgen -W "bf16 f16 f32" -- "$word")); return ;;
    --device)
      COMPREPLY=($(compgen -W "cpu cuda" -- "$word")); return ;;
    --set)
      compopt -o nospace 2>/dev/null
      COMPREPLY=($(compgen -S = -W "$("${COMP_WORDS[0]}" run "${COMP_WORDS[2]}" --help 2>/dev/null |
        sed -n 's/^  \([a-z_][a-z_0-9]*\)  .*/\1/p')" -- "$word"))
      return ;;
    -o|-m|-r|--out|--config|--model|--reward|--random|--images|--prompts|--tokens|--transformer|--lora|--resume)
      COMPREPLY=($(compgen -f -- "$word")); return ;;
  esac
  case $word in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
    *) [ "$others" = : ] || COMPREPLY=($($others -- "$word")) ;;
  esac
}
complete -o filenames -F _syz syz
]]):format(table.concat(cli.commands, " "), table.concat(cases, "\n"))
end

local function quote(s)
  return s:gsub("'", "'\\''"):gsub(":", "\\:")
end

local function zsh_flags(declared)
  local specs = {}
  for _, flag in ipairs(args.flags(declared)) do
    local help = quote(flag.help):gsub("[%[%]]", "\\%0")
    local named = flag.value == "FILE" or flag.value == "DIR" or flag.value == "PATH"
    local files = named and ":file:_files" or flag.value and
      ":" .. flag.value:lower():gsub("=", " ") .. ": " or ""
    specs[#specs + 1] = ("'%s--%s[%s]%s'"):format(flag.many and "*" or "", flag.name, help, files)
  end
  return table.concat(specs, " ")
end

local function zsh(cli)
  local described, cases = {}, {}
  for _, name in ipairs(cli.commands) do
    local declared = cli.command(name)
    described[#described + 1] = ("    '%s:%s'"):format(name, quote(declared.summary))
    local rest = declared.complete and " '*:file:_files'" or name == "completion" and " '1:shell:(bash zsh)'" or ""
    cases[#cases + 1] = ("    %s) _arguments %s%s ;;"):format(name, zsh_flags(declared), rest)
  end
  return ([[
# completion of syz for zsh
_syz() {
  local -a commands
  commands=(
%s
  )
  if (( CURRENT == 2 )); then
    _describe 'command' commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
%s
  esac
}
compdef _syz syz
]]):format(table.concat(described, "\n"), table.concat(cases, "\n"))
end

function command.run(given)
  local cli = require "syz.cli"
  local make = ({ bash = bash, zsh = zsh })[given[1]]
  if not make then return cli.misuse(('knows bash and zsh, not "%s"'):format(given[1]), command) end
  cli.out(make(cli))
  return cli.ok
end

return command
