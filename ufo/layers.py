"""Layers of UFO-ViT except attention: patch embeddings, local patch interaction, feed-forward, LayerScale.

Dimension letters: B batch, N tokens, C ``embed_dim``; an image or token grid is H x W.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH_EMBEDS = ("conv", "linear")
POS_EMBEDS = ("learned", "sincos", "none")
LPI_ORDERS = (True, "bn_first", False)

Lpi = bool | Literal["bn_first"]
"""Whether blocks have local patch interaction, and the order of its layers."""

SINCOS_BASE = 10_000
"""Longest wavelength of the fixed positional table, as a multiple of 2 pi tokens (MoCo v3, arXiv 2104.02057)."""


class ConvPatchEmbed(nn.Sequential):
    """Convolutional stem: n = log2(patch) convolutions, 3 x 3 with stride 2.

    Widths C / 2^(n-1), ..., C / 2, C; BatchNorm after each, GELU between (XCiT, arXiv 2106.09681, section 4).
    Maps images (B, in_chans, H, W) to (B, C, H / patch, W / patch).
    Differs from the paper: a patch of 1 px has one convolution of stride 1, because the source starts at 8 px.

    Args:
        in_chans: image channels.
        embed_dim: C.
        patch: pixels, a power of two.

    Raises:
        ValueError: the patch is not a power of two, or C is not divisible by 2^(n-1).
    """

    def __init__(self, *, in_chans: int, embed_dim: int, patch: int) -> None:
        if patch < 1 or patch & (patch - 1):
            raise ValueError(f"patch must be a power of two for a convolutional patch embedding, got {patch}")
        num_convs = max(1, patch.bit_length() - 1)
        narrowest = 2 ** (num_convs - 1)
        if embed_dim % narrowest:
            raise ValueError(f"embed_dim must be divisible by {narrowest} for patch {patch}, got {embed_dim}")
        widths = [in_chans, *(embed_dim // 2**i for i in reversed(range(num_convs)))]
        stride = 1 if patch == 1 else 2
        layers: list[nn.Module] = []
        for i in range(num_convs):
            conv = nn.Conv2d(widths[i], widths[i + 1], 3, stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(widths[i + 1]), nn.GELU()]
        super().__init__(*layers[:-1])


class LinearPatchEmbed(nn.Conv2d):
    """Linear map of each patch (ViT): images (B, in_chans, H, W) to (B, C, H / patch, W / patch)."""

    def __init__(self, *, in_chans: int, embed_dim: int, patch: int) -> None:
        super().__init__(in_chans, embed_dim, patch, patch)


def build_patch_embed(kind: str, *, in_chans: int, embed_dim: int, patch: int) -> nn.Module:
    """Build a patch embedding, ``conv`` or ``linear``.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in PATCH_EMBEDS:
        raise ValueError(f"patch_embed must be one of {', '.join(PATCH_EMBEDS)}, got '{kind}'")
    cls = ConvPatchEmbed if kind == "conv" else LinearPatchEmbed
    return cls(in_chans=in_chans, embed_dim=embed_dim, patch=patch)


def sincos_table(grid: tuple[int, int], embed_dim: int) -> Tensor:
    """Return a fixed positional table, (1, H, W, C): sine and cosine of the column, then of the row.

    Each of the four has C / 4 channels, with wavelengths of 2 pi to 2 pi `SINCOS_BASE` tokens (arXiv 2104.02057).

    Raises:
        ValueError: C is not divisible by 4.
    """
    if embed_dim % 4:
        raise ValueError(f"embed_dim must be divisible by 4 for pos_embed sincos, got {embed_dim}")
    quarter = embed_dim // 4
    rates = SINCOS_BASE ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = (torch.arange(side, dtype=torch.float64)[:, None] * rates for side in grid)  # (side, C / 4)
    of_row = torch.cat((rows.sin(), rows.cos()), dim=1)[:, None].expand(*grid, -1)
    of_column = torch.cat((columns.sin(), columns.cos()), dim=1)[None].expand(*grid, -1)
    return torch.cat((of_column, of_row), dim=2)[None].float()


class LocalPatchInteraction(nn.Module):
    """Depth-wise 3 x 3, GELU, BatchNorm, depth-wise 3 x 3 over the token grid (XCiT, arXiv 2106.09681).

    XCiT's code has this order; its text, "batch normalisation and GELU in between", suggests BatchNorm first.

    Args:
        embed_dim: C.
        bn_first: whether BatchNorm comes before GELU.
    """

    def __init__(self, *, embed_dim: int, bn_first: bool = False) -> None:
        super().__init__()
        self.bn_first = bn_first
        self.conv1 = nn.Conv2d(embed_dim, embed_dim, 3, padding=1, groups=embed_dim)
        self.bn = nn.BatchNorm2d(embed_dim)
        self.conv2 = nn.Conv2d(embed_dim, embed_dim, 3, padding=1, groups=embed_dim)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Mix neighbouring tokens, (B, N, C) to (B, N, C) with N = H W; the convolutions take a view, not a copy."""
        B, N, C = x.shape
        image = x.view(B, *grid, C).permute(0, 3, 1, 2)  # (B, C, H, W), channels last in memory
        image = self.conv1(image)
        image = F.gelu(self.bn(image)) if self.bn_first else self.bn(F.gelu(image))
        return self.conv2(image).permute(0, 2, 3, 1).reshape(B, N, C)


class FeedForward(nn.Module):
    """Point-wise feed-forward with GELU.

    Args:
        embed_dim: C.
        ratio: hidden width as a multiple of C.
    """

    def __init__(self, *, embed_dim: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, ratio * embed_dim)
        self.fc2 = nn.Linear(ratio * embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """Residual addition with a learnable factor per channel (CaiT, arXiv 2103.17239) and stochastic depth.

    Args:
        embed_dim: C.
        start: initial value of every factor.
        drop_path_rate: share of samples that drop the branch, in [0, 1); kept updates are divided by 1 - rate
            (arXiv 1603.09382).
    """

    def __init__(self, *, embed_dim: int, start: float, drop_path_rate: float) -> None:
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.layer_scale = nn.Parameter(torch.full((embed_dim,), start))

    def forward(self, x: Tensor, update: Tensor, keep: Tensor | None) -> Tensor:
        """Add an update to x, both (B, N, C), in one pass over memory.

        Args:
            x: input of the branch, (B, N, C).
            update: output of the branch, (B, N, C).
            keep: (B,), True for samples that keep the branch; None to keep all, without division by 1 - rate.

        >>> scale, keep = LayerScale(embed_dim=1, start=3.0, drop_path_rate=0.5), torch.tensor([True, False])
        >>> scale(torch.zeros(2, 1, 1), torch.ones(2, 1, 1), keep).flatten().tolist()
        [6.0, 0.0]
        """
        if keep is None:
            return torch.addcmul(x, update, self.layer_scale)
        kept = (keep.to(x.dtype) / (1 - self.drop_path_rate)).view(-1, 1, 1)
        return torch.addcmul(x, update, self.layer_scale * kept)
