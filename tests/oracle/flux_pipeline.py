"""FLUX pipelines with both text encoders, as diffusers publishes them -> tests/models/data/flux_dev, flux_schnell.

Each folder is what FluxPipeline.save_pretrained writes (transformer and T5 in shards), with the files and names of the
published repositories where those differ, and
  reference.json          prompts, height, width, steps, guidance, max_sequence_length
  reference.safetensors   clip_ids i64 [B, L], t5_ids i64 [B, S]; pooled_prompt_embeds [B, P], prompt_embeds [B, 40, J]
                          (of the first tokens); noise [B, 4, H/2, W/2] (NCHW, unpacked); sigmas [steps + 1]; latents_0 (the noise, packed) to
                          latents_<steps> (after each Euler step); image [B, 3, H, W] in [0, 1]
flux_dev: guidance is embedded, the shift depends on the image's size, 512 T5 tokens. flux_schnell: neither, shift 1, 256
tokens, an image that is not square. The reference is computed in f64 and rounded to f32 once; the scheduler works in f32.
"""
import io
import shutil
import tempfile
from pathlib import Path

from common import MODELS, ROOT, generator, randn, randomise, report, write_json, write_tensors
from pipeline import write_tokenizer
from t5 import randomise_t5

import sentencepiece
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

CLIP_LENGTH, CLIP_WIDTH, T5_WIDTH = 14, 10, 12
SHOWN = 40  # of the T5 features; all of them enter the latents
PROMPTS = ROOT / "tests/text/data/prompts.txt"

PUBLISHED_SHIFTS = dict(base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096)
CASES = {
    "flux_dev": dict(
        transformer=dict(in_channels=16, num_layers=1, num_single_layers=2, num_attention_heads=2, attention_head_dim=8,
                         axes_dims_rope=[2, 2, 4], guidance_embeds=True),
        vae=[6, 8], scheduler=dict(shift=3.0, use_dynamic_shifting=True, **PUBLISHED_SHIFTS),
        call=dict(height=32, width=32, steps=5, guidance=3.5, max_sequence_length=512),
        spiece=True, prompts=["Flat. a red cat", "A glossy 3D render of two dogs, beside a très small café"]),
    "flux_schnell": dict(
        transformer=dict(in_channels=16, num_layers=1, num_single_layers=1, num_attention_heads=1, attention_head_dim=12,
                         axes_dims_rope=[4, 4, 4], guidance_embeds=False),
        vae=[4, 8], scheduler=dict(shift=1.0, use_dynamic_shifting=False, **PUBLISHED_SHIFTS),
        call=dict(height=16, width=28, steps=4, guidance=0.0, max_sequence_length=256),
        spiece=False, prompts=["", "two green birds on a big yellow house under the moon"]),
}

def train_spiece(folder):
    """A small unigram vocabulary of T5's kind, from the prompts that the tokenizer tests use."""
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PROMPTS.read_text().splitlines()), model_writer=model, vocab_size=200, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
        normalization_rule_name="identity", num_threads=1, minloglevel=2)
    (folder / "spiece.model").write_bytes(model.getvalue())


def make_models(name, case, clip_ids, t5_tokens):
    gen = generator(name)
    flux = FluxTransformer2DModel(**case["transformer"], joint_attention_dim=T5_WIDTH, pooled_projection_dim=CLIP_WIDTH)
    vae = AutoencoderKL(
        block_out_channels=case["vae"], layers_per_block=1, latent_channels=4, norm_num_groups=2, sample_size=32,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, scaling_factor=0.3611,
        shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=True)
    clip = CLIPTextModel(CLIPTextConfig(
        vocab_size=clip_ids, hidden_size=CLIP_WIDTH, intermediate_size=14, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH, projection_dim=CLIP_WIDTH, bos_token_id=0, eos_token_id=2, pad_token_id=1))
    t5 = T5EncoderModel(T5Config(
        vocab_size=t5_tokens, d_model=T5_WIDTH, d_kv=5, num_heads=3, d_ff=16, num_layers=2,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False))
    for model in (flux, vae, clip):
        randomise(model, gen).eval()
    return dict(transformer=flux, vae=vae, text_encoder=clip, text_encoder_2=randomise_t5(t5, gen).eval())


def save(name, case):
    out = MODELS / name
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        clip_folder, t5_folder = Path(scratch) / "tokenizer", Path(scratch) / "tokenizer_2"
        clip_ids = len(write_tokenizer(clip_folder))
        train_spiece(t5_folder)
        t5 = T5TokenizerFast.from_pretrained(t5_folder, extra_ids=0, model_max_length=512)
        models = make_models(name, case, clip_ids, len(t5))
        FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(**case["scheduler"]), tokenizer_2=t5,
                     tokenizer=CLIPTokenizer.from_pretrained(clip_folder), **models,
                     ).save_pretrained(out, max_shard_size="80KB")
        publish(out, models, clip_folder, t5_folder if case["spiece"] else None)
    return out


def publish(out, models, clip_folder, t5_folder):
    """What the published folders have and today's libraries write differently."""
    (out / "tokenizer/tokenizer.json").unlink()
    for file in "vocab.json", "merges.txt":
        shutil.copy(clip_folder / file, out / "tokenizer" / file)
    if t5_folder:
        shutil.copy(t5_folder / "spiece.model", out / "tokenizer_2")
    clip = {f"text_model.{key}": value for key, value in models["text_encoder"].state_dict().items()}
    write_tensors(out / "text_encoder/model.safetensors", clip)
    (out / "text_encoder_2/model.safetensors").unlink()
    models["text_encoder_2"].save_pretrained(out / "text_encoder_2", max_shard_size="12KB")


@torch.no_grad()
def write_reference(name, case, out):
    gen, call = generator(name + ".noise"), case["call"]
    pipe = FluxPipeline.from_pretrained(out, dtype=torch.float64, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    prompts, height, width = case["prompts"], call["height"], call["width"]
    ids = {"clip_ids": (pipe.tokenizer, CLIP_LENGTH), "t5_ids": (pipe.tokenizer_2, call["max_sequence_length"])}
    tensors = {key: tokenizer(prompts, padding="max_length", max_length=length, truncation=True,
                              return_tensors="pt").input_ids for key, (tokenizer, length) in ids.items()}
    embeds, pooled, _ = pipe.encode_prompt(prompts, None, max_sequence_length=call["max_sequence_length"])
    noise = randn(gen, len(prompts), 4, height // 2, width // 2)
    packed = pipe._pack_latents(noise, *noise.shape)
    tensors |= {"prompt_embeds": embeds[:, :SHOWN], "pooled_prompt_embeds": pooled, "noise": noise, "latents_0": packed}

    def keep(_, step, timestep, values):
        tensors[f"latents_{step + 1}"] = values["latents"]
        return values

    latents = pipe(prompt_embeds=embeds, pooled_prompt_embeds=pooled, latents=packed, height=height, width=width,
                   num_inference_steps=call["steps"], guidance_scale=call["guidance"], output_type="latent",
                   callback_on_step_end=keep).images
    latent = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    decoded = pipe.vae.decode(latent / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor).sample
    tensors |= {"sigmas": pipe.scheduler.sigmas, "image": (decoded / 2 + 0.5).clamp(0, 1)}
    write_tensors(out / "reference.safetensors", tensors)
    write_json(out / "reference.json", call | {"prompts": prompts})
    print(name, "sigmas", [round(float(s), 4) for s in pipe.scheduler.sigmas], "image std", float(tensors["image"].std()),
          "T5 ids", tensors["t5_ids"][1, :24].tolist())


if __name__ == "__main__":
    for name, case in CASES.items():
        folder = save(name, case)
        write_reference(name, case, folder)
        report(folder)
