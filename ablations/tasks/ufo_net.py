"""UFO-ViT as a cell asks for it: a classifier, or the body of a detector."""

from __future__ import annotations

import ufo
from ablations.config import CellConfig
from ablations.config.change import apply_change


def build_ufo_net(
    config: CellConfig, *, img_size: tuple[int, int] | None, in_chans: int, num_classes: int
) -> ufo.UFOViT:
    """Build a cell's UFO-ViT from its own streams, with its change made.

    Args:
        config: the cell.
        img_size: pixels, (height, width), for which positions are laid out; None: the size's own.
        in_chans: image channels.
        num_classes: width of the output; 0: no head.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    config = apply_change(config)
    return ufo.build(
        config.model,
        norm=config.norm,
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size,
        patch=config.patch,
        embed_dim=config.embed_dim,
        attn_dim=config.attn_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        patch_embed=config.patch_embed,
        lpi=config.lpi,
        ff_ratio=config.ff_ratio,
        pos_embed=config.pos_embed,
        class_attention=config.class_attention,
        class_norm=config.class_norm,
        layer_scale=config.layer_scale,
        drop_path=config.drop_path,
        seed=config.seed,
    )
