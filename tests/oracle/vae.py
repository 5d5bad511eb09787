"""AutoencoderKL of diffusers, in FLUX's style (no quant convolutions) and in Stable Diffusion's -> tests/models/data/vae_{a,b,c}.

Each folder holds config.json and diffusion_pytorch_model.safetensors in the diffusers layout, and
reference.safetensors (all activations NCHW; F = 2^(levels - 1)):
  image [N, 3, H, W], moments [N, 2 * latent_channels, H/F, W/F] (mean, then log variance, unclamped),
  grad_moments, grad.image: the gradient of sum(moments * grad_moments);
  latent [N, latent_channels, H/F, W/F], decoded [N, 3, H, W], grad_decoded,
  grad.latent: the gradient of sum(decoded * grad_decoded);
  grad.<parameter>: of the first sum for the encoder's parameters and quant_conv, of the second for the decoder's and
  post_quant_conv.
Neither scaling_factor nor shift_factor is applied: they belong to the pipeline.
The reference is computed in f64 from f32 weights and inputs and rounded to f32 once.
"""
import json

from common import MODELS, generator, randn, randomise, report, write_json, write_tensors

import torch
from diffusers import AutoencoderKL

FLUX = dict(latent_channels=4, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
            use_post_quant_conv=False, norm_num_groups=4, act_fn="silu", force_upcast=True)
CASES = {
    # attention in the middle, two levels, two images
    "vae_a": (dict(block_out_channels=[8, 16], layers_per_block=1, mid_block_add_attention=True),
              dict(batch=2, height=6, width=10)),
    # no attention, three levels, three channels a group, one channel a group at the first level
    "vae_b": (dict(block_out_channels=[4, 8, 12], layers_per_block=2, mid_block_add_attention=False),
              dict(batch=1, height=20, width=12)),
    # one level, so that latents have the image's odd sides; quant convolutions; one latent channel
    "vae_c": (dict(block_out_channels=[6], layers_per_block=1, mid_block_add_attention=True, norm_num_groups=3,
                   latent_channels=1, use_quant_conv=True, use_post_quant_conv=True),
              dict(batch=2, height=5, width=7)),
}


def build(name):
    config, shape = CASES[name]
    levels = len(config["block_out_channels"])
    gen = generator(name)
    model = AutoencoderKL(**FLUX | config, sample_size=32,
                          down_block_types=["DownEncoderBlock2D"] * levels,
                          up_block_types=["UpDecoderBlock2D"] * levels)
    model = randomise(model, gen).eval()
    folder = MODELS / name
    write_json(folder / "config.json", json.loads(model.to_json_string()))
    write_tensors(folder / "diffusion_pytorch_model.safetensors", model.state_dict())

    model = model.double()
    factor = 2 ** (levels - 1)
    image = randn(gen, shape["batch"], 3, shape["height"], shape["width"]).requires_grad_()
    latent = randn(gen, shape["batch"], model.config.latent_channels,
                   shape["height"] // factor, shape["width"] // factor).requires_grad_()
    moments = model.encode(image).latent_dist.parameters
    grad_moments = randn(gen, *moments.shape)
    decoded = model.decode(latent).sample
    grad_decoded = randn(gen, *decoded.shape)
    torch.autograd.backward([moments, decoded], [grad_moments, grad_decoded])

    tensors = {"image": image, "moments": moments, "grad_moments": grad_moments, "grad.image": image.grad,
               "latent": latent, "decoded": decoded, "grad_decoded": grad_decoded, "grad.latent": latent.grad}
    tensors |= {f"grad.{key}": value.grad for key, value in model.named_parameters()}
    write_tensors(folder / "reference.safetensors", tensors)
    print(f"{name}: moments std {moments.std():.3f}, decoded std {decoded.std():.3f}")
    report(folder)


if __name__ == "__main__":
    for case in CASES:
        build(case)
