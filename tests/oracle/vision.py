"""torchvision's transforms without its compiled operators, whose wheel is easily mismatched with a CPU-only torch.

Import this module before common.py.
"""
import sys
import types

sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")

import torchvision  # noqa: E402,F401
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize  # noqa: E402,F401
from torchvision.transforms import functional  # noqa: E402,F401
