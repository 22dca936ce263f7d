"""Nets of timm's registry as the net of a cell: built for its images and classes, from its own seed."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import nn

from ablations.config import CellConfig, UsageError
from ablations.config.nets import TIMM
from ablations.config.packages import require_package
from ablations.data.streams import forked_library
from ufo.registry import unknown_name
from ufo.sizes import SIZES

NEAREST = 8
"""Names that an error lists, of timm's more than a thousand."""


def check_timm_name(model: str) -> None:
    """Check that timm knows a model, given with its prefix.

    Raises:
        UsageError: it does not, or it is not installed; or the net is our own, and has a name without prefix.
    """
    name, timm = model.removeprefix(TIMM), import_timm(model)
    if name in SIZES:
        raise UsageError(f"model {model}: give {name}, which is this package's own")
    known = timm.list_models()
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, n=NEAREST, cutoff=0.0)
        error = unknown_name("model of timm", name, near)
        raise UsageError(f"{error}, and others: timm.list_models()")


def build_timm_net(config: CellConfig, *, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Build a net of timm's with first weights that the seed alone decides.

    timm draws them, and later its drop path, from the global generators: the weights are drawn in a fork of these keyed
    by (seed, init), drop path in the one that every cell keys by (seed, epoch). The image size is handed on where the
    net is made for one size; its rate of drop path is timm's to lay out over the depth.

    Args:
        config: the cell.
        image_shape: height, width, channels.
        num_classes: width of the output.

    Raises:
        ValueError: the net does not take these images, or has no drop path where one is asked for.
        UsageError: timm is not installed.
    """
    height, width, channels = image_shape
    return make_timm_net(
        config.net.model,
        img_size=(height, width),
        in_chans=channels,
        num_classes=num_classes,
        drop_path=config.net.drop_path,
        seed=config.seed,
    )


def make_timm_net(
    model: str, *, img_size: tuple[int, int], in_chans: int, num_classes: int, drop_path: float, seed: int
) -> nn.Module:
    """Build a net of timm's as `build_timm_net` does, from sizes.

    Args:
        model: its name, with the prefix.
        img_size: pixels, (height, width).
        in_chans: image channels.
        num_classes: width of the output.
        drop_path: rate, 0 <= rate < 1.
        seed: of the first weights.

    Raises:
        ValueError: the net does not take these sizes.
        UsageError: timm is not installed.
    """
    timm, name = import_timm(model), model.removeprefix(TIMM)
    options: dict[str, Any] = {"in_chans": in_chans, "num_classes": num_classes}
    if timm.get_pretrained_cfg(name).fixed_input_size:
        options["img_size"] = img_size
    if drop_path:
        options["drop_path_rate"] = drop_path
    with forked_library(seed, "init"):
        try:
            net: nn.Module = timm.create_model(name, **options)
        except (TypeError, AssertionError, RuntimeError, ValueError) as error:  # each net of timm has its own way
            given = ", ".join(f"{option}={value}" for option, value in options.items())
            raise ValueError(f"timm cannot build {name} with {given}: {error}") from error
    check_drop_path(net, name, drop_path)
    return net


def check_drop_path(net: nn.Module, name: str, drop_path: float) -> None:
    """Check that a net has taken its rate of drop path.

    Raises:
        ValueError: it has no drop path, and one was asked for.
    """
    if drop_path and not any(getattr(module, "drop_prob", 0) for module in net.modules()):
        raise ValueError(f"{name} has no drop path: leave drop_path at 0")


def try_timm_net(net: nn.Module, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Classify one black image, to see that a net of timm's takes such images at all.

    Raises:
        ValueError: it does not, or gives no (1, num_classes) logits.
    """
    height, width, channels = image_shape
    net.eval()
    try:
        with torch.no_grad():
            logits = net(torch.zeros(1, channels, height, width))
    except (TypeError, AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"it does not take images of {height} x {width} px: {error}") from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (1, num_classes):
        raise ValueError(f"it is no classifier of {num_classes} classes: for one image it gives {shape}")


def import_timm(model: str) -> ModuleType:
    """Import timm for a model that needs it.

    Raises:
        UsageError: it is not installed.
    """
    require_package("timm", f"model {model}")
    import timm

    return timm
