"""ImageReward's own classes -> tests/models/data/image_reward_{a,b,c,pt}.

Each folder holds config.json (BERT's fields as in the published med_config.json, and vision_config and mlp_sizes for
what the classes fix in their code), model.safetensors with every name of the published ImageReward.pt, also those that
no reward reads, and reference.safetensors:
  pixel_values [B, 3, H, W], input_ids i64 [B, T], attention_mask i64 [B, T] (1 token, 0 padding);
  image_embeds [B, 1 + patches, C], last_hidden_state [B, T, D], reward [B] (before the mean and deviation), score [B]
  (after them);
  grad_reward [B], and for loss = sum(reward * grad_reward) grad.pixel_values and grad.<every parameter>;
  bf16_error.<output>: the largest error of the same model run in bf16 by torch, over the largest value.
image_reward_pt holds the weights of image_reward_c as they are published: ImageReward.pt, written by torch.save, and
med_config.json; with a small vocab.txt, and from prompts to scores as ReFL's trainer computes them: prompts.json, and in
reference.safetensors images [B, 3, H, W] in [0, 1], score [B], grad.images of sum(score * grad_score). The names and shapes of the published file, from the class built without memory at its own sizes, go to
tests/models/keys/image-reward.original.txt (its README has the format).
The reference is computed in f64 from f32 weights and inputs and rounded to f32 once.
Needs requirements-blip.txt, an environment of its own: these classes do not import with current transformers.
"""
from image_reward import BertModel, ImageReward, MLP, VisionTransformer, tokenizer_of  # first: it brings torchvision in
from vision import CenterCrop, Compose, InterpolationMode, Normalize, Resize
from common import MODELS, ROOT, generator, randn, randomise, report, write_json, write_tensors

import copy
import functools
import re
from unittest import mock

import torch
from torch import nn
from transformers import BertConfig

# The widths differ from each other wherever they may. encoder_width is wrong everywhere, as in the published file.
CASES = {
    # three heads beside two, texts of different lengths, BERT's own eps, which small embeddings show
    "image_reward_a": dict(
        text=dict(hidden_size=16, intermediate_size=28, num_hidden_layers=2, num_attention_heads=2, vocab_size=40,
                  max_position_embeddings=12, encoder_width=20),
        vision=dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=20, patch_size=4,
                    intermediate_size=96), head=[10, 8, 6, 5], lengths=[9, 2, 5], tokens=9,
        small="text_encoder.embeddings.word text_encoder.embeddings.position"),
    # patches that leave a rest of the image, a deeper text encoder, wider text than image, a large eps
    "image_reward_b": dict(
        text=dict(hidden_size=30, intermediate_size=22, num_hidden_layers=3, num_attention_heads=5, vocab_size=33,
                  max_position_embeddings=7, layer_norm_eps=1e-3, encoder_width=30),
        vision=dict(hidden_size=20, num_hidden_layers=1, num_attention_heads=4, image_size=23, patch_size=6,
                    intermediate_size=50), head=[7, 9, 3, 4], lengths=[3, 7], tokens=7),
    # one head each, a deeper image encoder, whose eps small states show, a text of nothing but its first token
    "image_reward_c": dict(
        text=dict(hidden_size=12, intermediate_size=48, num_hidden_layers=1, num_attention_heads=1, vocab_size=21,
                  max_position_embeddings=40, layer_norm_eps=1e-5, encoder_width=1),
        vision=dict(hidden_size=18, num_hidden_layers=3, num_attention_heads=1, image_size=14, patch_size=7,
                    intermediate_size=36), head=[5, 11, 2, 3], lengths=[6, 1, 4, 3], tokens=6,
        small="cls_token pos_embed patch_embed"),
}


# 19 of the 21 that image_reward_c knows: the package adds [DEC] and [ENC].
VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [MASK] a red cat two dog ##s on the hill , sky ##ed blue house".split()
# capitals, pieces, a word that is not known, an accent, no words at all, more than 35 tokens
PROMPTS = ["A red cat on the hill", "two dogs, blue skyed house", "a zebra", "Réd cats", "", "the blue sky, " * 12]


def build(case):
    """The reference class at these sizes: its constructor knows the published ones only, and asks for downloads."""
    text, vision, head = case["text"], case["vision"], case["head"]
    model = ImageReward.__new__(ImageReward)
    nn.Module.__init__(model)
    model.device, model.mean, model.std = "cpu", 0.16717362830052426, 1.0333394966054072
    model.blip = nn.Module()
    model.blip.visual_encoder = VisionTransformer(
        img_size=vision["image_size"], patch_size=vision["patch_size"], embed_dim=vision["hidden_size"],
        depth=vision["num_hidden_layers"], num_heads=vision["num_attention_heads"],
        mlp_ratio=vision["intermediate_size"] / vision["hidden_size"])
    config = BertConfig(**text, add_cross_attention=True)
    config.encoder_width = vision["hidden_size"]
    model.blip.text_encoder = BertModel(config=config, add_pooling_layer=False)
    model.blip.vision_proj = nn.Linear(vision["hidden_size"], 4)
    model.blip.text_proj = nn.Linear(text["hidden_size"], 4)
    model.mlp = MLP(text["hidden_size"])
    sizes = [text["hidden_size"], *head, 1]
    places = [i for i, layer in enumerate(model.mlp.layers) if isinstance(layer, nn.Linear)]
    for place, inputs, outputs in zip(places, sizes[:-1], sizes[1:], strict=True):
        model.mlp.layers[place] = nn.Linear(inputs, outputs)
    return model


def run(model, inputs):
    """The outputs as score_gard computes them, which keeps none but the score."""
    seen = {}
    hooks = [model.blip.visual_encoder.register_forward_hook(lambda *a: seen.update(image_embeds=a[2])),
             model.blip.text_encoder.register_forward_hook(
                 lambda *a: seen.update(last_hidden_state=a[2].last_hidden_state)),
             model.mlp.register_forward_hook(lambda *a: seen.update(reward=a[2][:, 0]))]
    seen["score"] = model.score_gard(inputs["input_ids"], inputs["attention_mask"], inputs["pixel_values"])[:, 0]
    for hook in hooks:
        hook.remove()
    return seen


def bf16_errors(model, inputs, exact):
    small = copy.deepcopy(model).bfloat16()
    with torch.no_grad():
        seen = run(small, inputs | {"pixel_values": inputs["pixel_values"].bfloat16()})
    return {f"bf16_error.{key}": ((seen[key].double() - exact[key]).abs().max() / exact[key].abs().max()).reshape(1)
            for key in exact}


def make(name, case):
    gen, folder = generator(name), MODELS / name
    model = randomise(build(case), gen).eval()
    vision = model.blip.visual_encoder
    for parameter in (vision.cls_token, vision.pos_embed):
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=gen)
    for key, parameter in model.named_parameters():
        if any(part in key for part in case.get("small", "").split()):
            parameter.data *= 1e-2
    config = case["text"] | {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "add_cross_attention": True,
        "vision_config": case["vision"], "mlp_sizes": case["head"]}
    write_json(folder / "config.json", config | {"_class_name": "ImageReward"})
    write_tensors(folder / "model.safetensors", model.state_dict())
    if name == "image_reward_c":
        publish(model, config)

    model = model.double()
    batch, tokens, size = len(case["lengths"]), case["tokens"], case["vision"]["image_size"]
    mask = (torch.arange(tokens)[None] < torch.tensor(case["lengths"])[:, None]).long()
    ids = torch.randint(1, case["text"]["vocab_size"], (batch, tokens), generator=gen) * mask
    inputs = {"pixel_values": randn(gen, batch, 3, size, size).requires_grad_(), "input_ids": ids,
              "attention_mask": mask}
    outputs = run(model, inputs)
    grad = randn(gen, batch)
    outputs["reward"].backward(grad)
    used = {key: value for key, value in model.named_parameters() if "_proj." not in key}
    exact = {key: value.detach() for key, value in outputs.items()}
    write_tensors(folder / "reference.safetensors", inputs | exact | {"grad_reward": grad} | {
        "grad.pixel_values": inputs["pixel_values"].grad} | {
        f"grad.{key}": value.grad for key, value in used.items()} | bf16_errors(model, inputs, exact))
    report(folder)


def publish(model, config):
    """As published, and from prompts and images to scores: padding, resizing and cropping as in ImageReward's ReFL.py."""
    folder, gen = MODELS / "image_reward_pt", generator("image_reward_pt")
    write_json(folder / "med_config.json", config)
    torch.save(model.state_dict(), folder / "ImageReward.pt")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    write_json(folder / "prompts.json", PROMPTS)
    model, size = copy.deepcopy(model).double(), config["vision_config"]["image_size"]
    tokens = tokenizer_of(folder / "vocab.txt")(PROMPTS, padding="max_length", truncation=True, max_length=35,
                                                return_tensors="pt")
    images = torch.rand(len(PROMPTS), 3, 23, 30, generator=gen).double().requires_grad_()
    look = Compose([Resize(size, interpolation=InterpolationMode.BICUBIC), CenterCrop(size),
                    Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))])
    score = model.score_gard(tokens.input_ids, tokens.attention_mask, look(images))[:, 0]
    grad = randn(gen, len(PROMPTS))
    score.backward(grad)
    write_tensors(folder / "reference.safetensors", {
        "input_ids": tokens.input_ids, "images": images, "score": score, "grad_score": grad, "grad.images": images.grad})
    report(folder)


def list_keys():
    # the rates of stochastic depth are read back as numbers, which the meta device does not have
    on_cpu = functools.partial(torch.linspace, device="cpu")
    with torch.device("meta"), mock.patch("torch.linspace", on_cpu):
        state = ImageReward(med_config=ROOT / "lua/syz/published/image-reward.json").state_dict()
    shapes, counts = {}, {}
    for key, value in state.items():
        number = re.search(r"\.(?:blocks|layer)\.(\d+)\.", key)
        name = key if number is None else key[:number.start(1)] + "{}" + key[number.end(1):]
        assert shapes.setdefault(name, value.shape) == value.shape
        counts[name] = counts.get(name, 0) + 1
    lines = [f"{name.replace('{}', '{0..%d}' % (counts[name] - 1))}  {list(shape)}\n" for name, shape in shapes.items()]
    path = ROOT / "tests/models/keys/image-reward.original.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    print(f"{path.relative_to(ROOT)}: {len(state)} names")


if __name__ == "__main__":
    list_keys()
    for name, case in CASES.items():
        make(name, case)
