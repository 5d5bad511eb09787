"""The CLIP classes of transformers -> tests/models/data/clip_text_{a,...,f},
clip_vision_{a,b,c}, clip_{a,b,c}.

Each folder holds config.json, model.safetensors (with the names of published checkpoints, that is
`text_model.` in front even for a lone text tower) and reference.safetensors. No attention mask is
given anywhere: text is causal only, as the pipelines of diffusers call it.

clip_text_{a,c,d} (CLIPTextModel): input_ids i64 [B, S], last_hidden_state [B, S, C], pooler_output [B, C];
  gradients of sum(last_hidden_state * grad_last_hidden_state) + sum(pooler_output * grad_pooler_output).
clip_text_{b,e,f} (CLIPTextModelWithProjection): the same and text_embeds [B, P]; gradients of
  sum(last_hidden_state * grad_last_hidden_state) + sum(text_embeds * grad_text_embeds).
clip_vision_{a,b,c} (CLIPVisionModelWithProjection): pixel_values [B, 3, H, W], last_hidden_state
  [B, 1 + patches, C] (before the last norm), pooler_output [B, C] (after it), image_embeds [B, P];
  gradients of sum(image_embeds * grad_image_embeds), also grad.pixel_values.
clip_{a,b,c} (CLIPModel): input_ids, pixel_values, text_embeds and image_embeds (unit length),
  logits_per_image [images, texts]; gradients of sum(logits_per_image * grad_logits_per_image).
Gradients are named grad.<parameter>. Computed in f64 from f32 weights, rounded to f32 once.
"""
import json

from common import MODELS, generator, randn, randomise, report, write_json, write_tensors

import torch
from transformers import (CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection,
                          CLIPVisionConfig, CLIPVisionModelWithProjection)

# eos_token_id 2 is what published configs carry: the pooled token is then the first of the largest id.
TEXT_A = dict(hidden_size=16, intermediate_size=28, num_hidden_layers=2, num_attention_heads=2, vocab_size=48,
              max_position_embeddings=9, hidden_act="quick_gelu", projection_dim=16,
              bos_token_id=0, eos_token_id=2, pad_token_id=1)
# A true eos id: the pooled token is the first eos, although padding repeats it and larger ids exist.
TEXT_B = dict(hidden_size=18, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3, vocab_size=40,
              max_position_embeddings=12, hidden_act="gelu", projection_dim=10, layer_norm_eps=1e-3,
              bos_token_id=30, eos_token_id=31, pad_token_id=31)
VISION_A = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                image_size=16, patch_size=4, hidden_act="quick_gelu", projection_dim=12)
VISION_B = dict(hidden_size=20, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                image_size=12, patch_size=6, hidden_act="gelu", projection_dim=14, layer_norm_eps=1e-6)
# One head, and a text of one token; then three layers, more inner than outer width, and a large epsilon.
TEXT_C = TEXT_B | dict(hidden_size=10, num_attention_heads=1, num_hidden_layers=1, projection_dim=13)
TEXT_D = TEXT_A | dict(hidden_size=12, intermediate_size=40, num_hidden_layers=3, num_attention_heads=6,
                       layer_norm_eps=0.1, projection_dim=3)
# An image that its patches do not cover, and more than three channels.
VISION_C = dict(hidden_size=12, intermediate_size=30, num_hidden_layers=3, num_attention_heads=1, num_channels=5,
                image_size=11, patch_size=3, hidden_act="gelu", projection_dim=3, layer_norm_eps=1e-2)
IDS_A = [[0, 7, 33, 5, 47, 47, 47, 47, 47], [0, 12, 40, 9, 9, 2, 21, 47, 1]]
IDS_C = [[31], [4], [7]]
IDS_D = [[0, 7, 33, 5, 2, 2], [0, 12, 40, 9, 9, 2]]
IDS_B = [[30, 35, 39, 2, 31, 31, 31], [30, 1, 38, 36, 12, 37, 31]]


def save_model(folder, model, config, prefix=""):
    values = {key: value for key, value in json.loads(config.to_json_string()).items()
              if not key.startswith("_")}
    values["architectures"] = [type(model).__name__]
    write_json(folder / "config.json", values)
    write_tensors(folder / "model.safetensors", {prefix + key: value for key, value in model.state_dict().items()})


def finish(name, folder, model, tensors, prefix=""):
    tensors = dict(tensors)
    tensors |= {f"grad.{prefix}{key}": value.grad for key, value in model.named_parameters()}
    write_tensors(folder / "reference.safetensors", tensors)
    report(folder)


def text(name, cls, config, ids, pooled):
    gen, folder = generator(name), MODELS / name
    config = CLIPTextConfig(**config)
    prefix = "" if cls is CLIPTextModelWithProjection else "text_model."
    model = randomise(cls(config), gen).eval()
    save_model(folder, model, config, prefix)
    model = model.double()
    ids = torch.tensor(ids)
    out = model(input_ids=ids)
    tensors = {"input_ids": ids, "last_hidden_state": out.last_hidden_state, pooled: out[pooled]}
    if pooled == "text_embeds":
        tensors["pooler_output"] = model.text_model(input_ids=ids).pooler_output
    wanted = ["last_hidden_state", pooled]
    tensors |= {f"grad_{key}": randn(gen, *tensors[key].shape) for key in wanted}
    torch.autograd.backward([tensors[key] for key in wanted], [tensors[f"grad_{key}"] for key in wanted])
    finish(name, folder, model, tensors, prefix)


def vision(name, config):
    gen, folder = generator(name), MODELS / name
    config = CLIPVisionConfig(**config)
    model = randomise(CLIPVisionModelWithProjection(config), gen).eval()
    save_model(folder, model, config)
    model = model.double()
    pixels = randn(gen, 2, config.num_channels, config.image_size, config.image_size).requires_grad_()
    out = model(pixel_values=pixels)
    grad = randn(gen, *out.image_embeds.shape)
    out.image_embeds.backward(grad)
    finish(name, folder, model, {
        "pixel_values": pixels, "grad.pixel_values": pixels.grad, "image_embeds": out.image_embeds,
        "grad_image_embeds": grad, "last_hidden_state": out.last_hidden_state,
        "pooler_output": model.vision_model(pixel_values=pixels).pooler_output})


def both(name, text_config, vision_config, ids, projection):
    gen, folder = generator(name), MODELS / name
    config = CLIPConfig(text_config=text_config | dict(projection_dim=projection),
                        vision_config=vision_config | dict(projection_dim=projection), projection_dim=projection)
    model = randomise(CLIPModel(config), gen).eval()
    save_model(folder, model, config)
    model = model.double()
    vision = config.vision_config
    pixels = randn(gen, 3, vision.num_channels, vision.image_size, vision.image_size).requires_grad_()
    ids = torch.tensor(ids)
    out = model(input_ids=ids, pixel_values=pixels)
    grad = randn(gen, *out.logits_per_image.shape)
    out.logits_per_image.backward(grad)
    finish(name, folder, model, {
        "input_ids": ids, "pixel_values": pixels, "grad.pixel_values": pixels.grad,
        "text_embeds": out.text_embeds, "image_embeds": out.image_embeds,
        "logits_per_image": out.logits_per_image, "grad_logits_per_image": grad})


if __name__ == "__main__":
    text("clip_text_a", CLIPTextModel, TEXT_A, IDS_A, "pooler_output")
    text("clip_text_b", CLIPTextModelWithProjection, TEXT_B, IDS_B, "text_embeds")
    text("clip_text_c", CLIPTextModel, TEXT_C, IDS_C, "pooler_output")
    text("clip_text_d", CLIPTextModel, TEXT_D, IDS_D, "pooler_output")
    text("clip_text_e", CLIPTextModelWithProjection, TEXT_C, IDS_C, "text_embeds")
    text("clip_text_f", CLIPTextModelWithProjection, TEXT_D, IDS_D, "text_embeds")
    vision("clip_vision_a", VISION_A)
    vision("clip_vision_b", VISION_B)
    vision("clip_vision_c", VISION_C)
    both("clip_a", TEXT_A, VISION_B, IDS_A, 14)
    both("clip_b", TEXT_D, VISION_C, IDS_D, 5)
    both("clip_c", TEXT_C, VISION_A, IDS_C, 21)
