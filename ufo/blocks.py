"""Residual blocks of UFO-ViT: over the patches, and over the class token.

Dimension letters: B batch, N tokens, C ``embed_dim``; a token grid is H x W, so N = H W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from ufo.attention import ClassAttention, CorePrecision, UFOAttention
from ufo.layers import FeedForward, LayerScale, LocalPatchInteraction, Lpi

A = TypeVar("A", UFOAttention, ClassAttention)

LN_EPS = 1e-6
"""LayerNorm's eps (XCiT, arXiv 2106.09681)."""


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """What all blocks of a net have in common, patch and class blocks alike.

    Args:
        embed_dim: C.
        attn_dim: A, inner width of attention.
        num_heads: h, a divisor of A.
        ff_ratio: hidden width of the feed-forward as a multiple of C; 0 for none.
        layer_scale: initial LayerScale factor.
        drop_path_rate: share of samples that drop a branch, in [0, 1).
        output_gate: whether the attention output is gated.
        core_precision: precision of the attention core.
    """

    embed_dim: int
    attn_dim: int
    num_heads: int
    ff_ratio: int
    layer_scale: float
    drop_path_rate: float
    output_gate: bool
    core_precision: CorePrecision


class Block(nn.Module):
    """x += s1 attention(LN x); x += s2 LPI(LN x); x += s3 feed-forward(LN x), with LayerScale s.

    Local patch interaction and feed-forward are optional.
    """

    def __init__(self, options: BlockOptions, *, norm: str, lpi: Lpi) -> None:
        super().__init__()
        C, ff_ratio = options.embed_dim, options.ff_ratio
        self.attn_norm = nn.LayerNorm(C, eps=LN_EPS)
        self.attn = _attention(UFOAttention, options, norm)
        self.attn_scale = _layer_scale(options)
        self.lpi = LocalPatchInteraction(embed_dim=C, bn_first=lpi == "bn_first") if lpi else None
        if lpi:
            self.lpi_norm = nn.LayerNorm(C, eps=LN_EPS)
            self.lpi_scale = _layer_scale(options)
        self.ff = FeedForward(embed_dim=C, ratio=ff_ratio) if ff_ratio else None
        if ff_ratio:
            self.ff_norm = nn.LayerNorm(C, eps=LN_EPS)
            self.ff_scale = _layer_scale(options)

    @property
    def branches(self) -> tuple[str, ...]:
        """Residual branches, each with a drop-path decision of its own."""
        return ("attn", *("lpi",) * (self.lpi is not None), *("ff",) * (self.ff is not None))

    def forward(self, x: Tensor, grid: tuple[int, int], keep: Tensor | None) -> Tensor:
        """Map (B, N, C) to (B, N, C); ``keep`` is (branches, B), or None to keep all branches."""
        rows = [None] * len(self.branches) if keep is None else list(keep.unbind(0))
        x = self.attn_scale(x, self.attn(self.attn_norm(x)), rows[0])
        if self.lpi is not None:
            x = self.lpi_scale(x, self.lpi(self.lpi_norm(x), grid), rows[1])
        if self.ff is not None:
            x = self.ff_scale(x, self.ff(self.ff_norm(x)), rows[-1])
        return x


class ClassBlock(nn.Module):
    """Class attention and feed-forward for the class token; the patches stay unchanged (as in CaiT)."""

    def __init__(self, options: BlockOptions, *, norm: str) -> None:
        super().__init__()
        C, ff_ratio = options.embed_dim, options.ff_ratio
        self.attn_norm = nn.LayerNorm(C, eps=LN_EPS)
        self.attn = _attention(ClassAttention, options, norm)
        self.attn_scale = _layer_scale(options)
        self.ff = FeedForward(embed_dim=C, ratio=ff_ratio) if ff_ratio else None
        if ff_ratio:
            self.ff_norm = nn.LayerNorm(C, eps=LN_EPS)
            self.ff_scale = _layer_scale(options)

    @property
    def branches(self) -> tuple[str, ...]:
        """Residual branches, each with a drop-path decision of its own."""
        return ("attn",) if self.ff is None else ("attn", "ff")

    def forward(self, cls: Tensor, patches: Tensor, keep: Tensor | None) -> Tensor:
        """Return the class token, (B, 1, C); ``keep`` is (branches, B), or None to keep all branches."""
        rows = [None] * len(self.branches) if keep is None else list(keep.unbind(0))
        cls = self.attn_scale(cls, self.attn(self.attn_norm(cls), self.attn_norm(patches)), rows[0])
        if self.ff is not None:
            cls = self.ff_scale(cls, self.ff(self.ff_norm(cls)), rows[1])
        return cls


def _attention(cls: type[A], options: BlockOptions, norm: str) -> A:
    return cls(
        embed_dim=options.embed_dim,
        attn_dim=options.attn_dim,
        num_heads=options.num_heads,
        norm=norm,
        output_gate=options.output_gate,
        core_precision=options.core_precision,
    )


def _layer_scale(options: BlockOptions) -> LayerScale:
    return LayerScale(embed_dim=options.embed_dim, start=options.layer_scale, drop_path_rate=options.drop_path_rate)
