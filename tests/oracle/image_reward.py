"""The classes of the image-reward package, without the imports of its command line (clip, datasets, diffusers).

Import this before common, which hides torchvision: the package's vision code needs it.
"""
import vision  # noqa: F401  first: it brings torchvision in
import importlib.util
import sys
import types
import warnings
from unittest import mock


def bare_package(name, folder):
    """A package whose __init__ is not run."""
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package


warnings.filterwarnings("ignore")
FOLDER = importlib.util.find_spec("ImageReward").submodule_search_locations[0]
bare_package("ImageReward", FOLDER)
bare_package("ImageReward.models", FOLDER + "/models")

import ImageReward.models.BLIP.blip as blip  # noqa: E402
import ImageReward.models.BLIP.blip_pretrain as pretrain  # noqa: E402
from ImageReward.ImageReward import MLP, ImageReward  # noqa: E402,F401
from ImageReward.models.BLIP.med import BertModel  # noqa: E402,F401
from ImageReward.models.BLIP.vit import VisionTransformer  # noqa: E402,F401

pretrain.init_tokenizer = lambda: None  # the constructor would download one


def tokenizer_of(vocabulary):
    """The package's tokenizer, with this vocab.txt for the one that it downloads."""
    def open_it(_):
        return blip.BertTokenizer(str(vocabulary))
    with mock.patch.object(blip.BertTokenizer, "from_pretrained", open_it):
        return blip.init_tokenizer()
