"""AutoencoderKL's tiled encoding and decoding (diffusers' enable_tiling) -> tests/models/data/tiling/{vae_a,vae_b}.safetensors.

With the weights of vae.py's folders of the same names, NCHW: tiles [2] (tile_sample_min_size, tile_latent_min_size),
overlap [1] (tile_overlap_factor); image, moments, grad_moments, grad.image: the gradient of sum(moments * grad_moments);
latent, decoded, grad_decoded, grad.latent likewise. Computed in f64 and rounded to f32 once.
"""
from common import MODELS, generator, randn, report, write_tensors

import torch
from diffusers import AutoencoderKL

CASES = {
    # the last tile of a row is one position wide, narrower than the blend
    "vae_a": dict(sample=16, latent=8, overlap=0.25, batch=2, rows=13, columns=10),
    # tiles that overlap by half; whole in one direction
    "vae_b": dict(sample=16, latent=4, overlap=0.5, batch=1, rows=3, columns=7),
}


def build(name):
    case, gen = CASES[name], generator(f"tiling_{name}")
    vae = AutoencoderKL.from_pretrained(MODELS / name).eval().double()
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size = case["sample"], case["latent"]
    vae.tile_overlap_factor = case["overlap"]
    factor = case["sample"] // case["latent"]
    image = randn(gen, case["batch"], 3, factor * case["rows"], factor * case["columns"]).requires_grad_()
    latent = randn(gen, case["batch"], 4, case["rows"], case["columns"]).requires_grad_()
    moments, decoded = vae.encode(image).latent_dist.parameters, vae.decode(latent).sample
    grad_moments, grad_decoded = randn(gen, *moments.shape), randn(gen, *decoded.shape)
    torch.autograd.backward([moments, decoded], [grad_moments, grad_decoded])
    vae.disable_tiling()
    whole = vae.decode(latent).sample
    print(f"{name}: tiles change the image by {(whole - decoded).abs().max():.3f}")
    write_tensors(MODELS / f"tiling/{name}.safetensors", {
        "tiles": torch.tensor([case["sample"], case["latent"]]), "overlap": torch.tensor([case["overlap"]]),
        "image": image, "moments": moments, "grad_moments": grad_moments, "grad.image": image.grad,
        "latent": latent, "decoded": decoded, "grad_decoded": grad_decoded, "grad.latent": latent.grad})


if __name__ == "__main__":
    for case in CASES:
        build(case)
    report(MODELS / "tiling")
