--- The rule that stops a training and chooses its model: on sequences of metrics, and on a run with a reward that can
--- be hacked. (stop_spec.lua is about signals.)
local core = require "syz.core"
local checkpoint = require "syz.checkpoint"
local files = require "syz.files"
local stop = require "syz.stop"
local support = dofile "tests/lua/support.lua"

local NAMES = { "contrast", "diversity", "held", "judge_subject_accuracy", "reward", "sgp" }

local function rule_of(spec, held_out) return stop.new(spec, NAMES, held_out or { "held" }) end

-- Feed columns { sgp, held, diversity } to a rule; the first row is before training. Returns the step it stopped at,
-- the reason, and the step it keeps.
local function play(rule, rows, each)
  for i, row in ipairs(rows) do
    local values = { sgp = row[1], held = row[2], diversity = row[3] or 1, reward = row[1] * 2, contrast = 0.2,
                     judge_subject_accuracy = 0.9 }
    local step = (i - 1) * 10
    if i == 1 then
      rule:start(values, each and each[i])
    else
      local _, reason = rule:observe(step, values, each and each[i])
      if reason then return step, reason, rule.best and rule.best.step end
    end
  end
  return nil, nil, rule.best and rule.best.step
end

local HACKED = { { 0, .20 }, { 1, .30 }, { 2, .40 }, { 3, .38 }, { 4, .35 }, { 5, .31 }, { 6, .2 }, { 7, .1 } }

describe("a stop rule", function()
  it("stops when a held-out metric stays below its best while the optimised one rises", function()
    local step, reason, kept = play(rule_of { patience = 3, noise = 0 }, HACKED)
    assert.equal(50, step)
    assert.equal("held lay below its best, 0.4 at step 20, in 3 evaluations while sgp rose from 2 to 5", reason)
    assert.equal(20, kept) -- sgp is higher later, where held has turned
    assert.equal(30, (play(rule_of { patience = 1, noise = 0 }, HACKED)))
  end)

  it("takes no difference within the noise for a turn", function()
    assert.equal(60, (play(rule_of { patience = 3, noise = 0.03 }, HACKED)))
    local step, _, kept = play(rule_of { patience = 3, noise = { held = 0.31 } }, HACKED)
    assert.is_nil(step)
    assert.equal(70, kept)
  end)

  it("measures the noise over the prompts, which are the same each time", function()
    -- twice the standard error of a difference: 2 * sd / sqrt(4)
    local function each_of(shift) return { held = { .1 + shift[1], .2 + shift[2], .3 + shift[3], .4 + shift[4] } } end
    local rows, each = { { 0, .25 }, { 1, .20 }, { 2, .20 } }, {}
    for i = 1, 3 do each[i] = each_of(i == 1 and { 0, 0, 0, 0 } or { -.05, -.05, -.05, -.05 }) end
    assert.equal(20, (play(rule_of { patience = 2 }, rows, each))) -- every prompt fell alike: no noise at all
    for i = 2, 3 do each[i] = each_of { .15, -.25, .1, -.2 } end -- mean -.05 too, its standard error is .1
    assert.is_nil((play(rule_of { patience = 2 }, rows, each)))
  end)

  it("forgives a dip that ends in time, and counts anew", function()
    local rows = { { 0, .2 }, { 1, .4 }, { 2, .3 }, { 3, .3 }, { 4, .41 }, { 5, .3 }, { 6, .3 }, { 7, .42 } }
    local step, _, kept = play(rule_of { patience = 3, noise = 0 }, rows)
    assert.is_nil(step)
    assert.equal(70, kept)
  end)

  it("does not call it hacking when the optimised metric falls as well", function()
    local rows = { { 0, .2 }, { 3, .4 }, { 2, .3 }, { 1, .2 }, { 1, .1 }, { 0, .1 } }
    local step, _, kept = play(rule_of { patience = 2, noise = 0 }, rows)
    assert.is_nil(step)
    assert.equal(10, kept)
  end)

  it("never keeps an evaluation at which something watched has turned", function()
    local rows = { { 0, .2 }, { 1, .4 }, { 9, .3 }, { 2, .4 } }
    assert.equal(30, select(3, play(rule_of { patience = 3, noise = 0 }, rows)))
  end)

  it("keeps the start when nothing was better", function()
    assert.equal(0, select(3, play(rule_of { keep_best = "sgp" }, { { 1, .2 }, { .5, .2 }, { .9, .2 } })))
  end)

  it("keeps what a function of the metrics likes best", function()
    local rule = rule_of { watch = {}, keep_best = function(m) return m.sgp + 10 * m.held end }
    assert.equal(50, select(3, play(rule, HACKED)))
    local wrong = rule_of { watch = {}, keep_best = function() return "much" end }
    assert.error_matches(function() play(wrong, HACKED) end, "stop.keep_best must return a number, not much")
  end)

  it("keeps nothing when it is told so", function()
    local step, _, kept = play(rule_of { keep_best = false, patience = 2, noise = 0 }, HACKED)
    assert.equal(40, step)
    assert.is_nil(kept)
  end)
end)

describe("a guard", function()
  local function guarded(limit, diversity)
    local rows = { { 0, .2, 1 } }
    for i, value in ipairs(diversity) do rows[i + 1] = { i, .2, value } end
    return play(rule_of { guard = { diversity = limit }, watch = {} }, rows)
  end

  it("stops at the first evaluation beyond it, and keeps the best one before", function()
    local step, reason, kept = guarded(-0.15, { 1.1, .9, .85, .8, .9 })
    assert.equal(40, step) -- .85 is at the limit, not beyond it
    assert.equal("diversity fell from 1 to 0.8, by more than the guard's 0.15", reason)
    assert.equal(30, kept)
  end)

  it("may bound a rise, or a share of the value before", function()
    local step, reason = guarded(0.2, { 1.1, .5, 1.21 })
    assert.equal(30, step)
    assert.equal("diversity rose from 1 to 1.21, by more than the guard's 0.2", reason)
    local rule = rule_of { guard = { contrast = "-25%" } }
    rule:start { sgp = 1, held = 1, reward = 1, contrast = .2 }
    assert.same({ contrast = .15000000000000002 }, rule:limits())
    assert.is_nil(select(2, rule:observe(10, { sgp = 1, held = 1, contrast = .151 })))
    assert.equal("contrast fell from 0.2 to 0.149, by more than the guard's 25%",
      select(2, rule:observe(20, { sgp = 1, held = 1, contrast = .149 })))
  end)

  it("takes what is no number for broken", function()
    local step, reason = guarded(-0.15, { 1, 0 / 0 })
    assert.equal(20, step)
    assert.equal("diversity is not a finite number", reason)
  end)
end)

describe("the rule's state", function()
  it("taken up at any evaluation leads to the same decisions", function()
    local spec = { patience = 3, guard = { diversity = "-40%" } }
    local function row(i) return { sgp = i, held = .4 - .01 * (i - 3) ^ 2, diversity = 1 - .02 * i, reward = i } end
    local function each(i) return { held = { row(i).held - .1 / i, row(i).held + .1 / i } } end
    local function decisions(from)
      local rule, made = rule_of(spec), {}
      rule:start(row(1), each(1))
      for i = 2, 9 do
        if i == from then
          local state = core.json.decode(core.json.encode(rule:state()))
          rule = rule_of(spec)
          rule:load(state)
        end
        local best, reason = rule:observe(i, row(i), each(i))
        made[#made + 1] = tostring(best) .. " " .. tostring(reason) .. " " .. core.json.encode(rule:state())
        if reason then break end
      end
      return made
    end
    local whole = decisions()
    assert.is_true(#whole > 4 and #whole < 8) -- it stops by its patience, in the middle
    for from = 2, #whole + 1 do assert.same(whole, decisions(from)) end
  end)

  it("gives way where the recipe has changed", function()
    local rule = rule_of { noise = 0 }
    play(rule, { { 0, .2 }, { 1, .3 } })
    local state = core.json.decode(core.json.encode(rule:state()))
    local other = rule_of { keep_best = "held", watch = { "diversity" }, noise = 0, patience = 1 }
    other:load(state)
    assert.is_nil(other.best)
    local _, reason = other:observe(20, { sgp = 2, held = .1, diversity = .5 })
    assert.equal("diversity lay below its best, 1 at step 0, in 1 evaluations while sgp rose from 0 to 2", reason)
  end)
end)

describe("a mistake in `stop`", function()
  it("is named in one line", function()
    local function refused(spec, words, held_out)
      assert.error_matches(function() rule_of(spec, held_out) end, words, 1, true)
    end
    refused({ patiense = 2 }, 'stop has no field "patiense"; did you mean "patience"?')
    refused({ guard = { divresity = -.1 } }, 'stop.guard: the evaluation has no metric "divresity"; did you mean')
    refused({ keep_best = "spg" }, 'stop.keep_best: the evaluation has no metric "spg"; did you mean "sgp"?')
    refused({ watch = { "sgp" } }, '"sgp" is the optimised metric')
    refused({ guard = { held = "much" } }, "stop.guard.held must be a number other than 0")
    refused({ guard = { held = 0 } }, "stop.guard.held must be a number other than 0")
    refused({ patience = 2 }, "stop.patience has nothing to watch", {})
    refused({ patience = 1.5 }, "stop.patience must be a whole number from 1")
    refused({ noise = "auto" }, "stop.noise must be a number or table, not a string")
    local rule = rule_of { guard = { judge_subject_accuracy = -.1 } }
    assert.error_matches(function() rule:start { sgp = 1, held = 1 } end, "the judge knows none of the prompts")
  end)
end)

describe("a run with a reward that can be hacked", function()
  local folder
  local RECIPE = "run tests/recipes/hacked.lua --quiet --keep 50 --out '%s' %s"
  before_each(function() folder = support.folder() .. "/run" end)
  teardown(support.clean)

  local function run(path, more) return support.syz(".", RECIPE:format(path, more or "")) end
  local function metrics_at(path, step)
    for _, entry in ipairs(files.read_lines(path .. "/metrics.jsonl")) do
      if entry.object.step == step and entry.object["eval/reward"] then return entry.object end
    end
  end
  local function weights(path)
    return core.file.sha256(path .. "/transformer/diffusion_pytorch_model.safetensors")
  end

  it("stops after the turn and keeps the model from before it", function()
    local code, _, err = run(folder)
    assert.equal(0, code, err)
    local summary, record = files.read_json(folder .. "/summary.json"), files.read_json(folder .. "/run.json")
    local kept, last = summary.kept_step, summary.stopped_step
    assert.is_true(kept > 0 and kept < last and last < 40)
    assert.equal(last, summary.steps)
    assert.matches("^tone lay below its best, %S+ at step %d+, in 2 evaluations while reward rose", summary.stop_reason)
    assert.same({ summary.stop_reason, last, kept }, { record.stopped.reason, record.stopped.step, record.kept_step })
    assert.equal(1, #support.lines(err))
    assert.equal(("stopped at step %d: %s; the model is that of step %d, the best of %d"):format(last,
      summary.stop_reason, kept, last), support.lines(err)[1])
    -- "after" is the kept model's, which is what lies in model/
    assert.equal(metrics_at(folder, kept)["eval/tone"], summary.tone.after)
    assert.is_true(summary.tone.after > metrics_at(folder, last)["eval/tone"])
    assert.equal(metrics_at(folder, 0)["eval/tone"], summary.tone.before)
    assert.equal(kept, checkpoint.pinned(folder))
    assert.equal(weights(("%s/checkpoints/%s"):format(folder, checkpoint.name(kept))), weights(folder .. "/model"))
    assert.equal(core.file.read(("%s/samples/%s.png"):format(folder, checkpoint.name(kept))),
      core.file.read(folder .. "/samples/after.png"))
    -- asked to go on, it says why there is nothing to do, and changes nothing
    local before = core.file.read(folder .. "/summary.json")
    code, _, err = run(folder, "--resume")
    assert.equal(0, code)
    assert.matches(("complete: stopped at step %d, tone lay"):format(last), err)
    assert.equal(before, core.file.read(folder .. "/summary.json"))
  end)

  it("takes the same decision from wherever it is resumed", function()
    assert.equal(0, (run(folder)))
    local whole = files.read_json(folder .. "/summary.json")
    whole.seconds = nil
    for _, from in ipairs(checkpoint.list(folder)) do
      local torn = ("%s-%d"):format(folder, from.step)
      assert(os.execute(("cp -r '%s' '%s'"):format(folder, torn)) == 0)
      for _, later in ipairs(checkpoint.list(torn)) do
        if later.step > from.step then core.file.remove_tree(later.path) end
      end
      core.file.remove_tree(torn .. "/model")
      core.file.remove(torn .. "/summary.json")
      -- killed before the best was pinned: what is pinned is an older one, and the best would be pruned
      checkpoint.pin(torn, 0)
      local code, _, err = run(torn, "--resume --keep 1")
      assert.equal(0, code, err)
      local resumed = files.read_json(torn .. "/summary.json")
      resumed.seconds = nil
      assert.same(whole, resumed)
      assert.equal(core.file.read(folder .. "/metrics.jsonl"), core.file.read(torn .. "/metrics.jsonl"))
      assert.equal(weights(folder .. "/model"), weights(torn .. "/model"))
      assert.equal(whole.kept_step, checkpoint.pinned(torn))
    end
  end)

  it("stops at a guard, and goes on when the rule is taken away", function()
    assert.equal(0, (run(folder, "--set guard=-0.08 --set patience=1000")))
    local summary = files.read_json(folder .. "/summary.json")
    assert.matches("^saturation fell from %S+ to %S+, by more than the guard's 0.08$", summary.stop_reason)
    assert.is_true(summary.saturation.after >= summary.saturation.before - 0.08)
    assert.is_true(metrics_at(folder, summary.stopped_step)["eval/saturation"] < summary.saturation.before - 0.08)
    assert.equal(0, (run(folder, "--resume --set rule=no --set steps=14")))
    local longer, record = files.read_json(folder .. "/summary.json"), files.read_json(folder .. "/run.json")
    assert.same({ 14 }, { longer.steps, longer.stop_reason, longer.kept_step, record.stopped, record.kept_step })
    assert.equal(metrics_at(folder, 14)["eval/tone"], longer.tone.after)
  end)

  it("keeps the last model when it is told to keep none", function()
    assert.equal(0, (run(folder, "--set keep=no")))
    local summary = files.read_json(folder .. "/summary.json")
    assert.is_nil(summary.kept_step)
    assert.equal(metrics_at(folder, summary.stopped_step)["eval/tone"], summary.tone.after)
    assert.equal(weights(("%s/checkpoints/%s"):format(folder, checkpoint.name(summary.stopped_step))),
      weights(folder .. "/model"))
    assert.is_nil(core.file.exists(folder .. "/checkpoints/step-000000"))
  end)

  it("says so when the best checkpoint is lost, and keeps the last", function()
    assert.equal(0, (run(folder)))
    local summary = files.read_json(folder .. "/summary.json")
    core.file.remove(folder .. "/summary.json")
    core.file.remove_tree(("%s/checkpoints/%s"):format(folder, checkpoint.name(summary.kept_step)))
    local code, _, err = run(folder, "--resume")
    assert.equal(0, code)
    assert.matches(("step %d was the best, but its checkpoint is lost"):format(summary.kept_step), err)
    local again = files.read_json(folder .. "/summary.json")
    assert.equal(summary.stopped_step, again.kept_step)
    assert.equal(metrics_at(folder, again.kept_step)["eval/tone"], again.tone.after)
  end)
end)
