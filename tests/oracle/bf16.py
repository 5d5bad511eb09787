"""How far the reference libraries' own bf16 is from the references -> tests/models/data/bf16.json.

For each case: the largest difference of an output computed in bf16 throughout (weights, inputs and activations) from
the reference, relative to the reference's largest value. The engine's bf16 may be off by twice as much.
Run after the scripts that make the cases.
"""
import json

from common import MODELS, write_json

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection
from transformers import T5EncoderModel

FLUX_INPUTS = ["hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance", "img_ids",
               "txt_ids"]


def bf16(value):
    return value.bfloat16() if value.is_floating_point() else value


def call(names):
    return lambda model, stored: model(**{name: bf16(stored[name]) for name in names if name in stored})


def vae(model, stored):
    return {"moments": model._encode(bf16(stored["image"])), "decoded": model.decode(bf16(stored["latent"])).sample}


CASES = [
    ("flux", "abc", FluxTransformer2DModel, call(FLUX_INPUTS), {"output": "sample"}),
    ("clip_text", "acd", CLIPTextModel, call(["input_ids"]), ["last_hidden_state", "pooler_output"]),
    ("clip_text", "bef", CLIPTextModelWithProjection, call(["input_ids"]), ["last_hidden_state", "text_embeds"]),
    ("clip_vision", "abc", CLIPVisionModelWithProjection, call(["pixel_values"]), ["image_embeds"]),
    ("clip", "abc", CLIPModel, call(["input_ids", "pixel_values"]), ["logits_per_image"]),
    ("vae", "abc", AutoencoderKL, vae, ["moments", "decoded"]),
    ("t5", "abcd", T5EncoderModel, call(["input_ids", "attention_mask"]), ["last_hidden_state"]),
]


@torch.no_grad()
def errors(cls, name, run, outputs):
    model = cls.from_pretrained(MODELS / name, local_files_only=True).eval().bfloat16()
    stored = load_file(MODELS / name / "reference.safetensors")
    out, found = run(model, stored), {}
    for key in outputs:
        value = out[outputs[key] if isinstance(outputs, dict) else key]
        error = (value.double() - stored[key].double()).abs().max() / stored[key].double().abs().max()
        found[key] = float(f"{float(error):.4g}")
    return found


if __name__ == "__main__":
    table = {}
    for stem, letters, cls, run, outputs in CASES:
        for name in [f"{stem}_{letter}" for letter in letters]:
            table[name] = errors(cls, name, run, outputs)
    write_json(MODELS / "bf16.json", table)
    print(json.dumps(table, indent=1))
