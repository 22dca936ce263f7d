"""The net of a cell. Apart from the task, so that planning a study imports no metrics."""

from __future__ import annotations

import ufo
from ablations.study import CellConfig


def build_net(config: CellConfig, *, image_shape: tuple[int, int, int], num_classes: int) -> ufo.UFOViT:
    """Build a cell's net from its own streams.

    Args:
        config: the cell.
        image_shape: height, width, channels.
        num_classes: width of the output.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    height, width, channels = image_shape
    return ufo.build(
        config.model,
        norm=config.norm,
        num_classes=num_classes,
        in_chans=channels,
        img_size=(height, width),
        patch=config.patch,
        embed_dim=config.embed_dim,
        attn_dim=config.attn_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        patch_embed=config.patch_embed,
        lpi=config.lpi,
        class_attention=config.class_attention,
        layer_scale=config.layer_scale,
        drop_path=config.drop_path,
        seed=config.seed,
    )
