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
