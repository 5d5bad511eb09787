--- syz console [RECIPE]
---@type syz.Command
return {
  name = "console",
  summary = "experiment interactively: models, tensors and methods at a prompt",
  positional = { { name = "RECIPE", optional = true } },
  complete = "file",
  examples = { "syz console", "syz console recipes/srpo.lua" },
  run = function(given)
    return require("syz.console").main(given)
  end,
}
