local core = require "syz.core"
local collect = require "syz.study_collect"
local files = require "syz.files"
local progress = require "syz.progress"
local sources = require "syz.study_sources"
local reading = require "syz.study_ratings"
local study = require "syz.study"
local support = dofile "tests/lua/support.lua"

-- A picture of one colour, told apart by `value`.
local function picture(value, size)
  return core.scope(function()
    return { kind = "png", bytes = core.image.png(core.full({ size or 8, size or 8, 3 }, value / 255)) }
  end)
end

local function spec(models, prompts, seed)
  local s = { title = "Which is better?", seed = seed or 1, models = {}, prompts = {}, pictures = {} }
  for p = 1, prompts do s.prompts[p] = ("prompt %d </script><!-- & \"x\""):format(p) end
  for m = 1, models do
    s.models[m] = { name = ("secretrun%d"):format(m), source = ("/attic/secretrun%d"):format(m) }
    s.pictures[m] = {}
    for p = 1, prompts do s.pictures[m][p] = picture(m * 20 + p) end
  end
  return s
end

-- What a rater's browser reads out of the page.
local function data_of(html)
  return assert(core.json.decode((html:match('<script type="application/json" id="study">(.-)</script>'))))
end

describe("a study's page", function()
  it("does not say which run an image comes from", function()
    local html, key = study.build(spec(3, 4))
    assert.is_nil(html:find("secretrun", 1, true))
    assert.is_nil(html:find("attic", 1, true))
    for _, item in ipairs(data_of(html).items) do
      local fields = {}
      for name in pairs(item) do fields[#fields + 1] = name end
      table.sort(fields)
      assert.same({ "id", "image", "prompt" }, fields)
    end
    assert.equal("secretrun2", key.models[2].name)
    assert.equal(core.sha256(html), key.page_sha256)
  end)

  it("shows every image once, and the key tells whose it is", function()
    local s = spec(3, 4)
    local html, key = study.build(s)
    local seen, count = {}, 0
    for _, item in ipairs(data_of(html).items) do
      local place = assert(key.items[item.id])
      assert.equal(s.prompts[place.prompt], item.prompt)
      assert.equal("data:image/png;base64," .. core.base64(s.pictures[place.model][place.prompt].bytes), item.image)
      assert.is_nil(seen[place.model .. "," .. place.prompt])
      seen[place.model .. "," .. place.prompt], count = true, count + 1
    end
    assert.equal(12, count)
  end)

  it("is in an order that the seed decides and that keeps one prompt's images apart", function()
    local function order(seed)
      local html, key = study.build(spec(3, 6, seed))
      local models, prompts = {}, {}
      for i, item in ipairs(data_of(html).items) do
        models[i], prompts[i] = key.items[item.id].model, key.items[item.id].prompt
      end
      return table.concat(models), prompts, html
    end
    local one, prompts, html = order(1)
    local again, _, same = order(1)
    assert.equal(one, again)
    assert.equal(html, same)
    local others, first = {}, {}
    for seed = 2, 30 do
      local models, list = order(seed)
      others[models] = true
      first[models:sub(1, 1)] = true
      for i = 1, #list do assert.are_not.equal(list[i], list[i % #list + 1], "seed " .. seed) end
    end
    for i = 1, #prompts do assert.are_not.equal(prompts[i], prompts[i % #prompts + 1]) end
    assert.is_nil(others[one])
    assert.is_true(first["1"] and first["2"] and first["3"], "a model never comes first")
  end)

  it("has ids that do not follow from the page and the seed", function()
    local a, b = spec(2, 2), spec(2, 2)
    b.models[1].name, b.models[2].name = "other", "names"
    local _, key_a = study.build(a)
    local _, key_b = study.build(b)
    for id in pairs(key_a.items) do assert.is_nil(key_b.items[id]) end
    assert.are_not.equal(key_a.study, key_b.study)
  end)

  it("takes nothing from prompts and title as markup, and loads nothing", function()
    local s = spec(2, 2)
    s.title = "<img src=x onerror=alert(1)> & {{data}} %1"
    local html = study.build(s)
    assert.is_nil(html:find("<img src=x", 1, true))
    assert.equal(s.title, data_of(html).title)
    assert.equal(s.prompts[1], data_of(html).items[1].prompt:gsub("prompt %d", "prompt 1"))
    local _, scripts = html:gsub("</script>", "")
    assert.equal(2, scripts)
    for _, outside in ipairs { "http:", "https:", "<link", "src=\"", "@import", "url(" } do
      assert.is_nil(html:find(outside, 1, true), outside)
    end
  end)

  it("is refused a title that names a model", function()
    local s = spec(2, 2)
    s.title = "Is SecretRun2 good?"
    assert.error_matches(function() study.build(s) end, 'names the model "secretrun2"')
    s.title = "Is secretrun23 good?"
    assert.is_truthy(study.build(s))
  end)
end)

describe("folders of images", function()
  local folder
  setup(function() progress.configure { quiet = true, err = function() end } end)
  before_each(function() folder = support.folder() end)
  teardown(function()
    support.clean()
    progress.configure()
  end)

  local function fill(name, stems, extension)
    for i, stem in ipairs(stems) do
      core.scope(function()
        local path = ("%s/%s/%s.%s"):format(folder, name, stem, extension or "png")
        core.file.mkdir(folder .. "/" .. name)
        core.image.write(path, core.full({ 8, 8, 3 }, i / 10))
      end)
    end
    return folder .. "/" .. name
  end

  it("are paired by file name, whatever the extension", function()
    local a, b = fill("a", { "cat", "dog" }), fill("b", { "cat", "dog" }, "jpg")
    core.file.write(a .. "/prompts.txt", "a cat\na dog\n")
    local found = sources.folders({ a, b }, {})
    assert.same({ "a cat", "a dog" }, found.prompts)
    assert.same({ "a", "b" }, { found.models[1].name, found.models[2].name })
    assert.equal("png", found.pictures[2][1].kind) -- the format does not tell the folder
    assert.same({ "a cat" }, sources.folders({ a, b }, { images = 1 }).prompts)
  end)

  it("take prompts from metadata.jsonl, a file, or the names", function()
    local a, b = fill("a", { "red-cat", "dog" }), fill("b", { "red-cat", "dog" })
    assert.same({ "dog", "red cat" }, sources.folders({ a, b }, {}).prompts)
    core.file.write(b .. "/metadata.jsonl", '{"file_name": "dog.png", "prompt": "D"}\n'
      .. '{"file_name": "red-cat.png", "text": "C"}\n')
    assert.same({ "D", "C" }, sources.folders({ a, b }, {}).prompts)
    local path = support.write(folder, "p.txt", "one\ntwo\n")
    assert.same({ "one", "two" }, sources.folders({ a, b }, { prompts = path }).prompts)
  end)

  it("are refused when they do not fit, with one line", function()
    local a, b, empty = fill("a", { "cat", "dog" }), fill("b", { "cat" }), folder .. "/empty"
    core.file.mkdir(empty)
    local function refused(expected, ...)
      local ok, reason = pcall(sources.folders, ...)
      assert.is_false(ok)
      assert.is_truthy(reason:find(expected, 1, true), reason)
      assert.is_nil(reason:find("\n", 1, true))
    end
    refused("/b has no image called dog, which " .. a .. " has", { a, b }, {})
    refused("/b has no image called dog, which " .. a .. " has", { b, a }, {})
    refused("holds no .png or .jpg images", { a, empty }, {})
    refused("there is no image folder", { a, folder .. "/none" }, {})
    fill("a", { "cat" }, "jpg")
    refused("holds cat.jpg and cat.png", { a, b }, {})
    refused("holds 2 prompts for 1 images", { b, b }, { prompts = support.write(folder, "p.txt", "a\nb\n") })
  end)

  it("lose what their files say beside the pixels", function()
    local a, b = fill("a", { "cat" }, "jpg"), fill("b", { "cat" })
    local function insert(path, after, bytes)
      local old = core.file.read(path)
      core.file.write(path, old:sub(1, after) .. bytes .. old:sub(after + 1))
    end
    insert(a .. "/cat.jpg", 2, "\255\254\0\13MadeBySrpo!") -- a JPEG comment
    assert.is_truthy(core.file.read(a .. "/cat.jpg"):find("MadeBySrpo", 1, true))
    local found = sources.folders({ a, b }, {})
    assert.is_nil(found.pictures[1][1].bytes:find("MadeBySrpo", 1, true))
    core.scope(function()
      assert.same(core.image.read(a .. "/cat.jpg"):totable(), core.image.decode(found.pictures[1][1].bytes):totable())
    end)
  end)
end)

describe("names of models", function()
  it("are the last part of a path, or all of it where two would be one", function()
    assert.same({ "one", "two" }, sources.names { "runs/one/", "runs/two" })
    assert.same({ "a/model", "b/model", "c" }, sources.names { "a/model", "b/model", "c" })
  end)
end)

-- Two models, two prompts, two raters, grades as a hand writes them: E G P F.
local function a_collection(folder)
  local _, key = study.build(spec(2, 2))
  local names = { E = "excellent", G = "good", P = "pass", F = "fail" }
  local function rater(name, answers)
    local ratings = {}
    for id, place in pairs(key.items) do
      local letters = answers[place.model][place.prompt]
      if letters then
        ratings[id] = {}
        for d, dimension in ipairs(study.dimensions) do
          ratings[id][dimension.key] = names[letters:sub(d, d)]
        end
      end
    end
    return { format = study.formats.ratings, study = key.study, rater = name, ratings = ratings }
  end
  local ada = rater("Ada", { { "EGPF", "EEEE" }, { "FFFF", "GGGG" } })
  local bo = rater("Bo", { { "EEPF", "GEEE" }, { "PFFF", "GGGE" } })
  files.write_json(folder .. "/study.key.json", key)
  files.write_json(folder .. "/ada.json", ada)
  files.write_json(folder .. "/bo.json", bo)
  return key, ada, bo
end

describe("raters' files", function()
  local folder, key, ada, bo
  before_each(function()
    folder = support.folder()
    key, ada, bo = a_collection(folder)
  end)
  teardown(support.clean)

  it("add up to what a hand counts", function()
    local r = collect.results(key, assert(reading.raters({ folder .. "/ada.json", folder .. "/bo.json" }, key)))
    assert.same({ 3, 1, 0, 0 }, r.shares.alignment[1].counts)
    assert.same({ 0, 2, 1, 1 }, r.shares.alignment[2].counts)
    assert.same({ 3, 1, 0, 0 }, r.shares.realism[1].counts)
    assert.same({ 1, 1, 0, 2 }, r.shares.aesthetics[2].counts)
    -- the lowest of each image's four grades: F E | F G, and F G | F G
    assert.same({ 1, 1, 0, 2 }, r.shares.overall[1].counts)
    assert.same({ 0, 2, 0, 2 }, r.shares.overall[2].counts)
    assert.equal(0.75, r.shares.alignment[1].excellent.rate)
    assert.equal(0.5, r.shares.alignment[2].good_or_better.rate)
    for _, d in ipairs(r.differences) do
      if d.dimension == "alignment" and d.measure == "excellent" and d.model == "secretrun1" then
        -- prompt 1: 1 - 0, prompt 2: 1/2 - 0; resampling two prompts gives 1, 3/4 and 1/2
        assert.equal(0.75, d.difference)
        assert.equal(0.5, d.low)
        assert.equal(1, d.high)
      end
    end
    -- alignment by image: EE EG FP GG; 8 grades, n_E = 3, n_G = 3, n_P = 1, n_F = 1; distances by hand:
    -- E-G (3+3-3)² = 9, P-F (1+1-1)² = 1, E-P (3+3+1-2)² = 25, E-F (8-2)² = 36, G-P (4-2)² = 4, G-F (5-2)² = 9
    local observed, expected = 9 + 1, 9 * 9 + 1 * 1 + 3 * 25 + 3 * 36 + 3 * 4 + 3 * 9
    assert.is_true(math.abs(r.agreement.alignment.alpha - (1 - 7 * observed / expected)) < 1e-12)
  end)

  it("count with what was answered, and say so", function()
    local id = next(ada.ratings)
    ada.ratings[id] = { alignment = ada.ratings[id].alignment }
    files.write_json(folder .. "/ada.json", ada)
    local r = collect.results(key, assert(reading.raters({ folder .. "/ada.json" }, key)))
    assert.equal(3, r.raters[1].rated)
    local n = { alignment = 0, realism = 0, overall = 0 }
    for name in pairs(n) do
      for _, share in ipairs(r.shares[name]) do n[name] = n[name] + share.ratings end
    end
    assert.same({ alignment = 4, realism = 3, overall = 3 }, n)
    assert.is_truthy(require("syz.study_results").terminal(r):find("Ada rated 3 of 4 images", 1, true))
    assert.equal("no image has two ratings", r.agreement.alignment.reason)
  end)

  it("treat a prompt drawn with two seeds as one prompt", function()
    key.prompts[2] = key.prompts[1]
    local r = collect.results(key, assert(reading.raters({ folder .. "/ada.json" }, key)))
    assert.equal(1, r.prompts)
    for _, d in ipairs(r.differences) do assert.equal(d.low, d.high) end
  end)

  local function refused(expected, ...)
    local raters, problems = reading.raters({ ... }, key)
    assert.is_nil(raters)
    assert.equal(1, #problems)
    assert.is_truthy(problems[1]:find(expected, 1, true), problems[1])
    assert.is_nil(problems[1]:find("\n", 1, true))
  end

  it("are refused when torn, foreign or there twice", function()
    local whole = core.file.read(folder .. "/ada.json")
    for _, cut in ipairs { 0, 1, 40, #whole - 3 } do
      refused("t.json is not a whole JSON file", support.write(folder, "t.json", whole:sub(1, cut)))
    end
    refused("none.json", folder .. "/none.json")
    refused("is not a file of ratings", support.write(folder, "t.json", '{"a": 1}'))
    refused("is a key; only the first file is", folder .. "/study.key.json")
    refused(('"Ada" has already answered in %s/ada.json'):format(folder), folder .. "/ada.json", folder .. "/ada.json")
    ada.rater = "ADA"
    files.write_json(folder .. "/copy.json", ada)
    refused('"ADA" has already answered', folder .. "/ada.json", folder .. "/copy.json")
    bo.study = "0123456789ab"
    files.write_json(folder .. "/bo.json", bo)
    refused("belongs to another study (0123456789ab, not " .. key.study, folder .. "/bo.json")
  end)

  it("are refused when they answer what was not asked", function()
    local id = next(ada.ratings)
    local function with(change, expected)
      local old = ada.ratings
      ada.ratings = files.read_json(folder .. "/ada.json").ratings
      change(ada.ratings)
      files.write_json(folder .. "/t.json", ada)
      ada.ratings = old
      refused(expected, folder .. "/t.json")
    end
    with(function(r) r.ffff = r[id] end, 'rates an image "ffff" that the study does not have')
    with(function(r) r[id].alignment = "superb" end, 'unknown grade "superb" for alignment')
    with(function(r) r[id].alignment = 1 end, 'unknown grade "1" for alignment')
    with(function(r) r[id].charm = "good" end, 'unknown question "charm"')
    with(function(r) r[id] = "good" end, "are no object")
    with(function(r) for k in pairs(r) do r[k] = nil end end, "holds no ratings")
  end)

  it("need a sound key", function()
    local function bad(content, expected)
      local found, reason = reading.key(support.write(folder, "k.json", content))
      assert.is_nil(found)
      assert.is_truthy(reason:find(expected, 1, true), reason)
    end
    bad("{", "is not a whole JSON file")
    bad(core.file.read(folder .. "/ada.json"), "holds a rater's answers")
    bad('{"format": "other"}', "is not the key of a study")
    key.items[next(key.items)].model = 3
    bad(core.json.encode(key), "has been damaged")
  end)
end)

describe("syz study", function()
  local folder
  local function syz(arguments) return support.syz(folder, arguments) end
  before_each(function() folder = support.folder() end)
  teardown(support.clean)

  it("collects into a table, a page and JSON", function()
    local key, _, bo = a_collection(folder)
    bo.rater = "Bo <script>"
    files.write_json(folder .. "/bo.json", bo)
    local code, out, err = syz "study --collect study.key.json ada.json bo.json"
    assert.equal(0, code, err)
    assert.is_truthy(out:find("secretrun1%s+75 %%%s+25 %%%s+0 %%%s+0 %%  75 %% %[30, 95%]"), out)
    assert.is_truthy(out:find("-75 [-100, -50] *", 1, true), out)
    assert.is_truthy(out:find("Krippendorff's alpha, ordinal", 1, true))
    assert.is_truthy(out:find("\nstudy-results/results.html\n", 1, true))
    local html = core.file.read(folder .. "/study-results/results.html")
    assert.is_nil(html:find("Bo <script>", 1, true))
    local _, bars = html:gsub('<rect class="g1"', "")
    -- each of two models has an Excellent bar, but for those where the counts above say none
    local r = files.read_json(folder .. "/study-results/results.json")
    local with_excellent = 0
    for _, d in ipairs(r.dimensions) do
      for _, share in ipairs(r.shares[d.key]) do
        if share.counts[1] > 0 then with_excellent = with_excellent + 1 end
      end
    end
    assert.equal(with_excellent, bars)
    assert.equal(key.study, r.study)
    code, out = syz "study --collect study.key.json ada.json bo.json --json --out again"
    assert.equal(0, code)
    assert.equal(core.file.read(folder .. "/study-results/results.json"),
      core.file.read(folder .. "/again/results.json"))
    assert.same(r, core.json.decode(out))
  end)

  it("says what is wrong with each file, and writes nothing", function()
    a_collection(folder)
    support.write(folder, "torn.json", "{")
    local code, out, err = syz "study --collect study.key.json ada.json torn.json none.json"
    assert.equal(1, code)
    assert.equal("", out)
    assert.equal(2, #support.lines(err))
    assert.is_nil(core.file.exists(folder .. "/study-results"))
  end)

  it("answers misuse with one line", function()
    local function misuse(arguments, expected)
      local code, _, err = syz("study " .. arguments)
      assert.equal(2, code, err)
      assert.is_truthy(support.lines(err)[1]:find(expected, 1, true), err)
    end
    misuse("", "needs RUN")
    misuse("a", "needs two runs to compare, or one and --baseline")
    misuse("a a", '"a" is there twice')
    misuse("a b --images 0", "--images must be at least 1")
    misuse("a b --out page.txt", "the page is an .html file")
    misuse("--folders a", "--folders needs at least two folders")
    misuse("--folders a b --baseline", "--baseline is for runs, not for --folders")
    misuse("--collect k.json", "needs the key and at least one rater's file")
    misuse("--collect k.json r.json --images 3", "--images is for making a page, not for --collect")
  end)

  it("never writes over the key of another study", function()
    for _, name in ipairs { "a", "b" } do
      core.file.mkdir(folder .. "/" .. name)
      core.file.write(("%s/%s/x.png"):format(folder, name), picture(name:byte()).bytes)
    end
    assert.equal(0, (syz "study --folders a b"))
    local key = core.file.read(folder .. "/study.key.json")
    assert.equal(0, (syz "study --folders a b"))
    local code, _, err = syz "study --folders a b --seed 2"
    assert.equal(1, code)
    assert.is_truthy(err:find("study.key.json is the key of another study", 1, true), err)
    assert.equal(key, core.file.read(folder .. "/study.key.json"))
  end)

  it("draws runs and what they began from at the same prompts and seeds", function()
    local root = assert(io.popen("pwd"):read "*l")
    local out = folder .. "/tinyrun"
    local code, _, err = support.syz(root, ("run tests/recipes/tiny.lua --quiet --set steps=2 --set lr=0.5 --out '%s'")
      :format(out))
    assert.equal(0, code, err)
    code, _, err = support.syz(root, ("study '%s' --baseline --images 4 --seed 5 --out '%s/s.html'"):format(out,
      folder))
    assert.equal(0, code, err)
    local key = files.read_json(folder .. "/s.key.json")
    assert.same({ "baseline", "tinyrun" }, { key.models[1].name, key.models[2].name })
    -- three prompts for four images: the first comes again, with another seed
    assert.same({ "a red cat", "two dogs", "a green hat", "a red cat" }, key.prompts)
    assert.same({ seed = 5, steps = 2 }, key.sampling)
    local html = core.file.read(folder .. "/s.html")
    for _, told in ipairs { "tinyrun", "baseline", folder } do assert.is_nil(html:find(told, 1, true), told) end
    local pipe = require("syz").pipeline("tests/models/data/pipeline", { size = { 16, 16 } })
    local function expected(prompt, seed)
      return core.scope(function()
        local image = pipe:sample { prompts = { prompt }, seed = seed, steps = 2 }
        return "data:image/png;base64," .. core.base64(core.image.png(image:reshape { 16, 16, 3 }))
      end)
    end
    local before, shown = {}, { {}, {} }
    for i, prompt in ipairs(key.prompts) do before[i] = expected(prompt, 5 + i - 1) end
    pipe.transformer = core.model.load(out .. "/model/transformer")
    for _, item in ipairs(data_of(html).items) do
      local place = key.items[item.id]
      shown[place.model][place.prompt] = item.image
    end
    for i, prompt in ipairs(key.prompts) do
      assert.equal(before[i], shown[1][i])
      assert.equal(expected(prompt, 5 + i - 1), shown[2][i])
      assert.are_not.equal(shown[1][i], shown[2][i])
    end
  end)

  it("refuses what is no finished run", function()
    core.file.mkdir(folder .. "/x")
    support.write(folder, "p.txt", "cat\n")
    local code, _, err = syz "study x y --prompts p.txt"
    assert.equal(1, code)
    assert.is_truthy(err:find("x: neither a run nor a pipeline", 1, true), err)
    files.write_json(folder .. "/x/run.json", { name = "x", status = "interrupted" })
    code, _, err = syz "study x y --prompts p.txt"
    assert.equal(1, code)
    assert.is_truthy(err:find("x has trained no transformer yet", 1, true), err)
    code, _, err = syz "study x y"
    assert.equal(1, code)
    assert.is_truthy(err:find("name a file with --prompts FILE", 1, true), err)
  end)
end)
