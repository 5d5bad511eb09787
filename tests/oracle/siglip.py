"""SigLIP's vision tower of transformers -> tests/models/data/siglip_{a,b,c}.

Each folder holds config.json, model.safetensors (with the names of published checkpoints, that is
`vision_model.` in front) and reference.safetensors. a and b are lone SiglipVisionModels; c is a whole
SiglipModel whose config.json leaves out what transformers has as default, as google/siglip-* do.

pixel_values [B, 3, H, W], last_hidden_state [B, patches, C] (after the last norm), pooler_output [B, C];
gradients of sum(last_hidden_state * grad_last_hidden_state) + sum(pooler_output * grad_pooler_output),
named grad.<parameter>, and grad.pixel_values. Computed in f64 from f32 weights, rounded to f32 once.
bf16_error [2]: largest error of last_hidden_state and pooler_output, relative to the largest value, when
transformers computes in bf16 throughout.
"""
from common import MODELS, generator, randn, randomise, report, write_json, write_tensors

import torch
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

# Patches leave a rest of the image unseen (13 = 3 * 4 + 1).
A = dict(hidden_size=20, intermediate_size=28, num_hidden_layers=2, num_attention_heads=2, image_size=13, patch_size=4)
B = dict(hidden_size=18, intermediate_size=20, num_hidden_layers=1, num_attention_heads=3, image_size=10, patch_size=5,
         hidden_act="gelu", layer_norm_eps=1e-3)
# patch_size, hidden_act and layer_norm_eps are transformers' defaults.
C = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, image_size=39)
TEXT = dict(hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20,
            max_position_embeddings=4, bos_token_id=18, eos_token_id=19, projection_size=16)


def relative(value, reference):
    return ((value.double() - reference).abs().max() / reference.abs().max()).item()


def finish(name, gen, vision, config, weights):
    folder = MODELS / name
    write_json(folder / "config.json", config)
    write_tensors(folder / "model.safetensors", weights)
    size = vision.config.image_size
    pixels = randn(gen, 2, 3, size, size)
    with torch.no_grad():
        half = vision.bfloat16()(pixel_values=pixels.bfloat16())
    for key, value in vision.named_parameters():
        value.data = weights[f"vision_model.{key}"].double()
    pixels.requires_grad_()
    out = vision(pixel_values=pixels)
    wanted = ["last_hidden_state", "pooler_output"]
    tensors = {"pixel_values": pixels} | {key: out[key] for key in wanted}
    tensors |= {f"grad_{key}": randn(gen, *out[key].shape) for key in wanted}
    torch.autograd.backward([out[key] for key in wanted], [tensors[f"grad_{key}"] for key in wanted])
    tensors["grad.pixel_values"] = pixels.grad
    tensors |= {f"grad.vision_model.{key}": value.grad for key, value in vision.named_parameters()}
    tensors["bf16_error"] = torch.tensor([relative(half[key], out[key]) for key in wanted])
    write_tensors(folder / "reference.safetensors", tensors)
    report(folder)


def vision_only(name, config):
    gen = generator(name)
    model = randomise(SiglipVisionModel(SiglipVisionConfig(**config)), gen).eval()
    weights = {f"vision_model.{key}": value.clone() for key, value in model.state_dict().items()}
    finish(name, gen, model, config | {"architectures": ["SiglipVisionModel"]}, weights)


def whole(name, config):
    gen = generator(name)
    model = randomise(SiglipModel(SiglipConfig(text_config=TEXT, vision_config=config)), gen).eval()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    finish(name, gen, model.vision_model, {"architectures": ["SiglipModel"], "text_config": TEXT,
                                           "vision_config": config}, weights)


if __name__ == "__main__":
    vision_only("siglip_a", A)
    vision_only("siglip_b", B)
    whole("siglip_c", C)
