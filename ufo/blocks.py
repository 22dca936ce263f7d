"""Residual blocks of UFO-ViT: over the patches, and over the class token.

Dimension letters: B batch, N tokens, C ``embed_dim``; a token grid is H x W, so N = H W.
"""

from __future__ import annotations

from torch import Tensor, nn

from ufo.attention import ClassAttention, UFOAttention
from ufo.layers import FeedForward, LayerScale, LocalPatchInteraction, Lpi

LN_EPS = 1e-6
"""LayerNorm's eps (XCiT, arXiv 2106.09681)."""


class Block(nn.Module):
    """x += s1 attention(LN x); x += s2 LPI(LN x); x += s3 feed-forward(LN x), with LayerScale s.

    Local patch interaction and feed-forward are optional.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        attn_dim: int,
        num_heads: int,
        norm: str,
        lpi: Lpi,
        ff_ratio: int,
        layer_scale: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(embed_dim, eps=LN_EPS)
        self.attn = UFOAttention(embed_dim=embed_dim, attn_dim=attn_dim, num_heads=num_heads, norm=norm)
        self.attn_scale = LayerScale(embed_dim=embed_dim, start=layer_scale, drop_path_rate=drop_path_rate)
        self.lpi = LocalPatchInteraction(embed_dim=embed_dim, bn_first=lpi == "bn_first") if lpi else None
        if lpi:
            self.lpi_norm = nn.LayerNorm(embed_dim, eps=LN_EPS)
            self.lpi_scale = LayerScale(embed_dim=embed_dim, start=layer_scale, drop_path_rate=drop_path_rate)
        self.ff = FeedForward(embed_dim=embed_dim, ratio=ff_ratio) if ff_ratio else None
        if ff_ratio:
            self.ff_norm = nn.LayerNorm(embed_dim, eps=LN_EPS)
            self.ff_scale = LayerScale(embed_dim=embed_dim, start=layer_scale, drop_path_rate=drop_path_rate)

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

    def __init__(
        self,
        *,
        embed_dim: int,
        attn_dim: int,
        num_heads: int,
        norm: str,
        ff_ratio: int,
        layer_scale: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(embed_dim, eps=LN_EPS)
        self.attn = ClassAttention(embed_dim=embed_dim, attn_dim=attn_dim, num_heads=num_heads, norm=norm)
        self.attn_scale = LayerScale(embed_dim=embed_dim, start=layer_scale, drop_path_rate=drop_path_rate)
        self.ff = FeedForward(embed_dim=embed_dim, ratio=ff_ratio) if ff_ratio else None
        if ff_ratio:
            self.ff_norm = nn.LayerNorm(embed_dim, eps=LN_EPS)
            self.ff_scale = LayerScale(embed_dim=embed_dim, start=layer_scale, drop_path_rate=drop_path_rate)

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
