"""Names and shapes of the rewards' published checkpoints -> tests/models/keys/NAME.txt, beside those of keys.py.

clip-h.open_clip: HPS_v2.1_compressed.pt and laion/CLIP-ViT-H-14's open_clip weights; clip-l.open_clip: OpenAI's ViT-L/14 as
open_clip saves it; both from open_clip's own configurations. siglip-so400m.whole: google/siglip-so400m-patch14-384;
siglip-so400m: its vision tower. (PickScore is clip-h itself.) Built on the meta device.
"""
import vision  # noqa: F401  first: it brings torchvision in

import json

from keys import PUBLISHED, write

import open_clip
import torch
from transformers import SiglipConfig, SiglipModel


def of_open_clip(name):
    model = open_clip.CLIP(**open_clip.get_model_config(name))
    return model.state_dict()


if __name__ == "__main__":
    with torch.device("meta"):
        write("clip-h.open_clip", of_open_clip("ViT-H-14"))
        write("clip-l.open_clip", of_open_clip("ViT-L-14-quickgelu"))
        config = json.loads((PUBLISHED / "siglip-so400m.json").read_text())
        whole = SiglipModel(SiglipConfig(**config)).state_dict()
        write("siglip-so400m.whole", whole)
        write("siglip-so400m", {name: value for name, value in whole.items() if name.startswith("vision_model.")})
