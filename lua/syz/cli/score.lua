--- syz score: what a reward thinks of image files.
local core = require "syz.core"
local text = require "syz.text"

---@type syz.Command
local command = {
  name = "score",
  summary = "score image files with a reward",
  positional = { { name = "IMAGE", many = true } },
  complete = "file",
  flags = {
    { name = "reward", short = "r", value = "PATH",
      help = "a CLIP-like reward's folder, or KIND:PATH: hps, pickscore, clip_score, image_reward, "
        .. "aesthetic:HEAD,TOWER" },
    { name = "prompt", short = "p", value = "TEXT", many = true,
      help = "what the images should show; several are compared side by side; an aesthetic reward needs none" },
  },
  examples = {
    'syz score --reward examples/emoji/reward --prompt "red apple" apple.png pear.png',
    'syz score --reward examples/emoji/reward --prompt "3D render. apple" --prompt "Flat. apple" apple.png',
    'syz score --reward hps:HPS_v2.1_compressed.pt --prompt "a red apple on a table" apple.png',
  },
}

local function score_one(reward, path, prompts)
  return core.no_grad(core.scope, function()
    local picture = core.image.read(path):to("f32") / 255
    local shape = picture:shape()
    picture = picture:reshape({ 1, shape[1], shape[2], shape[3] })
    local scores = {}
    for i, prompt in ipairs(prompts) do scores[i] = reward:score(picture, { prompt }):totable()[1] end
    return scores
  end)
end

function command.run(given)
  local cli = require "syz.cli"
  if not given.reward then return cli.misuse("needs --reward PATH", command) end
  local blind = given.reward:find("^aesthetic:") ~= nil -- reads no text
  if not given.prompt and not blind then
    return cli.misuse('needs --prompt "what the images should show"', command)
  end
  local reward, prompts = require("syz.rewards.open").open(given.reward), blind and { "" } or given.prompt
  local paint, rows, failures = text.painter("stdout"), { { "" } }, 0
  for i, prompt in ipairs(prompts) do rows[1][i + 1] = paint("bold", blind and "score" or text.clip(prompt, 32)) end
  for _, path in ipairs(given) do
    local ok, scores = pcall(score_one, reward, path, prompts)
    if not ok and (core.terminating() or scores == "interrupted") then error(scores, 0) end
    if not ok then
      failures = failures + 1
      cli.fail(scores)
    elseif given.json then
      local object = { image = path, prompts = core.array(prompts), scores = core.array(scores) }
      cli.out(core.json.encode(object) .. "\n")
    else
      local row = { path }
      for i, score in ipairs(scores) do row[i + 1] = ("%.4f"):format(score) end
      rows[#rows + 1] = row
    end
  end
  if not given.json and #rows > 1 then cli.out(text.columns(rows)) end
  return failures > 0 and cli.failed or cli.ok
end

return command
