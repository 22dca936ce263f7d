"""The augmentation of a batch in groups, one for each operation or order: what the one pass must reproduce.

Dimension letters: m samples of a group, B of a batch, C channels (1 or 3), H height, W width, s places of a policy.

It is built on torchvision's functionals; every group's pixels are uint8 between two operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from ablations.data.operations import FEWEST_BITS, LARGEST_ANGLE, LARGEST_BLEND, LARGEST_SHEAR, LARGEST_SHIFT
from ablations.data.per_sample import JITTER_ORDERS

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Map of images (m, C, H, W) uint8, strengths (m,) from 0 to 1, and signs (m,), 1 or -1, to images."""


def blend(images: Tensor, degenerate: Tensor, factor: Tensor) -> Tensor:
    """Return factor * images + (1 - factor) * degenerate, clamped to 0 to 255: uint8."""
    factor = factor.view(-1, 1, 1, 1)
    return (images * factor + degenerate * (1 - factor)).clamp_(0, 255).to(torch.uint8)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, torch.zeros_like(images), factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, tv.adjust_contrast(images, 0.0), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, tv.adjust_saturation(images, 0.0), factor) if images.shape[1] == 3 else images


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, tv.adjust_sharpness(images, 0.0), factor)


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
    """Make an operation from a map of output positions to source positions, both in pixels from the centre."""

    def move(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
        H, W = images.shape[2:]
        y = torch.arange(H, device=images.device)[:, None] - (H - 1) / 2  # (H, 1)
        x = torch.arange(W, device=images.device)[None, :] - (W - 1) / 2  # (1, W)
        from_x, from_y = by(x, y, (sign * strength).view(-1, 1, 1), H, W)
        shape = (len(images), H, W)
        grid = torch.stack(((from_x * (2 / W)).expand(shape), (from_y * (2 / H)).expand(shape)), dim=-1)
        return F.grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)

    return move


def _rotate(x: Tensor, y: Tensor, amount: Tensor, _height: int, _width: int) -> tuple[Tensor, Tensor]:
    angle = math.radians(LARGEST_ANGLE) * amount
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
    "Sharpness": _blended(sharpness),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _plain(tv.autocontrast),
    "Equalize": _plain(tv.equalize),
    "Invert": _plain(tv.invert),
}


def groups(kinds: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each kind with the rows that have it."""
    for kind in sorted(set(kinds.tolist())):
        yield kind, (kinds == kind).nonzero().flatten()


def apply_policy(images: Tensor, operations: Tensor, strengths: Tensor, signs: Tensor) -> Tensor:
    """Apply operations (B, s), indices into `OPERATIONS`, to (B, C, H, W) uint8."""
    changed, names = images.clone(), list(OPERATIONS)
    for place in range(operations.shape[1]):
        for operation, rows in groups(operations[:, place]):
            change = OPERATIONS[names[operation]]
            changed[rows] = change(changed[rows], strengths[rows, place], signs[rows, place])
    return changed


def apply_jitter(images: Tensor, factors: Tensor, orders: Tensor) -> Tensor:
    """Apply factors (B, 3) of brightness, contrast and saturation in orders (B,) to (B, C, H, W) uint8."""
    changes = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    changed = images.clone()
    for order, rows in groups(orders):
        for name in JITTER_ORDERS[order]:
            changed[rows] = changes[name](changed[rows], factors[rows, list(changes).index(name)])
    return changed
