"""UFO-ViT and its builder.

Dimension letters: B batch, N tokens, C ``embed_dim``; a token grid is H x W, so N = H W.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ufo.attention import CorePrecision
from ufo.blocks import LN_EPS, Block, BlockOptions, ClassBlock
from ufo.init import init_parameters
from ufo.layers import LPI_ORDERS, POS_EMBEDS, Lpi, build_patch_embed, sincos_table
from ufo.sizes import SIZES, default_layer_scale


class UFOViT(nn.Module):
    """UFO-ViT (arXiv 2109.14382): images (B, in_chans, height, width) to logits (B, num_classes).

    Differs from the paper: drop path has one rate for all depths, as in XCiT (the paper states none).

    Args:
        norm: registry name of the normaliser.
        num_classes: width of the output; 0 gives the features, (B, C).
        in_chans: image channels.
        img_size: size of the positional table's images, (height, width) in pixels; other sizes interpolate the table.
        patch: side of a patch in pixels, a divisor of both image sides.
        embed_dim: C.
        attn_dim: A, inner width of attention.
        depth: number of blocks.
        num_heads: h, a divisor of A.
        patch_embed: ``conv`` or ``linear``.
        lpi: whether blocks have local patch interaction; ``bn_first`` for BatchNorm before GELU.
        ff_ratio: hidden width of the feed-forwards as a multiple of C; 0 for none.
        pos_embed: ``learned`` (random initial table), ``sincos`` (fixed table) or ``none``.
        class_attention: number of class-attention blocks; 0 for global average pooling.
        class_norm: normaliser in class attention; ``same`` for ``norm``.
        layer_scale: initial LayerScale factor; None for the depth's.
        drop_path: share of samples that a residual branch drops in training, in [0, 1).
        output_gate: whether every attention output is multiplied by a sigmoid gate of the block's normalised input.
        core_precision: ``float32`` for attention cores in float32 under autocast; ``own`` for the net's precision.

    Attributes:
        branches: names of the residual branches, which are the rows of ``keep`` in `forward`.

    Raises:
        ValueError: a value is out of range, or two sizes are incompatible.
        UnknownNameError: the normaliser is unknown.
    """

    def __init__(
        self,
        *,
        norm: str,
        num_classes: int,
        in_chans: int,
        img_size: tuple[int, int],
        patch: int,
        embed_dim: int,
        attn_dim: int,
        depth: int,
        num_heads: int,
        patch_embed: str,
        lpi: Lpi,
        ff_ratio: int,
        pos_embed: str,
        class_attention: int,
        class_norm: str,
        layer_scale: float | None,
        drop_path: float,
        output_gate: bool = False,
        core_precision: CorePrecision = "own",
    ) -> None:
        super().__init__()
        _check_options(lpi=lpi, pos_embed=pos_embed, drop_path=drop_path, output_gate=output_gate)
        _check_at_least(1, in_chans=in_chans, patch=patch, embed_dim=embed_dim, attn_dim=attn_dim, num_heads=num_heads)
        _check_at_least(1, depth=depth, height=img_size[0], width=img_size[1])
        _check_at_least(0, num_classes=num_classes, class_attention=class_attention, ff_ratio=ff_ratio)
        self.patch, self.drop_path = patch, drop_path
        self.grid = self._token_grid(*img_size)
        self.patch_embed = build_patch_embed(patch_embed, in_chans=in_chans, embed_dim=embed_dim, patch=patch)
        self._register_positions(pos_embed, embed_dim)
        options = BlockOptions(
            embed_dim=embed_dim,
            attn_dim=attn_dim,
            num_heads=num_heads,
            ff_ratio=ff_ratio,
            layer_scale=default_layer_scale(depth) if layer_scale is None else layer_scale,
            drop_path_rate=drop_path,
            output_gate=output_gate,
            core_precision=core_precision,
        )
        blocks = [Block(options, norm=norm, lpi=lpi) for _ in range(depth)]
        of_class = norm if class_norm == "same" else class_norm
        class_blocks = [ClassBlock(options, norm=of_class) for _ in range(class_attention)]
        self.blocks, self.class_blocks = nn.ModuleList(blocks), nn.ModuleList(class_blocks)
        self.branches = [*_branch_names("blocks", blocks), *_branch_names("class_blocks", class_blocks)]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_attention else None
        self.norm = nn.LayerNorm(embed_dim, eps=LN_EPS)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes else nn.Identity()

    def _register_positions(self, kind: str, embed_dim: int) -> None:
        """Register the positional table, (1, H, W, C): a parameter, a buffer, or None."""
        self.pos_embed: Tensor | None
        if kind == "sincos":
            self.register_buffer("pos_embed", sincos_table(self.grid, embed_dim), persistent=False)
        else:
            table = nn.Parameter(torch.zeros(1, *self.grid, embed_dim)) if kind == "learned" else None
            self.register_parameter("pos_embed", table)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Classify images.

        Args:
            images: (B, in_chans, height, width), normalised.
            keep: (branches, B), True if a sample keeps a branch; None draws it from torch's default generator in
                training with drop path, and otherwise keeps all branches.

        Returns:
            Logits, (B, num_classes), or features, (B, C), if num_classes is 0.

        Raises:
            ValueError: the image size is not a multiple of the patch, or ``keep`` has the wrong shape.
        """
        rows = self.rows_by_block(images, keep)
        x, grid = self.embed(images)
        for block in self.blocks:
            x = block(x, grid, next(rows))
        if self.cls_token is None:
            return self.head(self.norm(x).mean(dim=1))
        return self.head(self.norm(self.class_token(x, rows)[:, 0]))

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens of images with their positions, (B, N, C), and their grid, (H, W)."""
        grid = self._token_grid(images.shape[2], images.shape[3])
        images = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # channels last; vmap has no other way
        x = self.patch_embed(images)  # (B, C, H, W), in any layout
        x = x.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)
        x = x if self.pos_embed is None else x + self._positions(self.pos_embed, grid)
        return x.flatten(1, 2), grid

    def class_token(self, x: Tensor, rows: Iterator[Tensor | None]) -> Tensor:
        """Return the class token after class attention to the patches x, (B, N, C), before the last LayerNorm."""
        assert self.cls_token is not None, "the net has no class token"
        cls = self.cls_token.repeat(len(x), 1, 1)  # (B, 1, C)
        for block in self.class_blocks:
            cls = block(cls, x, next(rows))
        return cls

    def rows_by_block(self, images: Tensor, keep: Tensor | None) -> Iterator[Tensor | None]:
        """Split ``keep`` of `forward` into the rows of each block, then of each class-attention block.

        Raises:
            ValueError: ``keep`` has the wrong shape.
        """
        shape = (len(self.branches), len(images))
        if keep is not None and keep.shape != shape:
            raise ValueError(f"keep must have shape {shape}, got {tuple(keep.shape)}")
        if keep is None and self.training and self.drop_path:
            keep = torch.rand(shape, device=images.device) >= self.drop_path
        blocks = [*self.blocks, *self.class_blocks]
        if keep is None:
            return iter([None] * len(blocks))
        return iter(torch.split(keep, [len(block.branches) for block in blocks]))

    def _token_grid(self, height: int, width: int) -> tuple[int, int]:
        if height % self.patch or width % self.patch:
            raise ValueError(f"images of {height} x {width} px are not a multiple of the patch, {self.patch} px")
        return height // self.patch, width // self.patch

    def _positions(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        if grid == self.grid:
            return table
        if not isinstance(table, nn.Parameter):
            return sincos_table(grid, table.shape[-1]).to(table)
        image = table.permute(0, 3, 1, 2)  # (1, C, H, W)
        return F.interpolate(image, size=grid, mode="bicubic", align_corners=False).permute(0, 2, 3, 1)


def _branch_names(prefix: str, blocks: Sequence[Block | ClassBlock]) -> list[str]:
    return [f"{prefix}.{i}.{branch}" for i, block in enumerate(blocks) for branch in block.branches]


def _check_options(*, lpi: Lpi, pos_embed: str, drop_path: float, output_gate: bool) -> None:
    if lpi not in LPI_ORDERS:
        raise ValueError(f"lpi must be True, False or 'bn_first', got {lpi!r}")
    if pos_embed not in POS_EMBEDS:
        raise ValueError(f"pos_embed must be one of {', '.join(POS_EMBEDS)}, got '{pos_embed}'")
    if not 0 <= drop_path < 1:
        raise ValueError(f"drop_path must be at least 0 and below 1, got {drop_path}")
    if not isinstance(output_gate, bool):
        raise ValueError(f"output_gate must be True or False, got {output_gate!r}")


def _check_at_least(least: int, **sizes: int) -> None:
    for name, value in sizes.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _sides(img_size: int | tuple[int, int]) -> tuple[int, int]:
    return (img_size, img_size) if isinstance(img_size, int) else img_size


def build(
    name: str,
    *,
    norm: str = "xnorm",
    num_classes: int = 1000,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    patch: int | None = None,
    embed_dim: int | None = None,
    attn_dim: int | None = None,
    depth: int | None = None,
    num_heads: int | None = None,
    patch_embed: str = "conv",
    lpi: Lpi = True,
    ff_ratio: int = 4,
    pos_embed: str = "learned",
    class_attention: int | None = None,
    class_norm: str = "same",
    layer_scale: float | None = None,
    drop_path: float = 0.0,
    output_gate: bool = False,
    core_precision: CorePrecision = "own",
    seed: int = 0,
) -> UFOViT:
    """Build a named size with the arguments of `UFOViT`; None takes the size's value (``layer_scale``: the depth's).

    Args:
        seed: seed of the initial weights, keyed by parameter name; the global generator's state is unchanged.

    Raises:
        ValueError: the size or the normaliser is unknown, a value is out of range, or two sizes are incompatible.

    >>> sum(p.numel() for p in build("ufo_vit_pico", norm="l2", num_classes=10, in_chans=1).parameters())
    104122
    """
    size = SIZES[name]
    with torch.random.fork_rng(devices=[]):
        model = UFOViT(
            norm=norm,
            num_classes=num_classes,
            in_chans=in_chans,
            img_size=_sides(size.img_size if img_size is None else img_size),
            patch=size.patch if patch is None else patch,
            embed_dim=size.embed_dim if embed_dim is None else embed_dim,
            attn_dim=size.attn_dim if attn_dim is None else attn_dim,
            depth=size.depth if depth is None else depth,
            num_heads=size.num_heads if num_heads is None else num_heads,
            patch_embed=patch_embed,
            lpi=lpi,
            ff_ratio=ff_ratio,
            pos_embed=pos_embed,
            class_attention=size.class_attention if class_attention is None else class_attention,
            class_norm=class_norm,
            layer_scale=layer_scale,
            drop_path=drop_path,
            output_gate=output_gate,
            core_precision=core_precision,
        )
    init_parameters(model, seed=seed)
    return model
