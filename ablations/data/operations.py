"""Operations of RandAugment and AutoAugment, each sample with its own, in one pass over a batch.

Dimension letters: B samples, C channels (1 or 3), H height, W width, s places of a policy.

They follow torchvision 0.29 (torchvision/transforms/v2/_auto_augment.py): the pixels are those of its functionals, and
geometric operations sample the nearest pixel. torchvision's classes draw once per batch, which is another recipe.
``Color`` leaves one-channel images unchanged.

An operation is a row of coefficients. At each place of the policy all samples pass through a warp, a blend and a table.
Each of them returns a sample whose operation is of another kind exactly as it was. So no shape and no branch depends on
the draws, and nothing is read back from the device. Images are float32 with whole values from 0 to 255.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SHEAR, LARGEST_SHIFT, LARGEST_ANGLE, LARGEST_BLEND = 0.3, 150 / 331, 30.0, 0.9
"""Values at full strength: tangent; share of the side; degrees; distance of a factor from 1."""

FEWEST_BITS = 4

NEVER = 256.0
"""Threshold that no pixel reaches."""

OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Invert",
)
"""Operations by torchvision's names. RandAugment draws from all but the last."""


class Coefficients(NamedTuple):
    """Coefficients of one operation for each sample; positions are in pixels from the centre.

    Args:
        shift_x: shift to the right, in pixels.
        shift_y: shift downward, in pixels.
        along: weight of an output position's own axis in its source position.
        pivot_x: shift of y before it is multiplied by ``slope_x``.
        slope_x: change of the source's x along y.
        pivot_y: shift of x before it is multiplied by ``slope_y``.
        slope_y: change of the source's y along x.
        kept: weight of the image in the blend.
        grey: weight of its grey image in the blend.
        blurred: weight of its blurred image in the blend.
        threshold: pixels from here on are inverted.
        grain: pixels are rounded down to multiples of it.
        stretched: 1: each channel is stretched to 0 to 255; 0: not.
        gain: factor of a pixel.
        mean: weight of the mean grey that is added to it.
        equalized: 1: the histogram of each channel is equalised; 0: not.
    """

    shift_x: Tensor
    shift_y: Tensor
    along: Tensor
    pivot_x: Tensor
    slope_x: Tensor
    pivot_y: Tensor
    slope_y: Tensor
    kept: Tensor
    grey: Tensor
    blurred: Tensor
    threshold: Tensor
    grain: Tensor
    stretched: Tensor
    gain: Tensor
    mean: Tensor
    equalized: Tensor


def coefficients(
    operations: Tensor, strengths: Tensor, signs: Tensor, *, size: tuple[int, int], channels: int
) -> Tensor:
    """Return the coefficients of operations.

    Args:
        operations: (n, s) indices into `OPERATIONS`.
        strengths: (n, s) strengths, 0 to 1; operations without a strength ignore them.
        signs: (n, s) 1 or -1; operations with one direction ignore them.
        size: size of the images, (H, W).
        channels: number of channels of the images.

    Returns:
        (n, s, 16) float32, in the order of `Coefficients`.
    """
    H, W = size
    amount, factor = signs * strengths, 1 + signs * LARGEST_BLEND * strengths
    angle = math.radians(LARGEST_ANGLE) * amount  # counter-clockwise
    bits = (8 - (8 - FEWEST_BITS) * strengths).round()

    def one(value: Tensor | float, *names: str, otherwise: Tensor | float = 0.0) -> Tensor:
        found = torch.isin(operations, torch.tensor([OPERATIONS.index(name) for name in names]))
        return torch.where(found, value, otherwise).float()

    sheared, color = LARGEST_SHEAR * amount, ("Color",) if channels == 3 else ()
    rows = Coefficients(
        shift_x=one((LARGEST_SHIFT * W * amount).trunc(), "TranslateX"),
        shift_y=one((LARGEST_SHIFT * H * amount).trunc(), "TranslateY"),
        along=one(angle.cos(), "Rotate", otherwise=1.0),
        pivot_x=one(H / 2, "ShearX"),
        slope_x=one(sheared, "ShearX", otherwise=one(-angle.sin(), "Rotate")),
        pivot_y=one(W / 2, "ShearY"),
        slope_y=one(sheared, "ShearY", otherwise=one(angle.sin(), "Rotate")),
        kept=one(factor, *color, "Sharpness", otherwise=1.0),
        grey=one(1 - factor, *color),
        blurred=one(1 - factor, "Sharpness"),
        threshold=one(255 * (1 - strengths), "Solarize", otherwise=one(0.0, "Invert", otherwise=NEVER)),
        grain=one(2 ** (8 - bits), "Posterize", otherwise=1.0),
        stretched=one(1.0, "AutoContrast"),
        gain=one(factor, "Brightness", "Contrast", otherwise=1.0),
        mean=one(1 - factor, "Contrast"),
        equalized=one(1.0, "Equalize"),
    )
    return torch.stack(rows, dim=-1)


def apply(images: Tensor, rows: Tensor) -> Tensor:
    """Apply to each sample the operations at its places, one after another.

    Args:
        images: (B, C, H, W) float32, whole values from 0 to 255.
        rows: (B, s, 16) coefficients.

    Returns:
        The same, contiguous.
    """
    H, W = images.shape[2:]
    values = torch.arange(256, device=images.device, dtype=images.dtype)
    x = torch.arange(W, device=images.device, dtype=images.dtype) - (W - 1) / 2  # (W,)
    y = torch.arange(H, device=images.device, dtype=images.dtype)[:, None] - (H - 1) / 2  # (H, 1)
    for place in rows[..., None, None].unbind(1):
        one = Coefficients(*place.unbind(1))  # each (B, 1, 1)
        warped = _warp(images, x, y, one)
        flat = warped.flatten(2)  # (B, C, HW)
        luma = grey(flat)
        blended = flat * one.kept
        if images.shape[1] == 3:
            blended += luma * one.grey
        blended += _blur(warped).flatten(2).mul_(one.blurred)
        mean = one.mean * luma.mean(dim=(1, 2), keepdim=True).floor_()
        images = _look_up(blended.clamp_(0, 255), values, mean, one).view_as(warped)
    return images


def grey(images: Tensor) -> Tensor:
    """Return the grey of images (B, C, HW), whole values from 0 to 255: (B, 1, HW).

    The sum is torchvision's, product by product: floor lets its last bit decide where the three channels are equal.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()[:, None]


def _warp(images: Tensor, x: Tensor, y: Tensor, one: Coefficients) -> Tensor:
    """Sample each output pixel from the pixel nearest to its source position; outside it is black.

    Args:
        images: (B, C, H, W).
        x: (W,) positions of the columns, in pixels from the centre.
        y: (H, 1) positions of the rows.
        one: coefficients, each (B, 1, 1).
    """
    H, W = images.shape[2:]
    # Pairs (x, y) are added as complex numbers: a broadcast sum of (..., 2) takes six times as long on a CPU.
    by_x = torch.complex((x - one.shift_x) * one.along, (x + one.pivot_y) * one.slope_y)  # (B, 1, W)
    by_y = torch.complex((y + one.pivot_x) * one.slope_x, (y - one.shift_y) * one.along)  # (B, H, 1)
    grid = torch.view_as_real(by_x + by_y)  # (B, H, W, 2)
    if H == W:
        grid.mul_(2 / W)
    else:
        grid[..., 0].mul_(2 / W)
        grid[..., 1].mul_(2 / H)
    return F.grid_sample(images, grid, mode="nearest", align_corners=False)


def _blur(images: Tensor) -> Tensor:
    """Return the weighted mean of each pixel and its eight neighbours, rounded; the border is left as it is.

    The weights are 5/13 and 1/13. A multiple of 1/13 is at least 1/26 from a half, so the order of the sum is free.
    """
    H, W = images.shape[2:]
    if min(H, W) <= 2:
        return images.clone()
    pixels = images.flatten()
    rows = pixels[:-2] + pixels[1:-1]  # of the whole batch: what reaches across a border is overwritten
    rows += pixels[2:]
    blurred = torch.empty_like(pixels)
    inner = blurred[W + 1 : -W - 1]
    torch.add(rows[: -2 * W], rows[W:-W], out=inner)
    inner.add_(rows[2 * W :]).add_(pixels[W + 1 : -W - 1], alpha=4).mul_(1 / 13).round_()
    blurred = blurred.view_as(images)
    blurred[:, :, :: H - 1] = images[:, :, :: H - 1]  # the first and the last
    blurred[..., :: W - 1] = images[..., :: W - 1]
    return blurred


def _look_up(images: Tensor, values: Tensor, mean: Tensor, one: Coefficients) -> Tensor:
    """Map pixels, rounded down, by a table for each sample and channel.

    Args:
        images: (B, C, HW), from 0 to 255.
        values: (256,) all values of a pixel.
        mean: (B, 1, 1) what is added to a pixel after the gain.
        one: coefficients, each (B, 1, 1).
    """
    pixels = images.int().long()  # by way of int32, four times as fast on a CPU
    table = torch.where(values >= one.threshold, 255 - values, values)  # (B, 1, 256)
    table = table.div_(one.grain).floor_().mul_(one.grain)
    low, high = images.amin(dim=2, keepdim=True), images.amax(dim=2, keepdim=True)  # (B, C, 1)
    span = (high - low) * one.stretched
    flat = span == 0
    table = (table - low.masked_fill_(flat, 0)).div_(span.mul_(1 / 255).masked_fill_(flat, 1))  # (B, C, 256)
    table = table.mul_(one.gain).add_(mean).clamp_(0, 255).floor_()
    equalizing, step = _equalize(pixels, high)
    return table.lerp_(equalizing, one.equalized * (step > 0)).gather(2, pixels)  # by a weight of 0 or 1: exact


def _equalize(pixels: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return Pillow's tables that equalise histograms, (B, C, 256), and their step (B, C, 1); 0: no equalisation.

    Quotients of whole numbers below 2^24 are rounded down correctly in float32.
    """
    counts = torch.zeros((*pixels.shape[:2], 256), dtype=torch.int32, device=pixels.device)
    with _in_any_order():
        counts.scatter_add_(2, pixels, torch.ones_like(counts[..., :1]).expand_as(pixels))
    step = (pixels.shape[2] - counts.gather(2, high.long())).div_(255, rounding_mode="floor")
    below = counts.cumsum(2, dtype=torch.int32).sub_(counts)
    return (below.add_(step // 2) / step.clamp(min=1)).floor_().clamp_(max=255), step


@contextmanager
def _in_any_order() -> Iterator[None]:
    """Let CUDA add whole numbers in any order, with the same sum: its deterministic way copies from the host."""
    is_asked = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if is_asked:
        torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        if is_asked:
            torch.use_deterministic_algorithms(True, warn_only=warns)
