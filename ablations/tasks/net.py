"""Net of a cell, apart from the task, so that planning a study imports no metrics."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

import ufo
from ablations.config import CellConfig, UsageError
from ablations.config.nets import TIMM, is_timm
from ablations.config.types import Task
from ablations.data import DataInfo
from ablations.tasks.detect.resnet import check_resnet_name
from ablations.tasks.timm_net import check_timm_name, make_timm_net
from ablations.tasks.ufo_net import build_ufo_net
from ufo.scale import match_scale


def check_foreign_name(model: str, task: Task) -> None:
    """Check that a net of another library exists and can serve the task.

    Args:
        model: name of the net, with its prefix.
        task: task of the net.

    Raises:
        UsageError: unknown net, net of another task, or library that is not installed.
    """
    if model.startswith(TIMM):
        check_timm_name(model)
        return
    check_resnet_name(model)
    if task != "detect":
        raise UsageError(f"model={model}: a backbone for --task detect only; to classify, give a timm: model")


def make_net(config: CellConfig, info: DataInfo, *, weights: str = "") -> nn.Module:
    """Build the net of a cell from its seed.

    Args:
        config: configuration of the cell.
        info: data set of the cell.
        weights: file of classifier weights that a detector's backbone starts from; empty: initialise from the seed.

    Raises:
        ValueError: inconsistent sizes, or weights of another net.
    """
    if config.task == "detect":
        from ablations.tasks.detect.net import build_detector

        return build_detector(config, num_classes=len(info.classes), mean=info.mean, std=info.std, weights=weights)
    return build_net(config, image_shape=info.image_shape, num_classes=len(info.classes))


def start_of(net: nn.Module) -> str:
    """Describe the weights that a detector's backbone starts from, and those not used; empty: drawn from the seed."""
    from ufo.detection import UFOBody

    return next((module.start for module in net.modules() if isinstance(module, UFOBody)), "")


def build_net(config: CellConfig, *, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Build the net of a cell from its own streams: UFO-ViT, or a net of timm.

    Args:
        config: configuration of the cell.
        image_shape: height, width and channels of the images.
        num_classes: number of classes, the width of the output.

    Raises:
        ValueError: inconsistent sizes.
    """
    size, channels = image_shape[:2], image_shape[2]
    if is_timm(config.net.model):
        net, seed = config.net, config.seed
        return make_timm_net(
            net.model, img_size=size, in_chans=channels, num_classes=num_classes, drop_path=net.drop_path, seed=seed
        )
    return build_ufo_net(config, img_size=size, in_chans=channels, num_classes=num_classes)


def branches_of(net: nn.Module) -> Sequence[str]:
    """Return the names of the branches that a net lets drop path skip; empty if it draws drop path itself (timm)."""
    return net.branches if isinstance(net, ufo.UFOViT) else ()


def match_to_xnorm(net: nn.Module, config: CellConfig, images: Tensor, *, num_classes: int) -> dict[str, float]:
    """Match the scale of a net's attention outputs to its xnorm twin's, on images; return the gain of each layer.

    Args:
        net: UFO-ViT on the device, with its initial weights.
        config: configuration of the cell.
        images: (B, C, H, W) images of the first training batch.
        num_classes: number of classes, the width of the output.

    Raises:
        UnmatchableError: attention output that is all zeros or not finite.
    """
    assert isinstance(net, ufo.UFOViT), "nets of timm have no scale to match"
    same = config.model_copy(update={"norm": "xnorm"})
    channels, height, width = images.shape[1:]
    twin = build_ufo_net(same, img_size=(height, width), in_chans=channels, num_classes=num_classes)
    return match_scale(net, twin.to(images.device), images)
