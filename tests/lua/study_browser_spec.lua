-- The rating page in a browser: keys, mouse, touch, reloading, saving. Needs Chromium, which is optional; without it
-- the spec is pending.
local browser = dofile "tests/lua/browser.lua"
local core = require "syz.core"
local collect = require "syz.study_collect"
local files = require "syz.files"
local reading = require "syz.study_ratings"
local study = require "syz.study"
local support = dofile "tests/lua/support.lua"

local program = browser.program()

-- WCAG 2.1: the contrast of every visible text with what is behind it; gives the texts below 4.5.
local contrast = [[(() => {
  const rgb = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m };
  const light = c => {
    const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 });
    return .2126 * r + .7152 * g + .0722 * b };
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c[3] === 1) return c } return [255, 255, 255, 1] };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest(".hear, :disabled, script, style, dialog:not([open])")) continue;
    const a = light(rgb(getComputedStyle(e).color).slice(0, 3)), b = light(behind(e).slice(0, 3));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push(e.textContent.trim().slice(0, 40) + " " + ratio.toFixed(2));
  }
  return low.join("; ");
})()]]

-- What can be pressed and is too small for a finger, or has no name.
local targets = [[[...document.querySelectorAll("button, input, textarea")].filter(e => e.checkVisibility() &&
  e.type !== "checkbox").filter(e => e.getBoundingClientRect().height < 43.5 || !(e.textContent.trim() ||
  e.getAttribute("aria-label") || e.labels && e.labels.length)).map(e => e.outerHTML.slice(0, 60)).join("; ")]]

if not program then
  describe("the rating page in a browser", function()
    it("is checked where Chromium is installed", function()
      pending "no chromium on this machine: the rating page was not driven in a browser"
    end)
  end)
  return
end

describe("the rating page in a browser", function()
  local b, folder, key, page
  local pictures = { {}, {} } -- [model][prompt]: as the page embeds them
  setup(function()
    folder = support.folder()
    local spec = { title = "Apples", seed = 3, models = {}, prompts = {}, pictures = {} }
    for p = 1, 3 do spec.prompts[p] = ("apple <b>%d</b>"):format(p) end
    for m = 1, 2 do
      spec.models[m], spec.pictures[m] = { name = "secretrun" .. m, source = "x" }, {}
      for p = 1, 3 do
        core.scope(function()
          local bytes = core.image.png(core.full({ 64, 64, 3 }, (3 * m + p) / 20))
          spec.pictures[m][p] = { kind = "png", bytes = bytes }
          pictures[m][p] = "data:image/png;base64," .. core.base64(bytes)
        end)
      end
    end
    local html
    html, key = study.build(spec)
    page = support.write(folder, "study.html", html)
    b = browser.start(program, folder)
  end)
  teardown(function()
    if b then b:stop() end
    support.clean()
  end)
  local function text(id) return b:value(("document.getElementById(%q).textContent"):format(id)) end

  -- Open the page again. The browser hands what it keeps from one process to the next in its own time.
  local function revisit(expected)
    for _ = 1, 20 do
      b:load(page)
      if text "sessions" == expected then return end
      os.execute "sleep 0.1"
    end
    assert.equal(expected, text "sessions")
  end

  before_each(function()
    b:open()
    b:load(page)
    b:value "localStorage.clear()"
    revisit ""
  end)
  after_each(function()
    assert.same({}, b.errors)
    assert.same({}, b.requests)
  end)

  local function start(name)
    b:type(name)
    b:press "Enter"
    b:await("!document.getElementById('rating').hidden", "the first image")
  end
  local function marked()
    return b:value "[...document.querySelectorAll('.ask')].findIndex(a => a.matches('.current'))"
  end
  -- the answers of the image shown: "1-3-" means Excellent, none, Pass, none
  local function answers()
    return b:value [[[...document.querySelectorAll(".ask")].map(a => { const i =
      [...a.querySelectorAll("button")].findIndex(x => x.getAttribute("aria-pressed") === "true");
      return i < 0 ? "-" : i + 1 }).join("")]]
  end
  local function at(place)
    b:await(("document.getElementById('place').textContent === 'image %d of 6'"):format(place))
  end
  local function press(keys)
    for k in keys:gmatch "." do b:press(k) end
  end

  it("is rated with the keyboard alone, and the file counts", function()
    start "Åda Byron"
    assert.equal("0 of 6 rated", text "progress")
    assert.equal(0, marked())
    b:press "1"
    assert.equal(1, marked())
    press "24"
    assert.equal("124-", answers())
    press "3"
    at(2)
    assert.equal("1 of 6 rated", text "progress")
    assert.equal("----", answers())
    -- the rest without waiting: a digit that comes early belongs to the next image
    for _ = 2, 6 do press "1111" end
    b:await "!document.getElementById('done').hidden"
    b:press "Tab" -- the heading has the focus; the next stop is the button that saves
    b:press "Enter"
    local saved, path = b:downloaded("a-da-byron-" .. key.study .. ".json")
    local file = core.json.decode(saved)
    assert.equal("Åda Byron", file.rater)
    assert.is_true(file.complete)
    local raters = assert(reading.raters({ path }, key))
    assert.equal(6, raters[1].rated)
    local r, n, low = collect.results(key, raters), { 0, 0, 0, 0 }, nil
    for _, share in ipairs(r.shares.detail) do
      for g = 1, 4 do n[g] = n[g] + share.counts[g] end
    end
    assert.same({ 5, 0, 0, 1 }, n) -- the third answer to the first image was 4, Fail
    for id, given in pairs(file.ratings) do
      if given.detail == "fail" then low = id end
    end
    assert.same({ alignment = "excellent", realism = "good", detail = "fail", aesthetics = "pass" }, file.ratings[low])
    assert.equal(saved, b:value "document.getElementById('text').value":gsub('"saved": "[^"]*"',
      saved:match '"saved": "[^"]*"'))
  end)

  it("shows the image and the prompt that the key means", function()
    start "Order"
    for place = 1, 6 do
      at(place)
      local shown = b:value "document.getElementById('image').src"
      local prompt, id = text "prompt", b:value "order[at].id"
      assert.equal(key.prompts[key.items[id].prompt], prompt)
      assert.equal(pictures[key.items[id].model][key.items[id].prompt], shown)
      press "2"
      b:press "ArrowRight"
    end
    b:value "save()"
    local file = core.json.decode((b:downloaded("order-" .. key.study .. ".json")))
    for id in pairs(key.items) do assert.same({ alignment = "good" }, file.ratings[id]) end
  end)

  it("moves, goes back, changes and takes back answers", function()
    start "Ada"
    press "1"
    b:press "ArrowRight"
    at(2)
    b:press "ArrowLeft"
    at(1)
    assert.equal("1---", answers())
    assert.equal(1, marked()) -- the first question that is open
    b:press "ArrowDown"
    press "2"
    assert.equal("1-2-", answers())
    assert.equal(1, marked())
    press "34"
    at(2)
    b:press "ArrowLeft"
    assert.equal("1324", answers())
    assert.equal("1 of 6 rated", text "progress")
    press "4" -- a change stays with its image
    os.execute "sleep 0.4"
    at(1)
    assert.equal("4324", answers())
    b:press "ArrowUp"
    press "0"
    assert.equal("-324", answers())
    assert.equal("0 of 6 rated", text "progress")
    b:press "ArrowLeft" -- there is nothing before the first
    at(1)
    press "1"
    at(2)
    b:press "ArrowLeft"
    at(1)
    press "u"
    at(2)
    b:press("1", 2) -- Ctrl+1 belongs to the browser
    assert.equal("----", answers())
  end)

  it("remembers a session that was closed, for each rater", function()
    start "Ada"
    press "11112"
    revisit "Go on as Ada (1 of 6 rated)"
    b:click "#sessions button"
    at(2)
    assert.equal("2---", answers())
    revisit "Go on as Ada (1 of 6 rated)"
    start "Bo"
    at(1)
    assert.equal("----", answers())
    press "3333"
    at(2)
    revisit "Go on as Ada (1 of 6 rated)Go on as Bo (1 of 6 rated)"
    -- what is remembered may have been damaged
    b:value "localStorage.setItem(storeKey, '{\"Ada\": {\"ratings\": {\"nothing\": {}, \"x\": 3}}, \"Cy\": null}')"
    revisit "Go on as Ada (0 of 6 rated)Go on as Cy (0 of 6 rated)"
    b:value "localStorage.setItem(storeKey, '{\"Ada')"
    revisit ""
    start "Ada"
    press "1111"
    at(2)
    revisit "Go on as Ada (1 of 6 rated)"
  end)

  it("leaves alone what another window keeps for somebody else", function()
    start "Ada"
    b:value [[localStorage.setItem(storeKey, '{"Bo": {"ratings": {}}}')]]
    press "1"
    assert.equal("Ada,Bo", b:value "Object.keys(JSON.parse(localStorage.getItem(storeKey))).sort().join()")
  end)

  it("starts elsewhere for another rater", function()
    local first = {}
    for _, name in ipairs { "Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal" } do
      first[b:value(("wayOf(%q)[0].id"):format(name))] = true
      assert.is_true(b:value(("wayOf(%q).map(i => i.id).sort().join() === study.items.map(i => i.id).sort().join()")
        :format(name)))
    end
    local different = 0
    for _ in pairs(first) do different = different + 1 end
    assert.is_true(different >= 3, different .. " different beginnings")
    assert.equal(b:value "wayOf('Ada')[0].id", b:value "wayOf('Ada')[0].id")
  end)

  it("works with the mouse", function()
    b:click "#rater"
    b:type "Ada"
    b:click "#start button"
    at(1)
    for question = 1, 4 do b:click((".ask:nth-child(%d) button:nth-child(%d)"):format(question, question)) end
    at(2)
    b:click "#previous"
    assert.equal("1234", answers())
    b:click "#next"
    at(2)
    b:click "#save"
    local file = core.json.decode((b:downloaded("ada-" .. key.study .. ".json")))
    assert.is_false(file.complete)
    local count = 0
    for _ in pairs(file.ratings) do count = count + 1 end
    assert.equal(1, count)
  end)

  it("works by touch on a phone, without anything to scroll sideways", function()
    b:size(320, 640, true)
    b:tap "#rater"
    b:type "Ada"
    b:tap "#start button"
    at(1)
    assert.equal(320, b:value "document.documentElement.scrollWidth")
    b:value [[document.getElementById("prompt").textContent = "a long text ".repeat(60)]]
    assert.is_true(b:value [[(e => e.scrollHeight <= e.clientHeight)(document.querySelector("figcaption"))]])
    assert.equal("", b:value(targets))
    for question = 1, 4 do b:tap((".ask:nth-child(%d) button:nth-child(2)"):format(question)) end
    at(2)
    b:tap "#previous"
    at(1)
    assert.equal("2222", answers())
    b:tap ".ask:nth-child(1) button:nth-child(1)"
    assert.equal(0, b:value [[[...document.querySelectorAll("button")].filter(x =>
      x.scrollWidth > x.clientWidth).length]])
  end)

  it("shows help, which can turn the single keys off", function()
    start "Ada"
    press "?"
    assert.is_true(b:value "document.getElementById('keys').open")
    press "1" -- not an answer while the help is open
    press "?"
    assert.is_false(b:value "document.getElementById('keys').open")
    assert.equal("----", answers())
    b:click "#help"
    b:click "#single"
    b:press "Escape"
    b:await "!document.getElementById('keys').open"
    press "1"
    assert.equal("----", answers())
    for _ = 1, 20 do -- everything is still reached with Tab
      b:press "Tab"
      if b:value "document.activeElement.dataset.grade === 'pass'" then break end
    end
    b:press "Enter"
    assert.equal("3---", answers())
  end)

  it("shows small images well and large ones whole", function()
    start "Ada"
    local function drawn(axis)
      return b:value(("document.getElementById('image').getBoundingClientRect().%s"):format(axis))
    end
    b:await "document.getElementById('image').style.maxWidth === '512px'" -- eight times its 64 pixels
    assert.is_true(drawn "height" >= 320 and drawn "height" <= 512, drawn "height" .. " pixels high")
    b:value [[(() => { const c = document.createElement("canvas"); c.width = c.height = 1024;
      document.getElementById("image").src = c.toDataURL() })()]]
    b:await "document.getElementById('image').style.maxWidth === '8192px'"
    assert.is_true(drawn "bottom" <= 800 and drawn "right" <= 1280)
  end)

  it("can be read in light and in dark, and everything has a name", function()
    for _, scheme in ipairs { "light", "dark" } do
      b:scheme(scheme)
      b:value "localStorage.clear()"
      revisit ""
      assert.equal("", b:value(contrast), scheme)
      assert.equal("", b:value(targets))
      start "Ada"
      press "12"
      assert.equal("", b:value(contrast), scheme)
      assert.equal("", b:value(targets))
      -- the marked question shows where the keys go, also to who sees no colours
      assert.are_not.equal("none", b:value "getComputedStyle(document.activeElement).outlineStyle")
      press "?"
      assert.equal("", b:value(contrast), scheme)
      press "?"
      for _, attribute in ipairs { "aria-labelledby", "aria-describedby" } do
        assert.is_true(b:value(([[[...document.querySelectorAll(".ask")].every(a =>
          document.getElementById(a.getAttribute("%s")) !== null)]]):format(attribute)))
      end
    end
    b:scheme "light"
  end)

  it("leads to a page of results that can be read too", function()
    local ratings = {}
    for id, place in pairs(key.items) do
      ratings[id] = {}
      for d, dimension in ipairs(study.dimensions) do
        ratings[id][dimension.key] = study.grades[(place.model + place.prompt + d) % 4 + 1].key
      end
    end
    files.write_json(folder .. "/study.key.json", key)
    files.write_json(folder .. "/ada.json",
      { format = study.formats.ratings, study = key.study, rater = "Ada", ratings = ratings })
    assert(collect.run(folder .. "/study.key.json", { folder .. "/ada.json" }, folder .. "/results"))
    for _, scheme in ipairs { "light", "dark" } do
      b:scheme(scheme)
      b:load(folder .. "/results/results.html")
      assert.equal("", b:value(contrast), scheme)
    end
    b:scheme "light"
    b:size(360, 640, true)
    assert.equal(360, b:value "document.documentElement.scrollWidth")
    assert.equal(5, b:value "document.querySelectorAll('.bars svg').length")
    -- the segments of a bar fill it
    assert.is_true(b:value [[[...document.querySelectorAll(".bars svg")].every(svg => {
      const rects = [...svg.querySelectorAll("rect")].filter(r => r.getAttribute("y") === "20");
      const end = Math.max(...rects.map(r => r.x.baseVal.value + r.width.baseVal.value));
      return Math.abs(end - 440) < 0.1 })]])
  end)

  it("says so when the browser keeps nothing", function()
    b:call("Page.addScriptToEvaluateOnNewDocument", {
      source = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('off') } })" })
    b:load(page)
    assert.is_true(b:value "document.getElementById('forgetful').checkVisibility()")
    start "Ada"
    press "1111"
    at(2)
    b:press "ArrowLeft"
    assert.equal("1111", answers())
    b:value "unsaved = false" -- or the browser asks before it leaves the page
  end)
end)
