"""The classes of the image-reward package, without the imports of its command line (clip, datasets, diffusers).

Import this before common, which hides torchvision: the package's vision code needs it.
"""
import importlib.util
import sys
import types
import warnings

import torch


def import_torchvision():
    """A CPU wheel of torch beside a wheel of torchvision that was built with CUDA lacks two operations that
    torchvision's import wants to annotate; none of them is ever called here."""
    try:
        import torchvision  # noqa: F401
        return None
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
        return library


def bare_package(name, folder):
    """A package whose __init__ is not run."""
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package


warnings.filterwarnings("ignore")
LIBRARY = import_torchvision()
FOLDER = importlib.util.find_spec("ImageReward").submodule_search_locations[0]
bare_package("ImageReward", FOLDER)
bare_package("ImageReward.models", FOLDER + "/models")

import ImageReward.models.BLIP.blip_pretrain as pretrain  # noqa: E402
from ImageReward.ImageReward import MLP, ImageReward, _transform  # noqa: E402,F401
from ImageReward.models.BLIP.med import BertModel  # noqa: E402,F401
from ImageReward.models.BLIP.vit import VisionTransformer  # noqa: E402,F401

pretrain.init_tokenizer = lambda: None  # the constructor would download one
