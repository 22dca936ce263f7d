"""The net of a cell. Apart from the task, so that planning a study imports no metrics."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

import ufo
from ablations.config import CellConfig, UsageError
from ablations.config.nets import TIMM, is_timm
from ablations.config.types import Task
from ablations.data import DataInfo
from ablations.tasks.detect.resnet import check_resnet_name
from ablations.tasks.timm_net import build_timm_net, check_timm_name
from ablations.tasks.ufo_net import build_ufo_net
from ufo.scale import match_scale


def check_foreign_name(model: str, task: Task) -> None:
    """Check that a net of another library is known, and one of which the task can make something.

    Args:
        model: with its prefix.
        task: that it is for.

    Raises:
        UsageError: it is not, or its library is not installed.
    """
    if model.startswith(TIMM):
        check_timm_name(model)
        return
    check_resnet_name(model)
    if task != "detect":
        raise UsageError(f"model {model} is a backbone for --task detect; as a classifier give timm's")


def make_net(config: CellConfig, info: DataInfo, *, weights: str = "") -> nn.Module:
    """Build a cell's net from its own seed.

    Args:
        config: the cell.
        info: its data set.
        weights: file of a classifier's, from which a detector's backbone starts; empty: from its seed's.

    Raises:
        ValueError: sizes that do not fit each other, or weights that do not fit.
    """
    if config.task == "detect":
        from ablations.tasks.detect.net import build_detector

        return build_detector(config, num_classes=len(info.classes), mean=info.mean, std=info.std, weights=weights)
    return build_net(config, image_shape=info.image_shape, num_classes=len(info.classes))


def start_of(net: nn.Module) -> str:
    """Say which weights a detector's backbone starts from, and what of them was not taken; empty: its seed's."""
    from ufo.detection import UFOBody

    return next((module.start for module in net.modules() if isinstance(module, UFOBody)), "")


def build_net(config: CellConfig, *, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Build a cell's net from its own streams: UFO-ViT, or one of timm's.

    Args:
        config: the cell.
        image_shape: height, width, channels.
        num_classes: width of the output.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    if is_timm(config.net.model):
        return build_timm_net(config, image_shape=image_shape, num_classes=num_classes)
    return build_ufo_net(config, img_size=image_shape[:2], in_chans=image_shape[2], num_classes=num_classes)


def branches_of(net: nn.Module) -> Sequence[str]:
    """Name the branches that a net can be told to leave out; none where it draws its drop path itself, as timm's do."""
    return net.branches if isinstance(net, ufo.UFOViT) else ()


def match_to_xnorm(net: nn.Module, config: CellConfig, images: Tensor, *, num_classes: int) -> dict[str, float]:
    """Match the scale of a net's attention outputs to that of its twin with xnorm, on images; return each layer's gain.

    Args:
        net: a UFO-ViT on the device, with the weights that it was built with.
        config: the cell.
        images: (B, C, H, W), the first batch of training.
        num_classes: width of the output.

    Raises:
        UnmatchableError: an attention output is zero throughout or no number.
    """
    assert isinstance(net, ufo.UFOViT), "nets of timm have no scale to match"
    same = config.model_copy(update={"norm": "xnorm"})
    channels, height, width = images.shape[1:]
    twin = build_ufo_net(same, img_size=(height, width), in_chans=channels, num_classes=num_classes)
    return match_scale(net, twin.to(images.device), images)
