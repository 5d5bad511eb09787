-- The formulas of syz.flops against what the engine counts.
local core = require "syz.core"
local flops = require "syz.flops"

local CONFIG = { _class_name = "FluxTransformer2DModel", in_channels = 12, num_layers = 2, num_single_layers = 3,
  num_attention_heads = 2, attention_head_dim = 8, joint_attention_dim = 10, pooled_projection_dim = 6,
  axes_dims_rope = { 2, 4, 2 }, guidance_embeds = true }

local function counted(config, image, text, batch)
  local model = core.model.create(config):init(1)
  return core.no_grad(core.scope, function()
    model:forward(core.zeros { batch, image, 12 }, core.zeros { batch, text, 10 }, core.zeros { batch, 6 },
      core.zeros { batch }, config.guidance_embeds and core.zeros { batch } or nil, core.zeros { image, 3 },
      core.zeros { text, 3 })
    return model:flops()
  end)
end

describe("flops", function()
  it("of the FLUX transformer are those that the engine counts", function()
    for _, case in ipairs { { 16, 5, 1 }, { 9, 7, 2 } } do
      assert.equal(case[3] * flops.flux(CONFIG, case[1], case[2]), counted(CONFIG, unpack(case)))
    end
  end)

  it("without guidance and with other depths too", function()
    local config = {}
    for key, value in pairs(CONFIG) do config[key] = value end
    config.guidance_embeds, config.num_layers, config.num_single_layers = false, 1, 0
    assert.equal(flops.flux(config, 16, 5), counted(config, 16, 5, 1))
  end)

  it("of FLUX.1-dev at 720 x 720 are those of the literature", function()
    local config = { in_channels = 64, num_layers = 19, num_single_layers = 38, num_attention_heads = 24,
      attention_head_dim = 128, joint_attention_dim = 4096, pooled_projection_dim = 768, guidance_embeds = true }
    assert.is_true(math.abs(flops.flux(config, 2025, 512) / 37.28e12 - 1) < 0.01)
  end)
end)
