"""FluxTransformer2DModel of diffusers -> tests/models/data/flux_{a,b,c}.

Each folder holds config.json and diffusion_pytorch_model.safetensors in the diffusers layout, and
reference.safetensors:
  hidden_states [B, T, in_channels], encoder_hidden_states [B, S, joint], pooled_projections [B, P],
  timestep [B] (the noise level in [0, 1]), guidance [B] (where the config has it),
  img_ids [T, 3], txt_ids [S, 3], latent_size [2] (packed rows and columns, T = rows * columns);
  output [B, T, in_channels], grad_output of the same shape, and for loss = sum(output * grad_output)
  grad.hidden_states, grad.encoder_hidden_states, grad.pooled_projections, grad.<every parameter>.
The reference is computed in f64 from f32 weights and inputs and rounded to f32 once.
"""
import json

from common import MODELS, generator, randn, randomise, report, write_json, write_tensors

import torch
from diffusers import FluxTransformer2DModel

# The widths differ from each other wherever they may, so that a swapped dimension cannot pass.
CASES = {
    # no guidance, two blocks of each kind, one frequency on the first axis and two on the others
    "flux_a": (dict(in_channels=16, num_layers=2, num_single_layers=2, num_attention_heads=2,
                    attention_head_dim=10, axes_dims_rope=[2, 4, 4], joint_attention_dim=12,
                    pooled_projection_dim=14, guidance_embeds=False),
               dict(batch=1, rows=3, columns=5, text=5, timestep=[0.75])),
    # embedded guidance, a batch with a noise level and a guidance each, odd counts everywhere
    "flux_b": (dict(in_channels=8, num_layers=1, num_single_layers=1, num_attention_heads=3,
                    attention_head_dim=6, axes_dims_rope=[2, 2, 2], joint_attention_dim=18,
                    pooled_projection_dim=10, guidance_embeds=True),
               dict(batch=2, rows=3, columns=3, text=7, timestep=[0.96875, 0.25], guidance=[3.5, 1.0])),
    # one head, more single than double blocks, odd text widths
    "flux_c": (dict(in_channels=12, num_layers=1, num_single_layers=3, num_attention_heads=1,
                    attention_head_dim=16, axes_dims_rope=[4, 6, 6], joint_attention_dim=9,
                    pooled_projection_dim=7, guidance_embeds=False),
               dict(batch=3, rows=5, columns=2, text=4, timestep=[0.5, 1.0, 0.0625])),
}


def image_ids(rows, columns):
    ids = torch.zeros(rows, columns, 3)
    ids[..., 1] += torch.arange(rows)[:, None]
    ids[..., 2] += torch.arange(columns)[None, :]
    return ids.reshape(-1, 3)


def build(name):
    config, shape = CASES[name]
    gen = generator(name)
    model = randomise(FluxTransformer2DModel(**config), gen).eval()
    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", json.loads(model.to_json_string()))
    write_tensors(folder / "diffusion_pytorch_model.safetensors", model.state_dict())

    model = model.double()
    batch, tokens = shape["batch"], shape["rows"] * shape["columns"]
    inputs = {
        "hidden_states": randn(gen, batch, tokens, config["in_channels"]),
        "encoder_hidden_states": randn(gen, batch, shape["text"], config["joint_attention_dim"]),
        "pooled_projections": randn(gen, batch, config["pooled_projection_dim"]),
    }
    for value in inputs.values():
        value.requires_grad_()
    extra = {
        "timestep": torch.tensor(shape["timestep"]).double(),
        "img_ids": image_ids(shape["rows"], shape["columns"]),
        "txt_ids": torch.zeros(shape["text"], 3),
    }
    if config["guidance_embeds"]:
        extra["guidance"] = torch.tensor(shape["guidance"]).double()
    output = model(**inputs, **extra).sample
    grad_output = randn(gen, *output.shape)
    output.backward(grad_output)

    tensors = inputs | extra | {"output": output, "grad_output": grad_output,
                                "latent_size": torch.tensor([shape["rows"], shape["columns"]])}
    tensors |= {f"grad.{key}": value.grad for key, value in inputs.items()}
    tensors |= {f"grad.{key}": value.grad for key, value in model.named_parameters()}
    write_tensors(folder / "reference.safetensors", tensors)
    print(f"{name}: output std {output.std():.3f}")
    report(folder)


if __name__ == "__main__":
    for case in CASES:
        build(case)
