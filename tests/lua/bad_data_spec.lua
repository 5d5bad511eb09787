-- Training data with broken pieces: what can be left out is left out, counted and named; the rest is one line.
local core = require "syz.core"
local data = require "syz.data"
local progress = require "syz.progress"
local support = dofile "tests/lua/support.lua"
local text = require "syz.text"

-- luassert's error_matches leaves out what looks like a position, and so do the lines of these files.
local function refuses(expected, f, ...)
  local ok, raised = pcall(f, ...)
  assert.is_false(ok)
  assert.is_truthy(tostring(raised):find(expected, 1, true), raised)
end

describe("an image folder", function()
  local folder, noted
  before_each(function()
    folder, noted = support.folder(), {}
    progress.configure { quiet = true, terminal = { tty = false, width = 80 },
                         err = function(s) noted[#noted + 1] = s end }
    core.scope(function()
      for i = 1, 6 do core.image.write(("%s/i%d.png"):format(folder, i), core.full({ 8, 8, 3 }, i / 10)) end
    end)
  end)
  teardown(function()
    support.clean()
    progress.configure()
  end)

  local function break_image(i) support.write(folder, ("i%d.png"):format(i), "no picture") end
  local function keys(images)
    local found = {}
    for i, meta in ipairs(images.meta) do found[i] = meta.key end
    return found
  end

  it("with broken images goes on without them, and says how many and which", function()
    local bytes = core.file.read(folder .. "/i2.png")
    support.write(folder, "i2.png", bytes:sub(1, 60))
    support.write(folder, "i4.png", "")
    local images = data.folder(folder)
    assert.same({ "i1.png", "i3.png", "i5.png", "i6.png" }, keys(images))
    assert.equal(4, images.pixels:size(0))
    assert.equal(1, #noted)
    assert.is_truthy(noted[1]:find("2 of 6 images cannot be read: i2.png, i4.png (the first: ", 1, true), noted[1])
    -- what is left keeps its own pixels
    local third = core.scope(function() return images.pixels:slice(0, 1, 2):totable()[1] end)
    assert.is_true(math.abs(third - 0.3 * 255) <= 1)
  end)

  it("names three at most", function()
    for i = 1, 5 do break_image(i) end
    data.folder(folder)
    assert.is_truthy(noted[1]:find("5 of 6 images cannot be read: i1.png, i2.png, i3.png, ... (", 1, true), noted[1])
  end)

  it("does not decode what the filter leaves out", function()
    break_image(3)
    assert.equal(5, data.folder(folder, function(meta) return meta.key ~= "i3.png" end):count())
    assert.same({}, noted)
  end)

  it("with broken images only is an error", function()
    for i = 1, 6 do break_image(i) end
    assert.error_matches(function() data.folder(folder) end, "6 of 6 images cannot be read: i1.png, i2.png, i3.png")
  end)

  it("with images of two sizes names one of each", function()
    core.scope(function() core.image.write(folder .. "/i4.png", core.full({ 8, 12, 3 }, 1)) end)
    assert.error_matches(function() data.folder(folder) end, "image i4.png is 12x8 and i1.png is 8x8")
  end)

  it("with a torn line of metadata names file and line", function()
    support.write(folder, "metadata.jsonl", '{"file_name": "i1.png"}\r\n\n{"file_name": "i2')
    refuses("/metadata.jsonl:3: JSON line 1, column", data.folder, folder)
    support.write(folder, "metadata.jsonl", '["i1.png"]\n')
    refuses("/metadata.jsonl:1: a JSON object", data.folder, folder)
    support.write(folder, "metadata.jsonl", '{"file_name": 3}\n')
    refuses('/metadata.jsonl:1: "file_name" must name an image', data.folder, folder)
  end)

  it("says which files of the metadata are not there", function()
    support.write(folder, "metadata.jsonl", '{"file_name": "i1.png"}\n{"file_name": "gone.png"}\n')
    assert.equal(6, data.folder(folder):count())
    assert.is_truthy(noted[1]:find("tells about 1 files that are not there: gone.png", 1, true), noted[1])
  end)

  it("packed as a WebDataset is treated alike", function()
    local function pack(metadata)
      for i = 1, 6 do support.write(folder, ("i%d.json"):format(i), metadata or "{}") end
      os.execute(("cd '%s' && tar cf a.tar i*"):format(folder))
      return folder .. "/a.tar"
    end
    assert.equal(6, data.webdataset(pack()):count())
    break_image(2)
    assert.equal(5, data.webdataset(pack()):count())
    local expected = "a.tar: 1 of 6 images cannot be read: i2 (the first: neither a PNG"
    assert.is_truthy(noted[1]:find(expected, 1, true), noted[1])
    refuses("/a.tar: i1.json: JSON line 1", data.webdataset, pack '{"torn')
  end)
end)

describe("a prompts file", function()
  local folder
  before_each(function() folder = support.folder() end)
  teardown(support.clean)

  it("may have comments, blank lines, a byte order mark and Windows line ends", function()
    local path = support.write(folder, "p.txt", "\239\187\191a cat\r\n\r\n# no\n  caf\195\169 \n")
    assert.same({ "a cat", "caf\195\169" }, data.prompts(path))
  end)

  it("that is missing, empty or not UTF-8 is one line", function()
    refuses("/none: cannot open: No such file", data.prompts, folder .. "/none")
    refuses("not a regular file", data.prompts, folder)
    assert.error_matches(function() data.prompts(support.write(folder, "e", "\n# x\n")) end, "holds no prompts")
    refuses("/l:2: not UTF-8 text; save the file as UTF-8", data.prompts, support.write(folder, "l", "ok\ncaf\233\n"))
  end)
end)

describe("UTF-8", function()
  it("is told from what is not", function()
    for _, good in ipairs { "", "plain", "\195\169", "\226\130\172", "\240\159\141\142", "\237\159\191",
                            "\244\143\191\191" } do
      assert.is_true(text.valid_utf8(good .. "x"))
    end
    for _, bad in ipairs { "\233", "\195", "\128", "\192\175", "\224\159\191", "\237\160\128", "\240\143\191\191",
                           "\244\144\128\128", "\245\128\128\128", "\226\130", "\255" } do
      assert.is_false(text.valid_utf8("x" .. bad))
      assert.is_false(text.valid_utf8(bad .. "x"))
    end
  end)
end)
