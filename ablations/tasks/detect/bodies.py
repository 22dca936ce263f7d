"""Bodies of detectors, which compute the features: UFO-ViT, nets of timm, and torchvision's ResNets."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from ablations.config import CellConfig
from ablations.config.nets import TIMM, TORCHVISION, is_foreign
from ablations.data.streams import forked_library
from ablations.tasks.timm_net import check_drop_path, import_timm
from ablations.tasks.ufo_net import build_ufo_net
from ufo.detection import STRIDES, Body, UFOBody, tap_blocks

PROBE_SIZE = (64, 96)
"""Height and width of the image that tests whether a net of timm accepts images of any size."""

STAGES = ("layer1", "layer2", "layer3", "layer4")
"""Stages of torchvision's ResNets, with strides 4, 8, 16 and 32."""


def build_body(config: CellConfig, *, in_chans: int = 3, img_size: tuple[int, int] | None = None) -> Body:
    """Build the body of a cell's detector from its seed.

    Args:
        config: configuration of the cell.
        in_chans: number of image channels.
        img_size: image size of UFO-ViT's positional table in pixels, (height, width); None: the model's default.

    Raises:
        ValueError: net without the maps that a pyramid needs, or that rejects these sizes.
        UsageError: timm is not installed.
    """
    if is_foreign(config.net.model):
        return build_foreign_body(config.net.model, in_chans=in_chans, drop_path=config.net.drop_path, seed=config.seed)
    headless = config.model_copy(update={"class_attention": 0})
    return UFOBody(build_ufo_net(headless, img_size=img_size, in_chans=in_chans, num_classes=0))


def build_foreign_body(model: str, *, in_chans: int, drop_path: float, seed: int) -> Body:
    """Build a net of timm, or a ResNet of torchvision, as a body.

    Args:
        model: name of the net, with the prefix.
        in_chans: number of image channels.
        drop_path: drop-path rate, 0 <= rate < 1; 0 for a ResNet of torchvision.
        seed: seed of the initial weights.

    Raises:
        ValueError: net without the maps that a pyramid needs, or that rejects these sizes.
        UsageError: timm is not installed.
    """
    if model.startswith(TIMM):
        return _timm_body(model.removeprefix(TIMM), import_timm(model), in_chans, drop_path, seed)
    return _resnet_body(model.removeprefix(TORCHVISION), in_chans, drop_path, seed)


class _Maps(Body):
    """Net that returns maps, and the order of the four; a shallow net's may repeat."""

    def __init__(self, net: nn.Module, order: list[int], *, widths: list[int], strides: list[int]) -> None:
        super().__init__(widths=widths, strides=strides)
        self.net, self.order = net, order

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, in_chans, H, W) to the four maps."""
        found = self.net(images)
        maps = list(found.values()) if isinstance(found, dict) else found
        return [maps[place] for place in self.order]


def _timm_body(name: str, timm: ModuleType, in_chans: int, drop_path: float, seed: int) -> Body:
    """Build a net of timm as features: its own pyramid, or four taps of its blocks."""
    options: dict[str, Any] = {"features_only": True, "in_chans": in_chans}
    if drop_path:
        options["drop_path_rate"] = drop_path
    try:
        with forked_library(seed, "init"):
            probe = timm.create_model(name, **options)
        strides = list(probe.feature_info.reduction())
        if len(set(strides)) == 1:
            taps = [number - 1 for number in tap_blocks(len(probe.model.blocks))]
        else:
            taps = [len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES]
        wanted = sorted(set(taps))
        with forked_library(seed, "init"):
            net = timm.create_model(name, **options, out_indices=tuple(wanted))
        with torch.no_grad():
            net.eval()(torch.zeros(1, in_chans, *PROBE_SIZE))
    except (TypeError, AssertionError, RuntimeError, ValueError, AttributeError) as error:  # timm's nets differ here
        reason = str(error).splitlines()[0]
        problem = f"timm's {name} has no maps for images of any size, as a detector needs"
        raise ValueError(f"{problem}: {reason}") from error
    check_drop_path(net, name, drop_path)
    order = [wanted.index(tap) for tap in taps]
    widths, strides = list(net.feature_info.channels()), list(net.feature_info.reduction())
    return _Maps(net, order, widths=[widths[i] for i in order], strides=[strides[i] for i in order])


def _resnet_body(name: str, in_chans: int, drop_path: float, seed: int) -> Body:
    """Build a ResNet of torchvision without its head."""
    from torchvision.models._utils import IntermediateLayerGetter

    if drop_path:
        raise ValueError(f"torchvision's {name} has no drop path: set drop_path=0")
    with forked_library(seed, "init"):
        net = models.get_model(name, weights=None)
    if in_chans != net.conv1.in_channels:
        raise ValueError(f"torchvision's {name} takes images of {net.conv1.in_channels} channels, not {in_chans}")
    last = [[m for m in getattr(net, stage).modules() if isinstance(m, nn.Conv2d)][-1] for stage in STAGES]
    getter = IntermediateLayerGetter(net, {stage: stage for stage in STAGES})
    return _Maps(getter, [0, 1, 2, 3], widths=[m.out_channels for m in last], strides=list(STRIDES))
