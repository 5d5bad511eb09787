"""T5EncoderModel of transformers -> tests/models/data/t5_{a,b,c,d}.

Each folder holds config.json, model.safetensors and reference.safetensors:
  input_ids i64 [B, T], attention_mask i64 [B, T] (where the case has one), last_hidden_state [B, T, C],
  grad_output of the same shape, and for loss = sum(last_hidden_state * grad_output) grad.<every parameter>.
Computed in f64 from f32 weights, rounded to f32 once. Buckets of distances are chosen in f32 there too.
"""
import json

from common import MODELS, generator, randn, randomise, report, write_json, write_tensors

import torch
from transformers import T5Config, T5EncoderModel

# Heads times their width is never the model's width; buckets and distances are odd ones except in the last case.
CASES = {
    # as T5-XXL v1.1 is built: gated, no mask, far beyond max_distance
    "t5_a": (dict(vocab_size=40, d_model=12, d_kv=5, num_heads=4, d_ff=18, num_layers=2,
                  relative_attention_num_buckets=8, relative_attention_max_distance=10,
                  feed_forward_proj="gated-gelu"),
             dict(batch=2, length=37)),
    # the original T5's relu, a mask with padding of several lengths, also in the middle
    "t5_b": (dict(vocab_size=30, d_model=14, d_kv=8, num_heads=3, d_ff=20, num_layers=3,
                  relative_attention_num_buckets=14, relative_attention_max_distance=20, layer_norm_epsilon=1e-3,
                  feed_forward_proj="relu"),
             dict(batch=3, length=11, read=[11, 6, 1], hole=(1, 2))),
    # one head, an odd count of buckets, gated with a mask
    "t5_c": (dict(vocab_size=21, d_model=9, d_kv=7, num_heads=1, d_ff=10, num_layers=1,
                  relative_attention_num_buckets=9, relative_attention_max_distance=50,
                  feed_forward_proj="gated-gelu"),
             dict(batch=2, length=60, read=[60, 41])),
    # the published buckets and distance, longer than both
    "t5_d": (dict(vocab_size=16, d_model=6, d_kv=4, num_heads=2, d_ff=8, num_layers=1,
                  feed_forward_proj="gated-gelu"),
             dict(batch=1, length=300)),
}


def randomise_t5(model, gen):
    """Unscaled scores need small queries to keep the softmax soft; position biases must weigh as much as contents."""
    randomise(model, gen)
    for name, parameter in sorted(model.named_parameters()):
        if name.endswith("relative_attention_bias.weight"):
            parameter.data = torch.randn(parameter.shape, generator=gen)
        elif name.endswith("SelfAttention.q.weight"):
            parameter.data *= 0.6
    return model


def inputs_of(gen, config, shape):
    ids = torch.randint(0, config["vocab_size"], (shape["batch"], shape["length"]), generator=gen)
    inputs = {"input_ids": ids}
    if "read" in shape:
        mask = torch.zeros_like(ids)
        for row, count in enumerate(shape["read"]):
            mask[row, :count] = 1
        if "hole" in shape:
            mask[shape["hole"]] = 0
        inputs["attention_mask"] = mask
    return inputs


def build(name):
    config, shape = CASES[name]
    gen, folder = generator(name), MODELS / name
    settings = T5Config(**config, is_encoder_decoder=False, use_cache=False)
    model = randomise_t5(T5EncoderModel(settings), gen).eval()
    values = {key: value for key, value in json.loads(settings.to_json_string()).items() if not key.startswith("_")}
    write_json(folder / "config.json", values | {"architectures": ["T5EncoderModel"]})
    weights = {key: value for key, value in model.state_dict().items() if key != "encoder.embed_tokens.weight"}
    write_tensors(folder / "model.safetensors", weights)

    inputs = inputs_of(gen, config, shape)
    model = model.double()
    output = model(**inputs).last_hidden_state
    grad_output = randn(gen, *output.shape)
    output.backward(grad_output)
    tensors = inputs | {"last_hidden_state": output, "grad_output": grad_output}
    tensors |= {f"grad.{key}": value.grad for key, value in model.named_parameters()
                if key != "encoder.embed_tokens.weight"}
    write_tensors(folder / "reference.safetensors", tensors)
    print(f"{name}: output std {output.std():.3f}")
    report(folder)


if __name__ == "__main__":
    for case in CASES:
        build(case)
