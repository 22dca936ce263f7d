"""The net of a cell. Apart from the task, so that planning a study imports no metrics."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

import ufo
from ablations.study import CellConfig
from ablations.study.timm import is_timm
from ablations.tasks.timm_net import build_timm_net


def build_net(config: CellConfig, *, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Build a cell's net from its own streams: UFO-ViT, or one of timm's.

    Args:
        config: the cell.
        image_shape: height, width, channels.
        num_classes: width of the output.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    if is_timm(config.model):
        return build_timm_net(config, image_shape=image_shape, num_classes=num_classes)
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


def branches_of(net: nn.Module) -> Sequence[str]:
    """Name the branches that a net can be told to leave out; none where it draws its drop path itself, as timm's do."""
    return net.branches if isinstance(net, ufo.UFOViT) else ()
