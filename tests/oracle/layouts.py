"""Checkpoints in the names of the original repositories -> tests/models/data/layouts/.

  flux_schnell, flux_dev, flux_comfy   the weights of flux_a, flux_b and flux_c in the names of flux1-*.safetensors; the
                                       last with ComfyUI's prefix and a tensor of another model beside them
  vae_a, vae_b                         those of vae_a and vae_b in the names of ae.safetensors
So outputs and gradients of the folders of flux.py and vae.py are theirs as well. The names here are written down from
the original code; that diffusers' own conversion leads back to the same tensors is asserted.
"""
import inspect
import json
import re

from common import MODELS, report

import torch
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file, save

STREAMS = {"img": ("norm1", "to_q to_k to_v", "norm_q norm_k", "to_out.0", "ff"),
           "txt": ("norm1_context", "add_q_proj add_k_proj add_v_proj", "norm_added_q norm_added_k", "to_add_out",
                   "ff_context")}


def flux_original(ours):
    """diffusers' names -> the original ones"""
    theirs = {}

    def copy(to, *names, how=torch.cat):
        for kind in ("weight", "bias"):
            theirs[f"{to}.{kind}"] = how([ours[f"{name}.{kind}"] for name in names])

    for to, name in {"time_in": "timestep", "guidance_in": "guidance", "vector_in": "text"}.items():
        if f"time_text_embed.{name}_embedder.linear_1.weight" in ours:
            copy(f"{to}.in_layer", f"time_text_embed.{name}_embedder.linear_1")
            copy(f"{to}.out_layer", f"time_text_embed.{name}_embedder.linear_2")
    copy("img_in", "x_embedder")
    copy("txt_in", "context_embedder")
    for block in sorted({int(name.split(".")[1]) for name in ours if name.startswith("transformer_blocks.")}):
        at, to = f"transformer_blocks.{block}", f"double_blocks.{block}"
        for stream, (norm, qkv, norms, out, feed_forward) in STREAMS.items():
            copy(f"{to}.{stream}_mod.lin", f"{at}.{norm}.linear")
            copy(f"{to}.{stream}_attn.qkv", *[f"{at}.attn.{name}" for name in qkv.split()])
            copy(f"{to}.{stream}_attn.proj", f"{at}.attn.{out}")
            copy(f"{to}.{stream}_mlp.0", f"{at}.{feed_forward}.net.0.proj")
            copy(f"{to}.{stream}_mlp.2", f"{at}.{feed_forward}.net.2")
            for kind, name in zip(("query", "key"), norms.split()):
                theirs[f"{to}.{stream}_attn.norm.{kind}_norm.scale"] = ours[f"{at}.attn.{name}.weight"]
    for block in sorted({int(name.split(".")[1]) for name in ours if name.startswith("single_transformer_blocks.")}):
        at, to = f"single_transformer_blocks.{block}", f"single_blocks.{block}"
        copy(f"{to}.modulation.lin", f"{at}.norm.linear")
        copy(f"{to}.linear1", f"{at}.attn.to_q", f"{at}.attn.to_k", f"{at}.attn.to_v", f"{at}.proj_mlp")
        copy(f"{to}.linear2", f"{at}.proj_out")
        theirs[f"{to}.norm.query_norm.scale"] = ours[f"{at}.attn.norm_q.weight"]
        theirs[f"{to}.norm.key_norm.scale"] = ours[f"{at}.attn.norm_k.weight"]
    copy("final_layer.adaLN_modulation.1", "norm_out.linear", how=lambda parts: torch.cat(parts[0].chunk(2)[::-1]))
    copy("final_layer.linear", "proj_out")
    return theirs


def flux_diffusers(theirs, width):
    """diffusers' conversion, which is written for one width"""
    source = inspect.getsource(single_file_utils.convert_flux_transformer_checkpoint_to_diffusers)
    assert source.count("inner_dim = 3072") == 1
    scope = dict(vars(single_file_utils))
    exec(source.replace("inner_dim = 3072", f"inner_dim = {width}"), scope)
    return scope["convert_flux_transformer_checkpoint_to_diffusers"](dict(theirs))


def vae_original(ours):
    levels = 1 + max(int(name.split(".")[2]) for name in ours if name.startswith("decoder.up_blocks."))
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    theirs = {}
    for name, value in ours.items():
        to = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
        to = re.sub(r"up_blocks\.(\d)\.", lambda found: f"up.{levels - 1 - int(found[1])}.", to)
        to = to.replace(".resnets.", ".block.") if ".up." in to else to
        to = to.replace("down_blocks", "down").replace("downsamplers.0", "downsample")
        to = to.replace("upsamplers.0", "upsample").replace("conv_shortcut", "nin_shortcut")
        to = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", to)
        to = re.sub(r"mid_block\.attentions\.0\.(.*)\.(weight|bias)",
                    lambda found: f"mid.attn_1.{attention[found[1]]}.{found[2]}", to)
        to = to.replace("conv_norm_out", "norm_out")
        theirs[to] = value[:, :, None, None] if "attn_1" in to and value.ndim == 2 else value
    return theirs


def same(converted, ours, name):
    assert sorted(converted) == sorted(ours), name
    for key, value in ours.items():
        assert torch.equal(converted[key], value), f"{name}: {key}"


def write(name, tensors):
    path = MODELS / "layouts" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save({key: tensors[key].contiguous().clone() for key in sorted(tensors)}))


def load(name):
    folder = MODELS / name
    return (load_file(folder / "diffusion_pytorch_model.safetensors"), json.loads((folder / "config.json").read_text()))


if __name__ == "__main__":
    for name, case in {"flux_schnell": "flux_a", "flux_dev": "flux_b", "flux_comfy": "flux_c"}.items():
        ours, config = load(case)
        theirs = flux_original(ours)
        if name == "flux_comfy":
            theirs = {f"model.diffusion_model.{key}": value for key, value in theirs.items()}
        same(flux_diffusers(theirs, config["num_attention_heads"] * config["attention_head_dim"]), ours, name)
        if name == "flux_comfy":
            theirs["text_encoders.clip_l.logit_scale"] = torch.tensor(1.0)
        write(name, theirs)
    for name in ("vae_a", "vae_b"):
        ours, config = load(name)
        theirs = vae_original(ours)
        same(single_file_utils.convert_ldm_vae_checkpoint(dict(theirs), config), ours, name)
        write(name, theirs)
    report(MODELS / "layouts")
