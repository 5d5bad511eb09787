"""Writes tests/models/data/lora_{a,b,c,d}: adapters on small random transformers, made with peft and saved by diffusers.

Each folder has pytorch_lora_weights.safetensors, or adapter_model.safetensors and adapter_config.json, as diffusers and
PEFT write them, with both matrices of every adapter random; and reference.safetensors:
  the inputs of flux_a (see flux.py), output [B, T, in_channels] of the adapted model, grad_output of the same shape,
  grad.hidden_states and grad.<layer>.lora_A.weight, grad.<layer>.lora_B.weight for loss = sum(output * grad_output),
  merged.<layer>.weight of one layer, as PEFT merges it.
The base is flux_a. With a folder as its argument the script checks instead what this engine has saved there
(SYZ_LORA_OUT=FOLDER build/release/tests/test_lora writes it): it loads the adapters with diffusers and prints the largest relative error of the output.
"""
import json
import shutil
import sys
from pathlib import Path

from common import MODELS, generator, randn, report, write_tensors

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from peft import LoraConfig, PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]
# name: (LoraConfig, layout)
CASES = {
    # diffusers' default targets, alpha above r
    "lora_a": (dict(r=3, lora_alpha=6, target_modules=ATTENTION, init_lora_weights="gaussian"), "diffusers"),
    # every linear layer
    "lora_b": (dict(r=2, lora_alpha=2, target_modules="all-linear"), "diffusers"),
    # ranks and alphas by pattern, rank-stabilised
    "lora_c": (dict(r=4, lora_alpha=7, target_modules=ATTENTION + ["add_q_proj", "ff.net.2", "proj_out"],
                    rank_pattern={"to_q": 2, "^proj_out": 5}, alpha_pattern={"ff.net.2": 1.5}, use_rslora=True),
               "diffusers"),
    # PEFT's own layout
    "lora_d": (dict(r=5, lora_alpha=4, target_modules=["attn.to_q", "proj_mlp", "norm_out.linear"]), "peft"),
}
MERGED = "transformer_blocks.0.attn.to_q"
INPUTS = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "img_ids", "txt_ids")


def pipeline(transformer):
    return FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), vae=None, text_encoder=None, tokenizer=None,
                        text_encoder_2=None, tokenizer_2=None, transformer=transformer)


def base_and_inputs():
    model = FluxTransformer2DModel.from_pretrained(MODELS / "flux_a").eval()
    values = load_file(MODELS / "flux_a/reference.safetensors")
    return model, {name: values[name] for name in INPUTS}


def lora_parameters(model):
    return {name.replace(".default", ""): p for name, p in model.named_parameters() if ".lora_" in name}


def settle_header(path):
    """The order of a file's metadata differs from run to run; nothing else is touched."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:8 + size]), separators=(",", ":"), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size:])
    path.chmod(0o644)


def save(model, folder, layout):
    config = model.peft_config["default"]
    config.target_modules = sorted(config.target_modules)  # a set: its order would differ from run to run
    state = get_peft_model_state_dict(model)
    if layout == "diffusers":
        FluxPipeline.save_lora_weights(folder, transformer_lora_layers=state,
                                       transformer_lora_adapter_metadata=config.to_dict())
        settle_header(folder / "pytorch_lora_weights.safetensors")
        return
    write_tensors(folder / "adapter_model.safetensors",
                  {f"base_model.model.{key}": value for key, value in state.items()})
    config.save_pretrained(folder)


def build(name):
    settings, layout = CASES[name]
    gen = generator(name)
    model, inputs = base_and_inputs()
    model.add_adapter(LoraConfig(**settings))
    for key, value in sorted(lora_parameters(model).items()):
        value.data = torch.randn(value.shape, generator=gen) / value.shape[1] ** 0.5
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save(model, folder, layout)

    model = model.double()
    inputs = {key: value if "ids" in key else value.double() for key, value in inputs.items()}
    inputs["hidden_states"].requires_grad_()
    output = model(**inputs).sample
    grad_output = randn(gen, *output.shape)
    output.backward(grad_output)
    plain = lora_parameters(model)
    tensors = {"output": output, "grad_output": grad_output, "grad.hidden_states": inputs["hidden_states"].grad}
    tensors |= {f"grad.{key}": value.grad for key, value in plain.items()}
    layer = dict(model.named_modules())[MERGED]
    layer.merge()
    tensors[f"merged.{MERGED}.weight"] = layer.base_layer.weight
    write_tensors(folder / "reference.safetensors", tensors)
    print(f"{name}: {len(plain) // 2} layers, output std {output.std():.3f}")
    report(folder)


def check(folder):
    """What this engine saved: `folder`/NAME for each case, loaded as a user would."""
    for name, (_, layout) in CASES.items():
        model, inputs = base_and_inputs()
        here = Path(folder) / name
        if layout == "diffusers":
            pipeline(model).load_lora_weights(here)
        else:
            model = PeftModel.from_pretrained(model, here).base_model.model
        with torch.no_grad():
            output = model(**inputs).sample
        expected = load_file(MODELS / name / "reference.safetensors")["output"]
        error = ((output - expected).abs().max() / expected.abs().max()).item()
        print(f"{name}: relative error {error:.2e}")
        if not error < 1e-5:
            sys.exit(f"{name}: the adapters that were loaded are others")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        check(sys.argv[1])
    else:
        for case in CASES:
            build(case)
