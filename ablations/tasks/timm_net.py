"""Nets of timm's registry, built for a cell's images and classes from its seed."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import nn

from ablations.config import UsageError
from ablations.config.nets import TIMM
from ablations.config.packages import require_package
from ablations.data.streams import forked_library
from ufo.registry import unknown_name
from ufo.sizes import SIZES

NEAREST = 8
"""Number of names that an error lists, of timm's more than a thousand."""


def check_timm_name(model: str) -> None:
    """Check that timm has a model, given with its prefix.

    Raises:
        UsageError: unknown model, timm not installed, or a net of this package, which takes no prefix.
    """
    name, timm = model.removeprefix(TIMM), import_timm(model)
    if name in SIZES:
        raise UsageError(f"model={model}: {name} is this package's own; give {name} without the prefix")
    known = timm.list_models()
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, n=NEAREST, cutoff=0.0)
        error = unknown_name("model of timm", name, near)
        raise UsageError(f"{error}, and others: timm.list_models()")


def make_timm_net(
    model: str, *, img_size: tuple[int, int], in_chans: int, num_classes: int, drop_path: float, seed: int
) -> nn.Module:
    """Build a net of timm with initial weights that depend only on the seed.

    timm draws weights and drop path from the global generators: the weights in a fork keyed by (seed, init), drop path
    in the fork that every cell keys by (seed, epoch). The image size is passed only to nets built for one size; timm
    distributes the drop-path rate over the depth.

    Args:
        model: name of the net, with the prefix.
        img_size: size of the images in pixels, (height, width).
        in_chans: number of image channels.
        num_classes: number of classes, the width of the output.
        drop_path: drop-path rate, 0 <= rate < 1.
        seed: seed of the initial weights.

    Raises:
        ValueError: net that rejects these sizes, or has no drop path although one is requested.
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
        except (TypeError, AssertionError, RuntimeError, ValueError) as error:  # timm's nets differ in what they raise
            given = ", ".join(f"{option}={value}" for option, value in options.items())
            raise ValueError(f"timm cannot build {name} with {given}: {error}") from error
    check_drop_path(net, name, drop_path)
    return net


def check_drop_path(net: nn.Module, name: str, drop_path: float) -> None:
    """Check that a net uses its drop-path rate.

    Raises:
        ValueError: positive rate for a net without drop path.
    """
    if drop_path and not any(getattr(module, "drop_prob", 0) for module in net.modules()):
        raise ValueError(f"{name} has no drop path: set drop_path=0")


def try_timm_net(net: nn.Module, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Classify one black image, to check that a net of timm accepts such images.

    Raises:
        ValueError: rejected image, or output other than (1, num_classes) logits.
    """
    height, width, channels = image_shape
    net.eval()
    try:
        with torch.no_grad():
            logits = net(torch.zeros(1, channels, height, width))
    except (TypeError, AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"it does not accept images of {height} x {width} px: {error}") from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (1, num_classes):
        raise ValueError(f"it is not a classifier of {num_classes} classes: it maps one image to {shape}")


def import_timm(model: str) -> ModuleType:
    """Import timm, on behalf of a model.

    Raises:
        UsageError: timm is not installed.
    """
    require_package("timm", f"model {model}")
    import timm

    return timm
