"""Augmentation of a whole epoch, drawn on the CPU, applied per sample and batch-wise where the images are.

Dimension letters: B batch, H height, W width, C channels, n samples of an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHIFTED_SHARE = 0.5
"""Share of the images that ``shift`` moves; at 8 px, one pixel is an eighth of the image."""


@dataclass(frozen=True)
class Draws:
    """What happens to each of n samples.

    Args:
        down: (n,) pixels by which the window moves down; what lies outside the image is black.
        right: (n,) pixels to the right.
        flip: (n,) whether it is mirrored left to right.
    """

    down: Tensor
    right: Tensor
    flip: Tensor

    def to(self, device: torch.device) -> Draws:
        """Move all of it."""
        return Draws(self.down.to(device), self.right.to(device), self.flip.to(device))

    def part(self, places: slice | Tensor) -> Draws:
        """Take the samples of a batch, by their places in the epoch."""
        return Draws(self.down[places], self.right[places], self.flip[places])

    def tobytes(self) -> bytes:
        """Return the draws as bytes, for a hash."""
        return torch.stack((self.down, self.right, self.flip.long())).numpy().tobytes()


def draw(kind: str, n: int, *, image_side: int, generator: torch.Generator) -> Draws:
    """Draw an epoch's augmentation.

    Args:
        kind: ``crop_flip``: a crop of the image padded by an eighth of its side, and a mirror for half of them;
            ``shift``: half of them moved by up to an eighth of the side; ``none``.
        n: samples of the epoch.
        image_side: pixels of the shorter side.
        generator: on the CPU.

    Raises:
        ValueError: another kind.
    """
    still = torch.zeros(n, dtype=torch.long)
    if kind == "none":
        return Draws(still, still, still.bool())
    if kind not in ("crop_flip", "shift"):
        raise ValueError(f"augment is crop_flip, shift or none, not '{kind}'")
    margin = max(1, image_side // 8)
    down, right = torch.randint(-margin, margin + 1, (2, n), generator=generator)
    coin = torch.rand(n, generator=generator)
    if kind == "crop_flip":
        return Draws(down, right, coin < 0.5)
    moved = coin < SHIFTED_SHARE
    return Draws(down * moved, right * moved, still.bool())


def gather(images: Tensor, rows: Tensor, draws: Draws) -> Tensor:
    """Pick samples, move their windows and mirror them, in one indexing.

    Args:
        images: (n, H, W, C) uint8.
        rows: (B,) which of them.
        draws: of the B samples.

    Returns:
        (B, H, W, C) uint8.
    """
    H, W = images.shape[1:3]
    y = torch.arange(H, device=images.device) + draws.down[:, None]  # (B, H)
    x = torch.arange(W, device=images.device).expand(len(rows), W)
    x = torch.where(draws.flip[:, None], x.flip(1), x) + draws.right[:, None]  # (B, W)
    inside = ((y >= 0) & (y < H))[:, :, None] & ((x >= 0) & (x < W))[:, None, :]  # (B, H, W)
    picked = images[rows[:, None, None], y.clamp(0, H - 1)[:, :, None], x.clamp(0, W - 1)[:, None, :]]
    return picked * inside[..., None]
