--- What the specs of recipes on the emulated GPU share: runs and how far apart they are.
local core = require "syz.core"
local assert = require "luassert"
local files = require "syz.files"
local support = dofile "tests/lua/support.lua"

-- Run a recipe: the run's folder, stderr, stdout, exit code.
function support.run(recipe, flags, folder)
  folder = folder or support.folder() .. "/run"
  local code, out, err = support.syz(".", ("run %s --out '%s' %s"):format(recipe, folder, flags or ""))
  return folder, err, out, code
end

-- What metrics.jsonl holds of the steps: { loss = { ... }, grad_norm = { ... } }.
local function curves(folder)
  local found = { loss = {}, grad_norm = {} }
  for _, entry in ipairs(files.read_lines(folder .. "/metrics.jsonl")) do
    for name, list in pairs(found) do list[#list + 1] = entry.object[name] end
  end
  return found
end

-- The length of the difference over the length.
local function apart(found, wanted)
  local difference, all = 0, 0
  assert.equal(#wanted, #found)
  for i, value in ipairs(wanted) do difference, all = difference + (found[i] - value) ^ 2, all + value ^ 2 end
  return math.sqrt(difference / all)
end

function support.close(folder, other, limit)
  local found, wanted = curves(folder), curves(other)
  assert.is_true(#wanted.loss > 0)
  for name in pairs(wanted) do
    local distance = apart(found[name], wanted[name])
    assert.is_true(distance <= limit, ("%s is %g apart, at most %g"):format(name, distance, limit))
  end
end

-- The largest difference of two models' weights, relative to the largest weight.
function support.weights_apart(folder, other, part)
  local worst, largest = 0, 0
  core.scope(function()
    local path = "/model/transformer/diffusion_pytorch_model.safetensors"
    local a, b = core.safetensors.read(folder .. (part or path)), core.safetensors.read(other .. (part or path))
    for name, tensor in pairs(b) do
      assert.equal(tensor:dtype(), a[name]:dtype())
      local wanted, found = tensor:to("f32"):totable(), a[name]:to("f32"):totable()
      for i, value in ipairs(wanted) do
        worst, largest = math.max(worst, math.abs(found[i] - value)), math.max(largest, math.abs(value))
      end
    end
  end)
  return worst / largest
end

return support
