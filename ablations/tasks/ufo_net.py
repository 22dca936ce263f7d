"""UFO-ViT of a cell: a classifier, or the body of a detector."""

from __future__ import annotations

import ufo
from ablations.config import CellConfig
from ablations.config.change import apply_change


def build_ufo_net(
    config: CellConfig, *, img_size: tuple[int, int] | None, in_chans: int, num_classes: int
) -> ufo.UFOViT:
    """Build a cell's UFO-ViT from its own streams, with its change applied.

    Args:
        config: configuration of the cell.
        img_size: image size of the positional table in pixels, (height, width); None: the model's default.
        in_chans: number of image channels.
        num_classes: number of classes, the width of the output; 0: no head.

    Raises:
        ValueError: inconsistent sizes.
    """
    net = apply_change(config).net
    return ufo.build(
        net.model,
        norm=net.norm,
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=img_size,
        patch=net.patch,
        embed_dim=net.embed_dim,
        attn_dim=net.attn_dim,
        depth=net.depth,
        num_heads=net.num_heads,
        patch_embed=net.patch_embed,
        lpi=net.lpi,
        ff_ratio=net.ff_ratio,
        pos_embed=net.pos_embed,
        class_attention=net.class_attention,
        class_norm=net.class_norm,
        layer_scale=net.layer_scale,
        drop_path=net.drop_path,
        output_gate=net.output_gate,
        core_precision=config.run.core_precision,
        seed=config.seed,
    )
