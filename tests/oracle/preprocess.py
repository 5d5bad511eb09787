"""What the rewards' vision towers are shown -> tests/models/data/preprocess/reference.safetensors.

KIND.HxW.SIZE [3, h, w]: pattern(H, W) as the pinned library makes an image of SIZE x SIZE of it, for each KIND
of lua/syz/rewards/preprocess.lua; of images above 32 pixels every 16th row and column only.

crop: torchvision 0.28's Resize and CenterCrop. processor: transformers' CLIPImageProcessor. siglip: transformers'
SiglipImageProcessor. pad: hpsv2 1.2.0's ResizeMaxSize, repeated here because that package pins an old torch.
All of them on floating-point tensors, in f64 from f32 pixels, rounded once.

Prints how far the same is in f32, and how far official scorers are away, which resize 8-bit images with Pillow, in
levels of 1/255.
"""
import vision  # first: it brings torchvision in
from vision import CenterCrop, Compose, InterpolationMode, Normalize, Resize, functional

from common import MODELS, report, write_tensors

import numpy
import torch
from PIL import Image
from transformers import CLIPImageProcessor, SiglipImageProcessor

BICUBIC = InterpolationMode.BICUBIC
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NORMALIZE = Normalize(MEAN, STD)
# (height, width, size): reduced, enlarged, and already of that size, standing, lying and square; odd rests
SMALL = [(30, 47, 12), (47, 30, 13), (9, 14, 16), (31, 13, 24), (24, 24, 24), (20, 33, 20), (16, 23, 24), (17, 12, 17)]
LARGE = [(720, 720, 224), (832, 1216, 224), (1024, 768, 384)]


def pattern(height, width):
    """8-bit levels [height, width, 3] that any language can compute, with edges of every strength."""
    y, x, c = numpy.ogrid[:height, :width, :3]
    return ((y * 31 + x * 17 + c * 101 + (y * x) % 251 + 64 * ((x // 5 + y // 7) % 2)) % 256).astype(numpy.uint8)


def crop(image, size):
    return Compose([Resize(size, interpolation=BICUBIC), CenterCrop(size), NORMALIZE])(image)


def processor(image, size):
    tool = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}, do_rescale=False)
    return tool(images=image, return_tensors="pt").pixel_values[0]


def pad(image, size):
    height, width = functional.get_dimensions(image)[1:]
    scale = size / float(max(height, width))
    new = tuple(round(side * scale) for side in (height, width))
    if scale != 1.0:
        image = functional.resize(image, new, BICUBIC)
    bars = [size - side for side in new]
    image = functional.pad(image, [bars[1] // 2, bars[0] // 2, bars[1] - bars[1] // 2, bars[0] - bars[0] // 2])
    return NORMALIZE(image if isinstance(image, torch.Tensor) else functional.to_tensor(image))


def siglip(image, size):
    tool = SiglipImageProcessor(size={"height": size, "width": size}, do_rescale=False)
    return tool(images=image, return_tensors="pt").pixel_values[0]


def smooth(height, width):
    """Levels as photographs have them: soft gradients, some edges, little noise."""
    y, x = numpy.mgrid[:height, :width]
    planes = [127 + 90 * numpy.sin(x / (29 + 7 * c) + y / 41) + 30 * ((x // 60 + y // 90) % 2) for c in range(3)]
    noise = numpy.random.default_rng(1).normal(0, 3, (height, width, 3))
    return numpy.clip(numpy.stack(planes, -1) + noise, 0, 255).astype(numpy.uint8)


def to_tensor(levels):
    return torch.from_numpy(levels.copy()).permute(2, 0, 1).float() / 255


def pillow_difference(name, levels):
    """crop in 8 bits, as a scorer that opens a file has it, against crop on tensors."""
    steps = [Resize(224, interpolation=BICUBIC), CenterCrop(224)]
    exact = Compose(steps)(to_tensor(levels))
    eight = functional.to_tensor(Compose(steps)(Image.fromarray(levels)))
    apart = (exact - eight).abs() * 255
    clamped = (exact.clamp(0, 1) - eight).abs() * 255
    print(f"Pillow, {name}: mean {apart.mean():.3f}, largest {apart.max():.2f}; "
          f"largest without overshoot {clamped.max():.2f} levels")


if __name__ == "__main__":
    tensors, rounding = {}, 0
    for kind in (crop, processor, pad, siglip):
        for height, width, size in SMALL + LARGE:
            out = kind(to_tensor(pattern(height, width)).double(), size)
            assert out.shape == (3, size, size), (kind, height, width, out.shape)
            rounding = max(rounding, (kind(to_tensor(pattern(height, width)), size) - out).abs().max().item())
            tensors[f"{kind.__name__}.{height}x{width}.{size}"] = out[:, ::16, ::16] if size > 32 else out
    write_tensors(MODELS / "preprocess/reference.safetensors", tensors)
    report(MODELS / "preprocess")
    print(f"the libraries' own rounding in f32, after normalisation: up to {rounding:.2g}")
    pillow_difference("a photograph's levels, 1024 x 768", smooth(1024, 768))
    pillow_difference("every edge at full strength, 1024 x 768", pattern(1024, 768))
    pillow_difference("a photograph's levels, enlarged from 160 x 128", smooth(160, 128))
