-- Dry runs of the FLUX recipes, on the embedded models: what is said of the real run is what a real one does.
local core = require "syz.core"
local dry_step = require "syz.dry_step"
local published = require "syz.published"
local support = dofile "tests/lua/support.lua"

local EMOJI = "--set model=examples/emoji/pipeline --set size=64 --set batch=2"
local REWARD = " --set reward=examples/emoji/reward"

local function dry(arguments)
  local code, out, err = support.syz(".", "run " .. arguments .. " --dry-run --json --quiet")
  return code, code == 0 and core.json.decode(out:match "([^\n]+)\n$") or nil, err -- the lines before are progress
end

local function of_class(report, class)
  for _, row in ipairs(report.models) do
    if row.class == class then return row end
  end
end

describe("a dry run", function()
  teardown(support.clean)

  for _, name in ipairs { "srpo_hps", "srpo_pickscore", "refl", "draft_lv", "dance_grpo" } do
    it("builds and steps recipes/flux/" .. name .. ".lua", function()
      local more = name == "dance_grpo" and " --set group=3 --set rollout=4" or ""
      local code, report, err = dry(("recipes/flux/%s.lua %s"):format(name, EMOJI .. REWARD .. more))
      assert.equal(0, code, err)
      assert.equal(2, report.parts)
      assert.is_true(report.flops > 1e9)
      assert.is_true(report.peak > 1e6)
      -- the others may stand still here: this reward is above ReFL's threshold, and GRPO's clip binds at once
      assert.is_true(report.stats.grad_norm > (name:find "srpo" and 0 or -1))
      local transformer = of_class(report, "FluxTransformer2DModel")
      assert.equal("trained", transformer.role)
      assert.equal(16 * transformer.parameters, transformer.bytes)
    end)
  end

  it("trains adapters where the recipe does", function()
    local code, report, err = dry("recipes/flux/srpo_hps.lua --set lora=4 " .. EMOJI .. REWARD)
    assert.equal(0, code, err)
    assert.equal("frozen", of_class(report, "FluxTransformer2DModel").role)
  end)

  it("stands in for files that are not there, with as little depth as was asked for", function()
    local code, report, err = dry("recipes/flux/srpo_hps.lua --layers 2 --set reward=nowhere/HPS.pt " .. EMOJI)
    assert.equal(0, code, err)
    local tower = of_class(report, "CLIPModel")
    assert.is_true(tower.missing)
    assert.equal("nowhere/HPS.pt", tower.path)
    assert.equal(986109441, tower.parameters)
    assert.is_true(tower.shallow < tower.parameters / 5)
    assert.is_false(of_class(report, "AutoencoderKL").missing)
    -- the bytes of the tower's blocks that were left out are part of the peak at full depth
    assert.is_true(report.peak_full - report.peak >= 2 * (tower.parameters - tower.shallow))
    local _, deeper = dry("recipes/flux/srpo_hps.lua --layers 4 --set reward=nowhere/HPS.pt " .. EMOJI)
    -- what is left out is made up for: two layers or four, the operations of full depth are the same, nearly
    local ratio = of_class(deeper, "CLIPModel").flops / tower.flops
    assert.is_true(ratio > 0.8 and ratio < 1.25, ratio)
  end)

  it("scales a shallow transformer's operations to its full depth", function()
    local full = published.config "flux.1-dev"
    local entry = { config = full, model = core.model.create(published.shallow(full, 1)) }
    -- 2 of 57 blocks that cost the same; what is around them weighs little
    local times = dry_step.deeper(entry, { h = 90, w = 90, text_length = 512 })
    assert.is_true(times > 0.95 * 57 / 2 and times < 57 / 2)
    assert.equal(1, dry_step.deeper({ config = full, model = core.model.create(full) }, { h = 90, w = 90,
      text_length = 512 }))
  end)

  it("leaves nothing behind, and says what it cannot do", function()
    local code, _, err = dry("recipes/flux/refl.lua --out somewhere")
    assert.equal(2, code)
    assert.is_truthy(err:find("--dry-run writes nothing", 1, true), err)
    assert.is_falsy(core.file.exists "somewhere")
    code, _, err = dry "recipes/paper/words.lua"
    assert.equal(1, code)
    assert.is_truthy(err:find("returns something else", 1, true), err)
  end)

  it("fails as the run would: a wrong option, a model of another kind", function()
    local code, _, err = dry("recipes/flux/refl.lua --set ema=2 " .. EMOJI .. REWARD)
    assert.equal(1, code)
    assert.is_truthy(err:find("recipes/flux/refl.lua:", 1, true), err)
    code, _, err = dry("recipes/flux/refl.lua --set reward=examples/emoji/pipeline " .. EMOJI)
    assert.equal(1, code)
    assert.is_truthy(err:find("pipeline folder", 1, true), err)
  end)
end)
