"""Aesthetic predictors, from pixels to scores -> tests/models/data/aesthetic/.

  v2.5.pth, laion.pth, laion_relu.pth, laion_linear.pth   small heads in the published files' names and orders of
                       layers (discus0434/aesthetic-predictor-v2-5, christophschuhmann/improved-aesthetic-predictor,
                       LAION-AI/aesthetic-predictor), as torch.save writes them
  reference.safetensors   images [2, 3, 17, 22] in [0, 1]; scores.NAME [2] and grad.NAME, the gradient of their sum on
                       the images: v2.5 on siglip_a, the others on the vision tower of clip_a

Preprocessing is SiglipImageProcessor's, and torchvision's Resize and CenterCrop. The tower computes in f64.
"""
import vision  # noqa: F401  first: it brings torchvision in

from common import MODELS, generator, report, write_tensors

import json

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize
from transformers import CLIPConfig, CLIPModel, SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

FOLDER = MODELS / "aesthetic"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Scoring(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scoring_head = nn.Sequential(
            nn.Linear(width, 12), nn.Dropout(0.5), nn.Linear(12, 9), nn.Dropout(0.5), nn.Linear(9, 7), nn.Dropout(0.5),
            nn.Linear(7, 5), nn.Dropout(0.2), nn.Linear(5, 1))

    def forward(self, x):
        return self.scoring_head(x)


class Layers(nn.Module):
    def __init__(self, width, relu):
        super().__init__()
        between = [nn.ReLU()] if relu else []
        self.layers = nn.Sequential(
            nn.Linear(width, 12), *between, nn.Dropout(0.2), nn.Linear(12, 9), *between, nn.Dropout(0.2),
            nn.Linear(9, 7), *between, nn.Dropout(0.1), nn.Linear(7, 5), *between, nn.Linear(5, 1))

    def forward(self, x):
        return self.layers(x)


def tower(name, model):
    weights = load_file(MODELS / name / "model.safetensors")
    model.load_state_dict({key.removeprefix("vision_model.") if name.startswith("siglip") else key: value
                           for key, value in weights.items()})
    return model.double().eval()


def config(name):
    return json.loads((MODELS / name / "config.json").read_text())


def siglip_features(model, images):
    size = model.config.image_size
    tool = SiglipImageProcessor(size={"height": size, "width": size}, do_rescale=False)
    pixels = torch.stack([tool(images=image, return_tensors="pt").pixel_values[0] for image in images])
    return model(pixel_values=pixels).pooler_output


def clip_features(model, images):
    size = model.config.vision_config.image_size
    pixels = Compose([Resize(size, InterpolationMode.BICUBIC), CenterCrop(size), Normalize(MEAN, STD)])(images)
    return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)


if __name__ == "__main__":
    siglip = tower("siglip_a", SiglipVisionModel(SiglipVisionConfig(**config("siglip_a"))))
    clip = tower("clip_a", CLIPModel(CLIPConfig(**config("clip_a"))))
    gen = generator("aesthetic")
    images = torch.randint(0, 256, (2, 3, 17, 22), generator=gen) / 255
    tensors = {"images": images}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, head, model, features in (
            ("v2.5", Scoring(20), siglip, siglip_features), ("laion", Layers(14, False), clip, clip_features),
            ("laion_relu", Layers(14, True), clip, clip_features), ("laion_linear", nn.Linear(14, 1), clip, clip_features)):
        for _, parameter in sorted(head.named_parameters()):
            parameter.data = torch.randn(parameter.shape, generator=gen) * 0.5
        if name == "v2.5":
            head = head.bfloat16()
        torch.save(head.state_dict(), FOLDER / f"{name}.pth")
        x = images.double().requires_grad_()
        f = features(model, x)
        scores = head.double().eval()(f / f.norm(dim=-1, keepdim=True))[:, 0]
        scores.sum().backward()
        tensors |= {f"scores.{name}": scores, f"grad.{name}": x.grad}
    write_tensors(FOLDER / "reference.safetensors", tensors)
    report(FOLDER)
