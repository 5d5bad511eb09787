--- How many floating-point operations a forward pass takes, from a configuration: two for each multiply-add of matrix
--- products and attention. What was done is counted by the engine (core.flops, model:flops); this is for what was not
--- run, such as the depth that a dry run leaves out.
local flops = {}

-- One block of the transformer, double or single: 12 C^2 weights for every token, attention over all of them, and the
-- modulation of a sample, whose width differs.
local function block(tokens, width, modulation)
  return 24 * tokens * width ^ 2 + 4 * tokens ^ 2 * width + 2 * modulation * width ^ 2
end

--- FluxTransformer2DModel, one sample.
---@param config table         its configuration
---@param image integer        image tokens
---@param text integer         text tokens
---@return number
function flops.flux(config, image, text)
  local width = config.num_attention_heads * config.attention_head_dim
  local function embedder(inputs) return 2 * (inputs * width + width ^ 2) end
  local total = 2 * image * config.in_channels * width + 2 * text * config.joint_attention_dim * width
  total = total + embedder(256) + embedder(config.pooled_projection_dim)
  if config.guidance_embeds then total = total + embedder(256) end
  total = total + config.num_layers * block(image + text, width, 12)
  total = total + config.num_single_layers * block(image + text, width, 3)
  local outputs = type(config.out_channels) == "number" and config.out_channels or config.in_channels
  return total + 4 * width ^ 2 + 2 * image * width * outputs
end

return flops
