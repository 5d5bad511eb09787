"""A whole FLUX pipeline in miniature, in the diffusers layout -> tests/models/data/pipeline.

  model_index.json, scheduler/, transformer/, vae/, text_encoder/, tokenizer/   what FluxPipeline loads
  reference.json          prompts, height, width, steps, guidance
  reference.safetensors   input_ids i64 [2, 14]; prompt_embeds [2, 14, 16] (CLIP's last_hidden_state, in T5's
                          place), pooled_prompt_embeds [2, 16]; noise [2, 4, 8, 12] (NCHW, unpacked); sigmas [5];
                          latents_0 (the noise, packed: [2, 24, 16]) to latents_4 (after each Euler step);
                          latent [2, 4, 8, 12] (latents_4, unpacked); decoded [2, 3, 16, 24] (of
                          latent / scaling_factor + shift_factor) and image (decoded / 2 + 0.5, clamped to [0, 1])

The tokenizer has CLIP's symbols and its first 254 merges: 768 entries, 14 tokens a prompt, padded with the end
token. The reference comes from diffusers' FluxPipeline loading the very folder, in f64, rounded to f32.
"""
import json

from common import MODELS, generator, randn, randomise, report, write_json, write_tensors
from tokenizer import END, START, merges_and_vocab

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel

OUT = MODELS / "pipeline"
MERGES, LENGTH, CHANNELS = 254, 14, 16
PROMPTS = ["Flat. a cat", "a long prompt that cannot fit into so few tokens"]
HEIGHT, WIDTH_PIXELS, STEPS, GUIDANCE = 16, 24, 4, 3.5


def write_tokenizer(folder):
    """CLIP's first merges, as a folder of published checkpoints -> the ids of its symbols."""
    merges, vocab = merges_and_vocab()
    symbols = [*list(vocab)[:512 + MERGES], START, END]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {symbol: index for index, symbol in enumerate(symbols)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2"] + [" ".join(pair) for pair in merges[:MERGES]]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = dict(bos_token=START, eos_token=END, unk_token=END, pad_token=END)
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", special | dict(
        tokenizer_class="CLIPTokenizer", model_max_length=LENGTH, add_prefix_space=False, do_lower_case=True))
    return ids


def write_models(ids):
    gen = generator("pipeline")
    flux = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, num_attention_heads=2, attention_head_dim=8,
        axes_dims_rope=[2, 2, 4], joint_attention_dim=CHANNELS, pooled_projection_dim=CHANNELS, guidance_embeds=True)
    vae = AutoencoderKL(
        block_out_channels=[8, 12], layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=32,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
    # As published: the eos id of the config is not the tokenizer's, the pooled token is found by the largest id.
    text = CLIPTextConfig(
        vocab_size=len(ids), hidden_size=CHANNELS, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=LENGTH, projection_dim=CHANNELS, bos_token_id=0, eos_token_id=2, pad_token_id=1)
    clip = CLIPTextModel(text)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=False)
    for folder, model in (("transformer", flux), ("vae", vae)):
        randomise(model, gen)
        write_json(OUT / folder / "config.json", json.loads(model.to_json_string()))
        write_tensors(OUT / folder / "diffusion_pytorch_model.safetensors", model.state_dict())
    randomise(clip, gen)
    config = json.loads(text.to_json_string()) | {"architectures": ["CLIPTextModel"]}
    write_json(OUT / "text_encoder/config.json", config)
    write_tensors(OUT / "text_encoder/model.safetensors",
                  {f"text_model.{key}": value for key, value in clip.state_dict().items()})
    write_json(OUT / "scheduler/scheduler_config.json", json.loads(scheduler.to_json_string()))
    write_json(OUT / "model_index.json", {
        "_class_name": "FluxPipeline", "_diffusers_version": flux.config["_diffusers_version"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "text_encoder_2": [None, None],
        "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": [None, None],
        "transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]})


@torch.no_grad()
def write_reference():
    gen = generator("pipeline.noise")
    pipe = FluxPipeline.from_pretrained(OUT, dtype=torch.float64, local_files_only=True, text_encoder_2=None,
                                        tokenizer_2=None)
    pipe.set_progress_bar_config(disable=True)
    ids = pipe.tokenizer(PROMPTS, padding="max_length", max_length=LENGTH, truncation=True,
                         return_tensors="pt").input_ids
    text = pipe.text_encoder(ids)
    noise = randn(gen, len(PROMPTS), 4, HEIGHT // 2, WIDTH_PIXELS // 2)
    packed = pipe._pack_latents(noise, *noise.shape)
    tensors = {"input_ids": ids, "prompt_embeds": text.last_hidden_state, "pooled_prompt_embeds": text.pooler_output,
               "noise": noise, "latents_0": packed}

    def keep(_, step, timestep, values):
        tensors[f"latents_{step + 1}"] = values["latents"]
        return values

    latents = pipe(prompt_embeds=text.last_hidden_state, pooled_prompt_embeds=text.pooler_output, latents=packed,
                   height=HEIGHT, width=WIDTH_PIXELS, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
                   output_type="latent", callback_on_step_end=keep).images
    latent = pipe._unpack_latents(latents, HEIGHT, WIDTH_PIXELS, pipe.vae_scale_factor)
    config = pipe.vae.config
    decoded = pipe.vae.decode(latent / config.scaling_factor + config.shift_factor).sample
    tensors |= {"sigmas": pipe.scheduler.sigmas, "latent": latent, "decoded": decoded,
                "image": (decoded / 2 + 0.5).clamp(0, 1)}
    write_tensors(OUT / "reference.safetensors", tensors)
    write_json(OUT / "reference.json", {"prompts": PROMPTS, "height": HEIGHT, "width": WIDTH_PIXELS, "steps": STEPS,
                                        "guidance": GUIDANCE})
    print("sigmas", pipe.scheduler.sigmas.tolist(), "ids", ids.tolist(), "decoded std", float(decoded.std()),
          "latents std", [float(tensors[f"latents_{i}"].std()) for i in range(STEPS + 1)])


if __name__ == "__main__":
    write_models(write_tokenizer(OUT / "tokenizer"))
    write_reference()
    report(OUT)
