--- What rewards show their vision towers, against the libraries that the rewards were published with.
local core = require "syz.core"
local preprocess = require "syz.rewards.preprocess"

local REFERENCE = "tests/models/data/preprocess/reference.safetensors"

-- As pattern() of tests/oracle/preprocess.py.
local function pattern(height, width)
  local values = {}
  for y = 0, height - 1 do
    for x = 0, width - 1 do
      local block = 64 * ((math.floor(x / 5) + math.floor(y / 7)) % 2)
      for c = 0, 2 do
        values[#values + 1] = (y * 31 + x * 17 + c * 101 + (y * x) % 251 + block) % 256
      end
    end
  end
  return core.tensor(values):reshape({ 1, height, width, 3 }) / 255
end

local function every(images, step)
  for dim = 1, 2 do
    local ids = {}
    for i = 0, images:size(dim) - 1, step do ids[#ids + 1] = i end
    images = images:index_select(dim, core.tensor(ids):to("i64"))
  end
  return images
end

local function largest_difference(a, b)
  local largest = 0
  for _, value in ipairs((a - b):abs():reshape({ -1 }):totable()) do
    if value ~= value then return value end
    largest = math.max(largest, value)
  end
  return largest
end

describe("preprocessing", function()
  it("gives the pixels of torchvision, transformers and hpsv2", function()
    local reference, checked = core.safetensors.read(REFERENCE), {}
    local inputs = {}
    for name, expected in pairs(reference) do
      local kind, height, width, size = name:match("^(%w+)%.(%d+)x(%d+)%.(%d+)$")
      height, width, size = tonumber(height), tonumber(width), tonumber(size)
      local key = height .. "x" .. width
      inputs[key] = inputs[key] or pattern(height, width)
      local out = preprocess.apply(kind, inputs[key], size)
      assert.same({ 1, size, size, 3 }, out:shape())
      if size > 32 then out = every(out, 16) end
      local std = core.tensor(preprocess.kinds[kind].std) -- back to pixels of [0, 1]
      local error_ = largest_difference(out * std, expected:permute({ 1, 2, 0 }):reshape(out:shape()) * std)
      assert.is_true(error_ <= 1e-6, ("%s: %.3g"):format(name, error_))
      checked[kind] = (checked[kind] or 0) + 1
    end
    assert.same({ crop = 11, processor = 11, pad = 11, siglip = 11 }, checked)
  end)

  it("passes gradients to the pixels", function()
    for kind in pairs(preprocess.kinds) do
      for _, shape in ipairs { { 5, 8 }, { 9, 4 }, { 6, 6 } } do
        local generator = core.generator(7)
        local images = generator:rand({ 1, shape[1], shape[2], 3 }):requires_grad(true)
        local weights = generator:randn({ 1, 6, 6, 3 })
        local function value(x) return (preprocess.apply(kind, x, 6) * weights):sum() end
        value(images):backward()
        local gradient = images:grad():reshape({ -1 }):totable()
        local direction = generator:randn(images:shape())
        local along = 0
        for i, d in ipairs(direction:reshape({ -1 }):totable()) do along = along + d * gradient[i] end
        local step = 1e-2 -- exact but for rounding: preprocessing is linear
        local difference = value(images:detach() + step * direction):item()
          - value(images:detach() - step * direction):item()
        assert.near(along, difference / (2 * step), 1e-3 * math.max(1, math.abs(along)))
      end
    end
  end)

  it("pads with black around the middle", function()
    local white = core.ones({ 1, 2, 4, 3 })
    local out = preprocess.apply({ fit = "longer", mean = { 0, 0, 0 }, std = { 1, 1, 1 } }, white, 4)
    assert.same({ 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0 }, out:slice(3, 0, 1):reshape({ -1 }):totable())
  end)
end)
