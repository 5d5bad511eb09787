--- SRPO of the emoji model on the emulated GPU: a few steps have the CPU's loss curve.
local core = require "syz.core"
local support = dofile "tests/device/support.lua"
local run, close, weights_apart = support.run, support.close, support.weights_apart

describe("SRPO on the emoji model", function()
  teardown(support.clean)
  local recipe, settings = "tests/gpu/srpo.lua", "--quiet --set batch=1 --set rollout=2 --set steps=2 "
  local wanted

  setup(function() wanted = run(recipe, settings) end)

  it("has the CPU's loss curve in f32", function()
    close(run(recipe, settings .. "--device cuda"), wanted, 1e-4)
  end)

  it("has it within bf16's error in bf16, and saves its f32 masters", function()
    local found = run(recipe, settings .. "--device cuda --set precision=bf16")
    close(found, wanted, 5e-2)
    assert.is_true(weights_apart(found, wanted) < 1e-2)
    local dtype = core.safetensors.header(found .. "/model/transformer/diffusion_pytorch_model.safetensors")[1].dtype
    assert.equal("f32", dtype:lower())
  end)
end)
