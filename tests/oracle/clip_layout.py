"""open_clip's CLIP -> tests/models/data/open_clip_{a,b,c}.

Each folder holds model.safetensors in open_clip's own names, config.json (transformers' CLIPModel, which says of
the same model what shapes do not tell) and reference.safetensors; open_clip_c has its weights also as torch.save
wrote them, under "state_dict" as HPS_v2.1_compressed.pt has it. a: like ViT-H/14, gelu and heads of another width than
the text tower's; b: like OpenAI's, quick_gelu; c: f16, saved from DistributedDataParallel ("module." in front), with
the attention mask that older versions stored.

input_ids [B, T] padded with 0, pixel_values [N, 3, H, W], text_embeds [B, P] and image_embeds [N, P] (encode_text and
encode_image, not normalised), logits_per_image [N, B]; gradients of the sum of each output times its grad_<output>,
under transformers' names. Computed in f64 from the stored weights, rounded to f32 once.
bf16_error [2]: largest error of text_embeds and image_embeds, relative to the largest value, computed in bf16.
"""
import vision  # noqa: F401  first: it brings torchvision in

from common import MODELS, generator, randn, randomise, report, write_json, write_tensors

import open_clip
import torch
from safetensors.torch import save

A = dict(embed_dim=10, quick_gelu=False, vision_cfg=dict(image_size=12, layers=2, width=24, head_width=12, patch_size=4),
         text_cfg=dict(context_length=9, vocab_size=30, width=16, heads=4, layers=2))
B = dict(embed_dim=14, quick_gelu=True, vision_cfg=dict(image_size=15, layers=2, width=16, head_width=8, patch_size=5),
         text_cfg=dict(context_length=7, vocab_size=26, width=20, heads=2, layers=1))
C = dict(embed_dim=7, quick_gelu=False,
         vision_cfg=dict(image_size=10, layers=1, width=18, head_width=6, patch_size=5, mlp_ratio=2.5),
         text_cfg=dict(context_length=6, vocab_size=20, width=12, heads=3, layers=3))


def transformers_config(c):
    v, t, act = c["vision_cfg"], c["text_cfg"], "quick_gelu" if c["quick_gelu"] else "gelu"
    return {"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": c["embed_dim"], "vision_config": {
        "hidden_size": v["width"], "intermediate_size": int(v["width"] * v.get("mlp_ratio", 4)), "hidden_act": act,
        "num_hidden_layers": v["layers"], "num_attention_heads": v["width"] // v["head_width"],
        "image_size": v["image_size"], "patch_size": v["patch_size"]}, "text_config": {
        "hidden_size": t["width"], "intermediate_size": t["width"] * 4, "hidden_act": act,
        "num_hidden_layers": t["layers"], "num_attention_heads": t["heads"], "vocab_size": t["vocab_size"],
        "max_position_embeddings": t["context_length"], "eos_token_id": 2}}


def transformers_names(theirs):
    """open_clip's tensors under the names and in the orientation of transformers."""
    ours = {}
    for name, value in theirs.items():
        tower, inner = ("vision_model", name[7:]) if name.startswith("visual.") else ("text_model", name)
        parts = inner.split(".")
        if parts[:2] == ["transformer", "resblocks"]:
            layer, rest = f"{tower}.encoder.layers.{parts[2]}", ".".join(parts[3:])
            if rest.startswith("attn.in_proj_"):
                for part, third in zip("qkv", value.chunk(3)):
                    ours[f"{layer}.self_attn.{part}_proj.{rest[13:]}"] = third
                continue
            for old, new in {"attn.": "self_attn.", "ln_": "layer_norm", "c_fc": "fc1", "c_proj": "fc2"}.items():
                rest = rest.replace(old, new)
            ours[f"{layer}.{rest}"] = value
        elif inner in ("proj", "text_projection"):
            ours["visual_projection.weight" if inner == "proj" else "text_projection.weight"] = value.T
        elif inner == "logit_scale":
            ours[inner] = value
        else:
            new = {"class_embedding": "embeddings.class_embedding", "conv1.weight": "embeddings.patch_embedding.weight",
                   "positional_embedding": "embeddings.position_embedding.weight",
                   "token_embedding.weight": "embeddings.token_embedding.weight"}.get(inner, inner)
            for old, long in {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm",
                              "ln_final": "final_layer_norm"}.items():
                new = new.replace(old, long)
            ours[f"{tower}.{new}"] = value
    return ours


def texts(gen, count, c):
    """Tokens, then the largest id as end, then zeros."""
    length, end = c["text_cfg"]["context_length"], c["text_cfg"]["vocab_size"] - 1
    rows = torch.zeros(count, length, dtype=torch.int64)
    for row, used in zip(rows, range(length, length - count, -1)):
        row[:used - 1] = torch.randint(1, end, (used - 1,), generator=gen)
        row[used - 1] = end
    return rows


def relative(value, reference):
    return ((value.double() - reference).abs().max() / reference.abs().max()).item()


def case(name, c, dtype=torch.float32, prefix="", buffers=False):
    gen, folder = generator(name), MODELS / name
    model = randomise(open_clip.CLIP(**c), gen).eval().to(dtype)
    weights = {prefix + key: value.clone().contiguous() for key, value in model.state_dict().items()}
    if buffers:
        weights[prefix + "attn_mask"] = model.attn_mask.clone()
    write_json(folder / "config.json", transformers_config(c))
    (folder / "model.safetensors").write_bytes(save(dict(sorted(weights.items()))))
    if name == "open_clip_c":
        torch.save({"epoch": 1, "name": "tiny", "state_dict": model.state_dict()}, folder / "open_clip.pt")
    ids = texts(gen, 3, c)
    size = c["vision_cfg"]["image_size"]
    pixels = randn(gen, 2, 3, size, size)
    with torch.no_grad():
        half = model.bfloat16()
        half = [half.encode_text(ids), half.encode_image(pixels.bfloat16())]
    model = model.double()
    for key, value in model.named_parameters():
        value.data = weights[prefix + key].double()
    pixels.requires_grad_()
    out = {"text_embeds": model.encode_text(ids), "image_embeds": model.encode_image(pixels),
           "logits_per_image": model.get_logits(pixels, ids)[0]}
    tensors = {"input_ids": ids, "pixel_values": pixels} | out
    tensors |= {f"grad_{key}": randn(gen, *value.shape) for key, value in out.items()}
    torch.autograd.backward(list(out.values()), [tensors[f"grad_{key}"] for key in out])
    tensors["grad.pixel_values"] = pixels.grad
    grads = transformers_names({key: value.grad for key, value in model.named_parameters()})
    tensors |= {f"grad.{key}": value for key, value in grads.items()}
    tensors["bf16_error"] = torch.tensor([relative(half[0], out["text_embeds"]), relative(half[1], out["image_embeds"])])
    write_tensors(folder / "reference.safetensors", tensors)
    report(folder)


if __name__ == "__main__":
    case("open_clip_a", A)
    case("open_clip_b", B)
    case("open_clip_c", C, dtype=torch.float16, prefix="module.", buffers=True)
