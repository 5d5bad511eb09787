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

  it("leave the evaluation to have prompts of its own", function()
    local folder = support.folder()
    local tiny = core.file.read "tests/recipes/tiny.lua"
    local source = tiny:gsub('prompts = { "a red cat".-}', "prompts = function() end")
    local path = support.write(folder, "recipe.lua", source)
    local code, _, err = support.syz(".", ("run '%s' --quiet --out '%s/run'"):format(path, folder))
    assert.equal(1, code)
    assert.is_truthy(err:find("prompts is a function, so the evaluation needs a list of its own", 1, true), err)
  end)

  it("are refused when they are not a list of strings", function()
    for _, value in ipairs { "{}", '"cat"', "{ 3 }", "nil" } do
      local code, err = run_with("function() return " .. value .. " end")
      assert.equal(1, code)
      assert.is_truthy(err:find("prompts(1) must return a list of strings, one per sample", 1, true), err)
    end
  end)
end)

-- A method without random numbers, so that a batch in parts must give what the whole batch gives.
local FIXED = [[
local syz = require "syz"
local pipe = syz.pipeline("tests/models/data/pipeline", { size = { 16, 16 } })
local method = { name = "fixed", pipeline = pipe, modules = { transformer = pipe.transformer },
  reward = { score = function(_, images) return images:mean({ 1, 2, 3 }) end } }
function method:step(batch)
  local x = pipe:noise(syz.generator(3), 1)
  local shape = x:shape()
  shape[1] = #batch.prompts
  local loss = pipe:velocity(x:broadcast_to(shape), 0.5, batch.cond):square():mean()
  loss:backward()
  return { loss = loss:item() }, { { branch = "fixed", texts = table.concat(batch.prompts, "+") } }
end
return syz.train { method = method, prompts = { "a", "two dogs", "a green hat", "the sea" }, steps = 2, seed = 1,
  optimizer = syz.adamw { lr = 1e-3, clip = 0.01 }, eval = { prompts = { "a" }, grid = 1, steps = 1 }, REST }
]]

local function fixed(rest)
  local folder = support.folder()
  local path = support.write(folder, "recipe.lua", (FIXED:gsub("REST", rest)))
  local code, _, err = support.syz(".", ("run '%s' --quiet --out '%s/run'"):format(path, folder))
  local steps, texts = {}, {}
  if code == 0 then
    for _, entry in ipairs(files.read_lines(folder .. "/run/metrics.jsonl")) do
      if entry.object.loss then steps[#steps + 1] = entry.object end
    end
    for _, entry in ipairs(files.read_lines(folder .. "/run/ledger.jsonl")) do
      texts[#texts + 1] = { entry.object.part, entry.object.texts }
    end
  end
  return code, err, steps, texts
end

describe("accumulate", function()
  teardown(support.clean)

  it("makes the same updates from a batch in parts", function()
    local _, _, whole = fixed "batch = 4"
    local code, err, parts, texts = fixed "batch = 4, accumulate = 2"
    assert.equal(0, code, err)
    assert.equal(2, #parts)
    for step = 1, 2 do
      for _, name in ipairs { "loss", "grad_norm" } do
        local wanted = whole[step][name]
        assert.is_true(math.abs(parts[step][name] - wanted) < 1e-4 * wanted, name)
      end
    end
    assert.is_true(math.abs(whole[1].loss - whole[2].loss) > 1e-6)
    assert.equal(4, #texts)
    assert.same({ 1, 2, 1, 2 }, { texts[1][1], texts[2][1], texts[3][1], texts[4][1] })
    assert.is_truthy(texts[1][2]:find "%+")
  end)

  it("must divide the batch", function()
    local code, err = fixed "batch = 4, accumulate = 3"
    assert.equal(1, code)
    assert.is_truthy(err:find("accumulate = 3 does not divide the batch of 4", 1, true), err)
  end)

  it("shares one noise among all parts where the batch does", function()
    local path = require "syz.methods.path"
    local method = { noise = "shared", pipeline = { noise = function(_, generator, n)
      return generator:randn { n, 2, 3 }
    end } }
    core.scope(function()
      local generator, drawn = core.generator(1), {}
      for part = 1, 3 do
        drawn[part] = path.draw_noise(method, { prompts = { "a", "b" }, part = part }, generator):totable()
      end
      assert.same(drawn[1], drawn[2])
      assert.same(drawn[1], drawn[3])
      local other = path.draw_noise(method, { prompts = { "a", "b" }, part = 1 }, generator):totable()
      assert.are_not.same(drawn[1], other)
    end)
    method.shared_noise:free()
  end)

  it("is refused by a method that updates within a step", function()
    local folder = support.folder()
    local source = core.file.read("tests/recipes/tiny.lua"):gsub("batch = 2,", "batch = 2, accumulate = 2,")
    local path = support.write(folder, "recipe.lua", source)
    local code, _, err = support.syz(".", ("run '%s' --quiet --set method=grpo --out '%s/run'"):format(path, folder))
    assert.equal(1, code)
    assert.is_truthy(err:find("GRPO has micro_batch", 1, true), err)
  end)
end)
