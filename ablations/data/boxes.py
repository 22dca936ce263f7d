"""Sides of random rectangles: what random resized crops and random erasing both draw."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_TRIES = 10
"""Rectangles drawn for a sample, of which the first that fits is taken (torchvision's and timm's number)."""


def draw_sides(
    n: int,
    *,
    size: tuple[int, int],
    most: tuple[int, int],
    area: tuple[float, float],
    log_aspect: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw rectangles by their share of an image's area and their aspect, both uniform, the latter in its logarithm.

    Args:
        n: samples.
        size: of the images, (H, W).
        most: height and width that fit.
        area: least and largest share of H W.
        log_aspect: largest absolute logarithm of width by height.
        generator: on the CPU.

    Returns:
        Height and width in whole pixels, (n,) each, and (n,) whether any of the tries fits.
    """
    low, high = area
    areas = size[0] * size[1] * (low + (high - low) * torch.rand(n, NUM_TRIES, generator=generator))
    aspect = torch.exp(log_aspect * (2 * torch.rand(n, NUM_TRIES, generator=generator) - 1))
    height, width = (areas / aspect).sqrt().round().clamp(min=1), (areas * aspect).sqrt().round().clamp(min=1)
    fits = (height <= most[0]) & (width <= most[1])
    first = fits.int().argmax(dim=1, keepdim=True)
    return height.gather(1, first)[:, 0], width.gather(1, first)[:, 0], fits.any(dim=1)
