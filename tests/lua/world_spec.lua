-- The emoji world: captions from metadata, and lists that agree with the data.

local world = dofile("examples/emoji/world.lua")

local apple = { subject = "red apple", style = "noto", tags = { "apple", "fruit", "red", "health" } }

-- Numbers in [0,1), evenly spread over a run of `n`.
local function even(n, visit)
  for i = 0, n - 1 do visit((i + 0.5) / n) end
end

local function count(n, opts)
  local seen = {}
  even(n, function(u)
    local text = world.caption(apple, u, opts)
    seen[text] = (seen[text] or 0) + 1
  end)
  return seen
end

-- The JSON members of a tar archive, as text, by a walk over its 512-byte headers.
local function metadata(path)
  local file = assert(io.open(path, "rb"))
  local list = {}
  while true do
    local header = file:read(512)
    if not header or header:byte(1) == 0 then break end
    local name, size = header:match("^[^%z]+"), tonumber(header:sub(125, 135), 8)
    if name:match("%.json$") then
      list[#list + 1] = file:read(size)
    else
      file:seek("cur", size)
    end
    file:seek("cur", -size % 512)
  end
  file:close()
  return list
end

local function subjects_of(path)
  local styles = {}
  for _, text in ipairs(metadata(path)) do
    local subject, style = text:match('"subject": "(.-)"'), text:match('"style": "(.-)"')
    styles[subject] = styles[subject] or {}
    styles[subject][world.style_index(style)] = true
  end
  return styles
end

describe("captions", function()
  it("name the style in front of half of them", function()
    assert.are.same({ ["red apple"] = 500, ["Soft shading. red apple"] = 500 }, count(1000))
  end)

  it("follow the probabilities given", function()
    assert.are.same({ ["red apple"] = 100 }, count(100, { style = 0 }))
    assert.are.same({ ["Soft shading. red apple"] = 100 }, count(100, { style = 1 }))
    assert.are.same({ [""] = 10, ["red apple"] = 72, ["Soft shading. red apple"] = 18 },
      count(100, { drop = 0.1, style = 0.2 }))
  end)

  it("add only tags that the subject does not say, each as often", function()
    assert.are.same({
      ["red apple"] = 250, ["red apple, fruit"] = 125, ["red apple, health"] = 125,
      ["Soft shading. red apple"] = 250, ["Soft shading. red apple, fruit"] = 125,
      ["Soft shading. red apple, health"] = 125,
    }, count(1000, { tag = 0.5 }))
    local always = { style = 0, tag = 1 }
    assert.are.equal("cat", world.caption({ subject = "cat", style = "noto", tags = { "cat" } }, 0, always))
    assert.are.equal("cat", world.caption({ subject = "cat", style = "noto" }, 0, always))
  end)

  it("draw from a function when given one", function()
    local numbers, at = { 0.2, 0.9, 0.99 }, 0
    local function rng()
      at = at + 1
      return numbers[at]
    end
    assert.are.equal("Soft shading. red apple", world.caption(apple, rng, { tag = 0.5 }))
    assert.are.equal(2, at)
    numbers, at = { 0.6, 0.1, 0.99 }, 0
    assert.are.equal("red apple, health", world.caption(apple, rng, { tag = 0.5 }))
  end)

  it("refuse what they cannot use", function()
    local message = "world.caption: rng must be a function or a number in [0,1)"
    assert.has_error(function() world.caption(apple, 1) end, message)
    assert.has_error(function() world.caption(apple) end, message)
    assert.error_matches(function() world.caption({ subject = "cat", style = "oil" }, 0.1) end, 'unknown style "oil"')
    assert.error_matches(function() world.prompts("test") end, 'not "test"')
  end)
end)

describe("styles", function()
  it("have distinct words and consecutive numbers", function()
    local phrases = {}
    for index, style in ipairs(world.styles) do
      assert.are.equal(index, world.style_index(style.name))
      assert.are.equal(style.phrase, world.phrase(style.name))
      assert.is_nil(phrases[style.phrase])
      phrases[style.phrase] = true
    end
    assert.are.equal(5, #world.styles)
  end)
end)

describe("lists", function()
  local function set(list)
    local members = {}
    for _, item in ipairs(list) do
      assert.is_nil(members[item], item .. " appears twice")
      members[item] = true
    end
    return members
  end

  it("hold subjects of the training data, drawn in every style, and none of the test data", function()
    local train = subjects_of("examples/emoji/data/emoji64-train.tar")
    local test = subjects_of("examples/emoji/data/emoji64-test.tar")
    local subjects = world.subjects()
    assert.are.equal(320, #subjects)
    set(subjects)
    for _, subject in ipairs(subjects) do
      assert.are.equal(5, #(train[subject] or {}), subject)
      assert.is_nil(test[subject], subject)
      local _, spaces = subject:gsub(" ", "")
      assert.is_true(spaces <= 1, subject .. " has more than two words")
    end
  end)

  it("split prompts of the first 256 subjects", function()
    local known, train = set(world.subjects(256)), set(world.prompts("train"))
    assert.are.equal(192, #world.prompts("train"))
    assert.are.equal(64, #world.prompts("eval"))
    for prompt in pairs(train) do assert.is_true(known[prompt], prompt) end
    for prompt in pairs(set(world.prompts("eval"))) do
      assert.is_true(known[prompt], prompt)
      assert.is_nil(train[prompt], prompt)
    end
  end)

  it("are read through the reader and folder of the host", function()
    local read, folder = world.read, world.folder
    world.folder = "elsewhere"
    world.read = function(path)
      if path == "elsewhere/subjects.txt" then return "cat\r\ndog\n" end
      return nil, "no such file"
    end
    assert.are.same({ "cat", "dog" }, world.subjects())
    assert.are.same({ "cat" }, world.subjects(1))
    assert.has_error(function() world.prompts("train") end, "cannot read elsewhere/prompts.txt: no such file")
    world.read, world.folder = read, folder
  end)
end)
