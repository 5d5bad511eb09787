local core = require "syz.core"

local folder = "tests/models/data/flux_a"

local function largest_difference(a, b)
  local x, y, largest = a:totable(), b:totable(), 0
  assert.equal(#x, #y)
  for i = 1, #x do largest = math.max(largest, math.abs(x[i] - y[i])) end
  return largest
end

describe("a model", function()
  it("records nothing on the CPU, and says so", function()
    core.scope(function()
      local model = core.model.load(folder)
      assert.equal(model, model:graphs(true))
      assert.same({ recorded = 0, replayed = 0, refused = 0 }, model:graphs())
      assert.has_error(function() model:graphs("yes") end)
    end)
  end)

  it("is loaded, runs and has gradients as diffusers has them", function()
    local model = core.model.load(folder):requires_grad(true)
    local reference = core.safetensors.read(folder .. "/reference.safetensors")
    assert.equal("FluxTransformer2DModel", model:class())
    assert.equal("FluxTransformer2DModel", model:config()._class_name)
    local inputs = {}
    for k, name in ipairs(model:methods().forward.inputs) do inputs[k] = reference[name:gsub("%?$", "")] or false end
    local function input(k) return inputs[k] or nil end
    local out = model:forward(input(1), input(2), input(3), input(4), input(5), input(6), input(7))
    assert.same(reference.output:shape(), out:shape())
    assert.is_true(largest_difference(out, reference.output) < 1e-4)
  end)

  it("gives its parameters under their names", function()
    local model = core.model.load(folder)
    local names, parameters = model:names(), model:parameters()
    assert.equal(#names, #parameters)
    for k = 1, #names, 17 do
      assert.equal(parameters[k]:hash(), model:param(names[k]):hash())
    end
    assert.is_nil(model:param("no such parameter"))
    assert.is_false(parameters[1]:requires_grad())
    model:requires_grad(true)
    assert.is_true(parameters[1]:requires_grad())
    parameters[1]:set_grad(parameters[1])
    assert.is_nil(model:zero_grad():param(names[1]):grad())
  end)

  it("is made from a configuration, and the same seed gives the same values", function()
    local config = core.model.load(folder):config()
    local a, b = core.model.create(config), core.model.create(core.json.encode(config))
    assert.error_matches(function() a:parameters() end, "has no values yet: call :init%(seed%)")
    assert.matches("108 tensors", tostring(a))
    a:init(7)
    b:init(7)
    for k, t in ipairs(a:parameters()) do assert.equal(t:hash(), b:parameters()[k]:hash()) end
    b:init(8)
    assert.not_equal(a:parameters()[1]:hash(), b:parameters()[1]:hash())
  end)

  it("says what is wrong with a call", function()
    local model = core.model.load(folder)
    assert.error_matches(function() model:forward(1) end, "forward: argument 1 %(hidden_states%) must be a tensor, not")
    assert.error_matches(function() model:forward(nil, nil, nil, nil, nil, nil, nil, nil, nil) end, "takes 8 arguments")
    assert.error_matches(function() core.model.load("no/such/folder") end, "no/such/folder")
    assert.error_matches(function() core.model.create { _class_name = "Unheard" } end, "Unheard")
    assert.is_nil(model.unheard)
  end)

  it("is saved and loaded again", function()
    local model, path = core.model.load(folder), os.tmpname()
    os.remove(path)
    core.file.mkdir(path)
    model:save(path)
    local again = core.model.load(path)
    for k, t in ipairs(model:parameters()) do assert.equal(t:hash(), again:parameters()[k]:hash()) end
    core.file.remove_tree(path)
    assert.is_nil(core.file.exists(path))
  end)

  it("is saved in shards of the size that is asked for", function()
    local model, path = core.model.load(folder), os.tmpname()
    os.remove(path)
    model:save(path, "f32", 4000)
    assert.equal("file", core.file.exists(path .. "/diffusion_pytorch_model.safetensors.index.json"))
    assert.is_nil(core.file.exists(path .. "/diffusion_pytorch_model.safetensors"))
    local again = core.model.load(path)
    for k, t in ipairs(model:parameters()) do assert.equal(t:hash(), again:parameters()[k]:hash()) end
    assert.error_matches(function() model:save(path, "f32", 0) end, "a shard's bytes, at least 1, expected")
    core.file.remove_tree(path)
  end)
end)
