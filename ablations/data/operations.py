"""Operations of RandAugment and AutoAugment on a batch, with a separate strength for each sample.

Dimension letters: m samples, C channels (1 or 3), H height, W width.

They follow torchvision 0.29 (torchvision/transforms/v2/_auto_augment.py): operations without a strength are its
functionals, blends use its functionals' degenerate images, and geometric operations sample the nearest pixel.
torchvision's classes draw once per batch, which is another recipe. ``Color`` leaves one-channel images unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

LARGEST_SHEAR, LARGEST_SHIFT, LARGEST_ANGLE, LARGEST_BLEND = 0.3, 150 / 331, 30.0, 0.9
"""Values at full strength: tangent; share of the side; degrees; distance of a factor from 1."""

FEWEST_BITS = 4


Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Map of images (m, C, H, W) uint8, strengths (m,) from 0 to 1, and signs (m,), 1 or -1, to images; an operation with
one direction ignores the sign."""


def blend(images: Tensor, degenerate: Tensor, factor: Tensor) -> Tensor:
    """Return factor * images + (1 - factor) * degenerate, clamped to 0 to 255: uint8.

    Args:
        images: (m, C, H, W) uint8.
        degenerate: images of the same shape, or of one that broadcasts to it.
        factor: (m,) weights of the images.
    """
    factor = factor.view(-1, 1, 1, 1)
    return (images * factor + degenerate * (1 - factor)).clamp_(0, 255).to(torch.uint8)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale (m, C, H, W) uint8 by factors (m,)."""
    return blend(images, torch.zeros_like(images), factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance of (m, C, H, W) uint8 from each image's mean grey by factors (m,)."""
    return blend(images, tv.adjust_contrast(images, 0.0), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance of (m, C, H, W) uint8 from their grey by factors (m,)."""
    return blend(images, tv.adjust_saturation(images, 0.0), factor) if images.shape[1] == 3 else images


def _blended(change: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    return lambda images, strength, sign: change(images, 1 + sign * LARGEST_BLEND * strength)


def _posterize(images: Tensor, strength: Tensor, _: Tensor) -> Tensor:
    bits = (8 - (8 - FEWEST_BITS) * strength).round()
    return images & (256 - 2 ** (8 - bits)).to(torch.uint8).view(-1, 1, 1, 1)


def _solarize(images: Tensor, strength: Tensor, _: Tensor) -> Tensor:
    return torch.where(images >= 255 * (1 - strength).view(-1, 1, 1, 1), 255 - images, images)


def _plain(change: Callable[[Tensor], Tensor]) -> Operation:
    return lambda images, _strength, _sign: change(images)


def _moved(by: Callable[[Tensor, Tensor, Tensor, int, int], tuple[Tensor, Tensor]]) -> Operation:
    """Make an operation from a map of output positions x, y to source positions, both in pixels from the centre.

    It also receives signed strengths, and height and width of the images.
    """

    def move(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
        H, W = images.shape[2:]
        y = torch.arange(H, device=images.device)[:, None] - (H - 1) / 2  # (H, 1)
        x = torch.arange(W, device=images.device)[None, :] - (W - 1) / 2  # (1, W)
        amount = (sign * strength).view(-1, 1, 1)
        from_x, from_y = by(x, y, amount, H, W)
        shape = (len(images), H, W)
        grid = torch.stack(((from_x * (2 / W)).expand(shape), (from_y * (2 / H)).expand(shape)), dim=-1)
        return F.grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)

    return move


def _rotate(x: Tensor, y: Tensor, amount: Tensor, _height: int, _width: int) -> tuple[Tensor, Tensor]:
    angle = math.radians(LARGEST_ANGLE) * amount  # counter-clockwise
    return x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()


OPERATIONS: dict[str, Operation] = {
    "Identity": _plain(lambda images: images),
    "ShearX": _moved(lambda x, y, amount, height, _: (x + LARGEST_SHEAR * amount * (y + height / 2), y)),
    "ShearY": _moved(lambda x, y, amount, _, width: (x, y + LARGEST_SHEAR * amount * (x + width / 2))),
    "TranslateX": _moved(lambda x, y, amount, _, width: (x - (LARGEST_SHIFT * width * amount).trunc(), y)),
    "TranslateY": _moved(lambda x, y, amount, height, _: (x, y - (LARGEST_SHIFT * height * amount).trunc())),
    "Rotate": _moved(_rotate),
    "Brightness": _blended(brightness),
    "Color": _blended(saturation),
    "Contrast": _blended(contrast),
    "Sharpness": _blended(lambda images, factor: blend(images, tv.adjust_sharpness(images, 0.0), factor)),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _plain(tv.autocontrast),
    "Equalize": _plain(tv.equalize),
    "Invert": _plain(tv.invert),
}
"""Operations by torchvision's names. RandAugment draws from all but the last."""
