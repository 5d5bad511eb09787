local core = require "syz.core"
local chart = require "syz.chart"
local files = require "syz.files"
local page = require "syz.report_page"
local progress = require "syz.progress"
local report = require "syz.report"
local run = require "syz.run"
local support = dofile "tests/lua/support.lua"

describe("ticks", function()
  it("are round and lie inside", function()
    assert.same({ 0, 50, 100, 150, 200 }, chart.ticks(0, 200, 4))
    assert.same({ 20, 40, 60, 80, 100, 120 }, chart.ticks(20, 120, 5))
    for _, range in ipairs { { 0.31, 0.55 }, { -1e-4, 3e-4 }, { 1e5, 9e6 }, { -3, -1 }, { 0.09, 0.9 }, { 0, 1e-9 } } do
      local ticks = chart.ticks(range[1], range[2], 3)
      assert.is_true(#ticks >= 2 and #ticks <= 8, ("%g to %g: %d ticks"):format(range[1], range[2], #ticks))
      for _, tick in ipairs(ticks) do
        local slack = 1e-9 * (range[2] - range[1])
        assert.is_true(tick >= range[1] - slack and tick <= range[2] + slack)
      end
    end
  end)
end)

describe("a chart", function()
  it("draws few points as dots and many as a smoothed line over the raw one", function()
    local few, many = {}, {}
    for i = 1, 5 do few[i] = { i, i * i } end
    for i = 1, 2000 do many[i] = { i, i % 7 } end
    local _, dots = chart.svg(few):gsub('class="dot"', "")
    assert.equal(5, dots)
    local svg = chart.svg(many)
    assert.is_truthy(svg:find('class="raw"', 1, true))
    assert.is_true(#svg < 60000, #svg .. " bytes")
    assert.is_truthy(svg:find(",2000,5\"", 1, true)) -- the last point is told exactly
  end)

  it("copes with one point and with a constant", function()
    assert.is_nil(chart.svg({ { 3, 1 } }):find("nan"))
    assert.is_nil(chart.svg({ { 1, 0 }, { 2, 0 } }):find("nan"))
  end)
end)

describe("a report", function()
  local folder
  before_each(function()
    folder = support.folder() .. "/run"
    progress.configure { quiet = true }
  end)
  teardown(function()
    support.clean()
    progress.configure()
  end)

  local function a_run(steps)
    local opened = assert(run.open { out = folder, recipe = {
      name = "toy<&>", path = "toy.lua", source = "-- </pre><script>alert(1)</script>\n", required = {},
      values = { words = "<i>flat</i>" },
      declared = { { name = "words", kind = "string", default = "", help = "what to \"move\" to" } },
    } })
    core.scope(function()
      opened:sample(0, core.full({ 3, 4, 4, 3 }, 0.2), "before")
      opened:sample(steps, core.full({ 3, 4, 4, 3 }, 0.8), "after")
    end)
    opened:prompts { "red <script>apple</script>", 'a "quoted" pear', "plum" }
    for step = 1, steps do
      opened:log(step, { loss = 1 / step, lr = 1e-3 })
      opened:ledger(step, { { m = step, branch = "<denoise>" } })
    end
    opened:summary { judge_style_probability = { before = 0.25, after = 0.75 }, seconds = 61 }
    opened:close("finished")
    return assert(core.file.read(assert(report.write(folder))))
  end

  it("is one page that needs no other", function()
    local html = a_run(30)
    for _, outside in ipairs { "http:", "https:", "//cdn", "<link", "src=\"" } do
      assert.is_nil(html:find(outside, 1, true), outside)
    end
    local _, embedded = html:gsub("data:image/png;base64,", "")
    assert.equal(2, embedded)
    local before = core.base64(core.file.read(folder .. "/samples/before.png"))
    assert.is_truthy(html:find(before, 1, true))
  end)

  it("puts every picture before above the one after", function()
    a_run(1)
    core.scope(function()
      local picture = core.image.read(folder .. "/before-after.png")
      assert.same({ 4 + 2 + 4, 3 * 4 + 2 * 2, 3 }, picture:shape())
      local values = (picture:to("f32") / 255):totable()
      local function at(row, column) return values[(row * 16 + column) * 3 + 1] end
      assert.near(0.2, at(0, 0), 0.01)
      assert.near(0.2, at(3, 15), 0.01)
      assert.near(0.8, at(6, 0), 0.01)
      assert.near(1, at(4, 0), 0.01)
    end)
  end)

  it("shows each part of the run", function()
    local html = a_run(30)
    local _, figures = html:gsub("<figure>", "")
    assert.equal(3, figures)
    assert.is_truthy(html:find("a &quot;quoted&quot; pear", 1, true))
    assert.is_truthy(html:find("judge style probability", 1, true))
    assert.is_truthy(html:find("+0.5", 1, true))
    assert.is_truthy(html:find("1:01 min", 1, true))
    assert.is_truthy(html:find("Constant: lr 0.001", 1, true))
    assert.is_truthy(html:find("30 rows, the first and the last shown", 1, true))
    local _, charts = html:gsub("<svg", "")
    assert.equal(1, charts)
  end)

  it("shows evaluations apart from training, where the run stopped, and which step was kept", function()
    local opened = assert(run.open { out = folder, recipe = {
      name = "toy", path = "toy.lua", source = "", required = {}, values = {}, declared = {} } })
    for step = 0, 30, 10 do
      local name = step == 0 and "before" or nil
      core.scope(function() opened:sample(step, core.full({ 4, 4, 4, 3 }, step / 30), name) end)
      opened:log(step, { ["eval/sgp"] = step, ["eval/reward"] = step * 2, ["eval/held"] = -((step - 10) ^ 2) })
      opened:log(step + 1, { reward = 7 + step })
    end
    core.file.write(folder .. "/samples/after.png", core.file.read(folder .. "/samples/step-000010.png"))
    local layouts = files.read_json(folder .. "/samples/layout.json")
    layouts.after = layouts["step-000010"]
    files.write_json(folder .. "/samples/layout.json", layouts)
    opened:prompts { "cat", "cat", "dog", "<cow>" }
    opened.state.kept_step, opened.state.guards = 10, { held = -200 }
    opened.state.stopped = { step = 30, reason = "held <fell>", reasons = { held = "held <fell>" } }
    opened:summary { sgp = { before = 0, after = 10 } }
    opened:close("finished")
    local html = assert(core.file.read(assert(report.write(folder))))
    local function count(words)
      local n, at = 0, 1
      while true do
        local _, stop = html:find(words, at, true)
        if not stop then return n end
        n, at = n + 1, stop + 1
      end
    end
    assert.equal(1, count "<b>Stopped at step 30:</b> held &lt;fell&gt;. <b>The model is that of step 10.</b>")
    assert.equal(1, count "Before and after (step 10), same seeds")
    assert.equal(1, count "step 10, kept")
    assert.equal(4, count "<svg") -- three evaluated metrics, one of training
    assert.equal(4, count '<g class="at stopped"><title>stopped at step 30: held &lt;fell&gt;</title>')
    assert.equal(4, count '<g class="at kept">')
    assert.equal(1, count '<div class="panel cause"><header><b>held</b>')
    assert.equal(1, count '<p class="why">held &lt;fell&gt;</p>')
    assert.equal(1, count '<g class="level">')
    assert.equal(0, count "eval/")
    local evaluated, trained = html:find("Evaluations on fixed", 1, true), html:find("<h2>Training", 1, true)
    assert.is_true(evaluated < trained)
    local _, before_first = html:sub(1, html:find("<b>sgp</b>", 1, true)):gsub('<div class="panel', "")
    assert.equal(1, before_first) -- what was optimised comes first
    assert.equal(3, count 'th scope="row"') -- the way of each prompt, once
    assert.is_nil(html:find("<details open", 1, true))
  end)

  it("takes nothing from a stranger's run as markup", function()
    local html = a_run(3)
    local _, scripts = html:gsub("<script>", "")
    assert.equal(1, scripts)
    for _, raw in ipairs { "<i>flat", "<denoise>", "toy<&>" } do assert.is_nil(html:find(raw, 1, true), raw) end
    assert.equal("&lt;&amp;&gt;&quot;&#39;", page.escape "<&>\"'")
  end)

  it("places every cell of a grid by its own background position", function()
    local html = a_run(3)
    -- 3 cells of 4 px, 2 columns, gap 2: the whole is 10 px, so the second column starts 6 of the 6 px that are left
    local cells = {}
    for size, position in html:gmatch("background%-size:([%d%.%% ]+);background%-position:([%d%.%% ]+)") do
      cells[#cells + 1] = size .. "|" .. position
    end
    assert.equal(6, #cells)
    assert.equal("250.0000% 250.0000%|0.0000% 0.0000%", cells[1])
    assert.equal("250.0000% 250.0000%|100.0000% 0.0000%", cells[3])
    assert.equal("250.0000% 250.0000%|0.0000% 100.0000%", cells[5])
  end)

  it("is made from what is there", function()
    core.file.mkdir(folder)
    local path, reason = report.write(folder)
    assert.is_nil(path)
    assert.is_truthy(reason:find("holds no run", 1, true))
    files.write_json(folder .. "/run.json", { name = "bare", status = "failed" })
    assert.is_truthy(report.write(folder .. "/"))
  end)
end)
