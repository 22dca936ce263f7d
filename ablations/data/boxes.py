"""Sides of random rectangles, for random resized crops and random erasing."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_TRIES = 10
"""Rectangles drawn for a sample, of which the first that fits is used (as in torchvision and timm)."""


def draw_sides(
    n: int,
    *,
    size: tuple[int, int],
    largest: tuple[int, int],
    area: tuple[float, float],
    log_aspect: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw rectangles with a uniform share of the image's area and a log-uniform aspect ratio.

    Args:
        n: number of samples.
        size: size of the images, (H, W).
        largest: largest height and width that fit.
        area: smallest and largest share of H W.
        log_aspect: largest absolute logarithm of width / height.
        generator: CPU generator.

    Returns:
        Height and width in whole pixels, (n,) each, and (n,) bool, whether any of the tries fits.
    """
    low, high = area
    areas = size[0] * size[1] * (low + (high - low) * torch.rand(n, NUM_TRIES, generator=generator))
    aspect = torch.exp(log_aspect * (2 * torch.rand(n, NUM_TRIES, generator=generator) - 1))
    height, width = (areas / aspect).sqrt().round().clamp(min=1), (areas * aspect).sqrt().round().clamp(min=1)
    fits = (height <= largest[0]) & (width <= largest[1])
    first = fits.int().argmax(dim=1, keepdim=True)
    return height.gather(1, first)[:, 0], width.gather(1, first)[:, 0], fits.any(dim=1)
