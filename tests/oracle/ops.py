"""Single operations of torch (and diffusers' rotary and timestep embeddings) -> tests/ops/data/ops.safetensors.

Names: `case.<argument>` for each input, `case.output`, `case.grad_output` (random, the output's shape) and
`case.grad.<argument>`: the gradient of sum(output * grad_output). Layouts are torch's: images NCHW,
convolution weights OIHW, attention [B, heads, T, D]. Computed in f64, rounded to f32 once.

  attention, attention_causal, attention_mask (adds `mask` [B, 1, Tq, Tk]), attention_cross (Tq != Tk),
  attention_wide (D = 64): query, key, value; scale 1/sqrt(D)
  group_norm_silu: input [N, C, H, W], weight, bias; 4 groups, eps 1e-6
  layer_norm (weight, bias; eps 1e-5), layer_norm_plain (eps 1e-6), rms_norm (weight; eps 1e-6): last dimension
  conv3x3 (stride 1, padding 1), conv3x3_down (stride 2, zeros only right and below), conv1x1, conv_patch (4, stride 4,
  no bias): input, weight, bias
  nearest_x2; {bilinear,bicubic}_{up,down}{,_antialias}: input [1, 2, 11, 14], up to 17x25, down to 5x4;
  align_corners false
  gelu_erf, gelu_tanh, quick_gelu, silu, softmax: input (over the last dimension, with extreme values)
  cross_entropy: input [N, classes], target i64 [N]; mean over N
  rope_frequencies: position [S], output_cos and output_sin [S, 12] (theta 10000, each value twice in a row)
  rope_axes: ids [S, 3], axes 4, 6, 6: output_cos, output_sin [S, 16]
  rope: input [B, heads, S, 16], the cos and sin of rope_axes, pairs (0, 1), (2, 3), ...
  timesteps: timestep [B] -> output [B, 256], cosines first; timesteps_shifted: 32 wide, sines first, shift 1
"""
from common import ROOT, generator, randn, report, write_tensors

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import Timesteps, apply_rotary_emb, get_1d_rotary_pos_embed
from diffusers.models.transformers.transformer_flux import FluxPosEmbed

OUT = ROOT / "tests/ops/data"
tensors = {}


def case(name, function, differentiable, fixed=None, gen=None):
    """Runs function(**inputs) and stores inputs, output and gradients under the case's name."""
    gen = gen or generator(name)
    for value in differentiable.values():
        value.requires_grad_()
    output = function(**differentiable, **(fixed or {}))
    grad = randn(gen, *output.shape)
    output.backward(grad)
    tensors.update({f"{name}.{key}": value for key, value in (differentiable | (fixed or {})).items()})
    tensors.update({f"{name}.output": output, f"{name}.grad_output": grad})
    tensors.update({f"{name}.grad.{key}": value.grad for key, value in differentiable.items()})


def attention():
    def inputs(name, batch, heads, queries, keys, dim):
        gen = generator(name)
        return dict(query=randn(gen, batch, heads, queries, dim), key=randn(gen, batch, heads, keys, dim),
                    value=randn(gen, batch, heads, keys, dim))

    sdpa = F.scaled_dot_product_attention
    case("attention", sdpa, inputs("attention", 2, 3, 7, 7, 8))
    case("attention_causal", lambda **kw: sdpa(**kw, is_causal=True), inputs("attention_causal", 2, 2, 9, 9, 6))
    mask = randn(generator("attention_mask.mask"), 2, 1, 5, 6)
    mask[0, :, :, 4:] = -1e4
    case("attention_mask", lambda mask, **kw: sdpa(**kw, attn_mask=mask),
         inputs("attention_mask", 2, 2, 5, 6, 10), dict(mask=mask))
    case("attention_cross", sdpa, inputs("attention_cross", 1, 2, 3, 11, 16))
    case("attention_wide", sdpa, inputs("attention_wide", 1, 1, 10, 10, 64))


def norms():
    gen = generator("norms")
    case("group_norm_silu", lambda input, weight, bias: F.silu(F.group_norm(input, 4, weight, bias, 1e-6)),
         dict(input=randn(gen, 2, 12, 3, 5) + 0.5, weight=randn(gen, 12), bias=randn(gen, 12)))
    case("layer_norm", lambda input, weight, bias: F.layer_norm(input, [19], weight, bias, 1e-5),
         dict(input=randn(gen, 3, 5, 19) * 2 + 1, weight=randn(gen, 19), bias=randn(gen, 19)))
    case("layer_norm_plain", lambda input: F.layer_norm(input, [16], eps=1e-6), dict(input=randn(gen, 6, 16) - 3))
    case("rms_norm", lambda input, weight: F.rms_norm(input, [18], weight, 1e-6),
         dict(input=randn(gen, 2, 5, 18) * 3, weight=randn(gen, 18)))


def convolutions():
    gen = generator("convolutions")
    case("conv3x3", lambda **kw: F.conv2d(**kw, padding=1),
         dict(input=randn(gen, 2, 5, 7, 6), weight=randn(gen, 6, 5, 3, 3, scale=0.2), bias=randn(gen, 6)))
    case("conv3x3_down", lambda input, weight, bias: F.conv2d(F.pad(input, (0, 1, 0, 1)), weight, bias, stride=2),
         dict(input=randn(gen, 2, 4, 6, 8), weight=randn(gen, 7, 4, 3, 3, scale=0.2), bias=randn(gen, 7)))
    case("conv1x1", F.conv2d,
         dict(input=randn(gen, 2, 6, 3, 5), weight=randn(gen, 4, 6, 1, 1), bias=randn(gen, 4)))
    case("conv_patch", lambda **kw: F.conv2d(**kw, stride=4),
         dict(input=randn(gen, 2, 3, 8, 12), weight=randn(gen, 5, 3, 4, 4, scale=0.2)))


def resizes():
    case("nearest_x2", lambda input: F.interpolate(input, scale_factor=2.0, mode="nearest"),
         dict(input=randn(generator("nearest_x2.input"), 2, 3, 3, 5)))
    for mode in ("bilinear", "bicubic"):
        for direction, size in (("up", (17, 25)), ("down", (5, 4))):
            for antialias in (False, True):
                name = f"{mode}_{direction}" + ("_antialias" if antialias else "")
                case(name, lambda input: F.interpolate(input, size=size, mode=mode, align_corners=False,
                                                       antialias=antialias),
                     dict(input=randn(generator(name), 1, 2, 11, 14)), gen=generator(name + ".grad"))


def activations():
    gen = generator("activations")
    line = torch.cat([torch.linspace(-12, 12, 49).double(), randn(gen, 31)])
    for name, function in (("gelu_erf", F.gelu), ("gelu_tanh", lambda input: F.gelu(input, approximate="tanh")),
                           ("quick_gelu", lambda input: input * torch.sigmoid(1.702 * input)), ("silu", F.silu)):
        case(name, function, dict(input=line.clone()))
    rows = randn(gen, 4, 13, scale=3.0)
    rows[1] += 200
    rows[2, 5] = 90
    case("softmax", lambda input: F.softmax(input, dim=-1), dict(input=rows.detach()))
    case("cross_entropy", F.cross_entropy, dict(input=randn(gen, 6, 11, scale=3.0)),
         dict(target=torch.tensor([0, 10, 3, 3, 7, 9])))


def embeddings():
    gen = generator("embeddings")
    position = torch.tensor([0.0, 1, 2, 3, 7, 31, 63, 127])
    cos, sin = get_1d_rotary_pos_embed(12, position.double(), theta=10000, use_real=True,
                                       repeat_interleave_real=True, freqs_dtype=torch.float64)
    tensors.update({"rope_frequencies.position": position, "rope_frequencies.output_cos": cos,
                    "rope_frequencies.output_sin": sin})
    ids = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 5, 44], [1, 63, 7]])
    cos, sin = FluxPosEmbed(theta=10000, axes_dim=[4, 6, 6])(ids)
    tensors.update({"rope_axes.ids": ids, "rope_axes.output_cos": cos, "rope_axes.output_sin": sin})
    case("rope", lambda input: apply_rotary_emb(input, (cos, sin), use_real=True, use_real_unbind_dim=-1),
         dict(input=randn(gen, 2, 3, len(ids), 16)))

    timestep = torch.tensor([0.0, 1, 62.5, 250, 752, 856, 999, 1000, 3500])
    tensors.update({
        "timesteps.timestep": timestep,
        "timesteps.output": Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)(timestep),
        "timesteps_shifted.timestep": timestep,
        "timesteps_shifted.output": Timesteps(32, flip_sin_to_cos=False, downscale_freq_shift=1)(timestep)})


if __name__ == "__main__":
    for group in (attention, norms, convolutions, resizes, activations, embeddings):
        group()
    write_tensors(OUT / "ops.safetensors", tensors)
    report(OUT)
