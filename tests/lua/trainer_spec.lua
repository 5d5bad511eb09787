local core = require "syz.core"
local files = require "syz.files"
local support = dofile "tests/lua/support.lua"

-- The tiny recipe with other prompts, run by the program: exit code, stderr and the ledger.
local function run_with(prompts)
  local folder = support.folder()
  local source = core.file.read "tests/recipes/tiny.lua"
  local from, to = source:find('prompts = { "a red cat", "two dogs", "a green hat" }', 1, true)
  source = source:sub(1, from - 1) .. "prompts = " .. prompts .. source:sub(to + 1)
  source = source:gsub("eval = {", 'eval = { prompts = { "a red cat" },', 1)
  local path = support.write(folder, "recipe.lua", source)
  local code, _, err = support.syz(".", ("run '%s' --quiet --set steps=3 --out '%s/run'"):format(path, folder))
  local texts = {}
  if code == 0 then
    for _, entry in ipairs(files.read_lines(folder .. "/run/ledger.jsonl")) do
      if entry.object.branch == "denoise" then texts[#texts + 1] = entry.object.positive end
    end
  end
  return code, err, texts
end

describe("prompts as a function", function()
  teardown(support.clean)

  it("make the texts of each step", function()
    local code, err, texts = run_with 'function(step) return { "prompt " .. step, "another" } end'
    assert.equal(0, code, err)
    assert.same({ "Real. prompt 1", "Real. prompt 2", "Real. prompt 3" }, texts)
  end)

  it("are refused when they are not a list of strings", function()
    for _, value in ipairs { "{}", '"cat"', "{ 3 }", "nil" } do
      local code, err = run_with("function() return " .. value .. " end")
      assert.equal(1, code)
      assert.is_truthy(err:find("prompts(1) must return a list of strings, one per sample", 1, true), err)
    end
  end)
end)
