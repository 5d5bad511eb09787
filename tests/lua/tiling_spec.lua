--- Tiles through the VAE, as diffusers cuts and blends them: values, gradients, memory.
local core = require "syz.core"
local tiling = require "syz.tiling"

local function largest(t)
  local most = 0
  for _, value in ipairs(t:reshape({ t:numel() }):totable()) do most = math.max(most, math.abs(value)) end
  return most
end

local function close(found, expected, tolerance)
  assert.same(expected:shape(), found:shape())
  local error_ = largest(found - expected) / largest(expected)
  assert.is_true(error_ <= tolerance, ("relative error %.3g"):format(error_))
end

local function nhwc(t) return t:permute({ 0, 2, 3, 1 }) end

local function reference(name)
  local values = core.safetensors.read(("tests/models/data/tiling/%s.safetensors"):format(name))
  local vae = core.model.load("tests/models/data/" .. name)
  local tiles = tiling.new(vae, { size = values.tiles:totable()[1], overlap = values.overlap:totable()[1] })
  assert.equal(values.tiles:totable()[2], tiles.latent)
  return vae, tiles, values
end

describe("VAE tiling", function()
  for _, name in ipairs { "vae_a", "vae_b" } do
    for _, recomputed in ipairs { false, true } do
      it(("is diffusers', forward and backward: %s%s"):format(name, recomputed and ", recomputed" or ""), function()
        core.scope(function()
          local vae, tiles, values = reference(name)
          vae:requires_grad(false):checkpointing(recomputed)
          local z = nhwc(values.latent):copy():requires_grad(true)
          local image = tiling.decode(vae, z, tiles)
          close(image, nhwc(values.decoded), 1e-5)
          image:backward(nhwc(values.grad_decoded))
          close(z:grad(), nhwc(values["grad.latent"]), 1e-4)
          local x = nhwc(values.image):copy():requires_grad(true)
          local moments = tiling.encode(vae, x, tiles)
          close(moments, nhwc(values.moments), 1e-5)
          moments:backward(nhwc(values.grad_moments))
          close(x:grad(), nhwc(values["grad.image"]), 1e-4)
        end)
      end)
    end
  end

  it("leaves what fits into one tile alone", function()
    core.scope(function()
      local vae, _, values = reference "vae_a"
      local z = nhwc(values.latent)
      local whole = vae:decode(z)
      assert.equal(whole:hash(), tiling.decode(vae, z, tiling.new(vae, { size = 32 })):hash())
      assert.equal(whole:hash(), tiling.decode(vae, z, nil):hash())
      assert.not_equal(whole:hash(), tiling.decode(vae, z, tiling.new(vae, { size = 16 })):hash())
      assert.same({ sample = 32, latent = 16, overlap = 0.25 }, tiling.new(vae, true)) -- the VAE's sample_size
    end)
  end)

  it("takes less memory, and so does recomputing blocks, for the same gradients", function()
    local vae = core.model.create({ _class_name = "AutoencoderKL", block_out_channels = { 32, 32 },
      norm_num_groups = 8, mid_block_add_attention = false }):init(1)
    local z = core.generator(1):randn({ 1, 32, 32, 4 }):keep():requires_grad(true)
    local function measure(size, recomputed)
      vae:checkpointing(recomputed)
      z:set_grad(nil)
      core.memory_reset_peak()
      local before = core.memory().live
      core.scope(function()
        tiling.decode(vae, z, size and tiling.new(vae, { size = size })):square():mean():backward()
      end)
      return core.memory().peak - before, z:grad():hash()
    end
    local plain, gradient = measure(nil, false)
    local checkpointed, same = measure(nil, true)
    local tiled = measure(16, true)
    assert.equal(gradient, same)
    assert.is_true(checkpointed < 0.8 * plain)
    assert.is_true(tiled < 0.3 * plain)
  end)

  it("is an option of a pipeline", function()
    local syz = require "syz"
    core.scope(function()
      local folder = "tests/models/data/pipeline"
      local factor = syz.pipeline(folder).vae_factor
      local plain = syz.pipeline(folder, { size = { 16 * factor, 12 * factor } })
      local pipe = syz.pipeline(folder, { size = { 16 * factor, 12 * factor }, vae_tiling = { size = 8 * factor } })
      local x = plain:noise(core.generator(3), 1)
      local images, other = plain:decode(x), pipe:decode(x)
      assert.same(images:shape(), other:shape())
      assert.not_equal(images:hash(), other:hash())
      assert.same(plain:encode(images):shape(), pipe:encode(images):shape())
    end)
  end)

  it("says what is wrong with its options", function()
    local vae = core.model.load "tests/models/data/vae_a"
    local function refused(options, pattern)
      assert.error_matches(function() tiling.new(vae, options) end, pattern)
    end
    refused({ size = 15 }, "size must be a multiple of 2, not 15")
    refused({ size = 16, overlap = 1 }, "overlap must be at least 0 and below 1")
    refused({ size = 10 }, "an overlap of 0.25 cuts tiles of 10 pixels between latents")
    refused({ tile = 3 }, 'has no field "tile"')
  end)
end)
