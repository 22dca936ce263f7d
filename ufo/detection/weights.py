"""Initialisation of a detector's body from a classifier's weights, with a report of the tensors left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ufo.detection.backbone import UFOBody

CLASSIFIER_ONLY = ("cls_token", "class_blocks.", "norm.", "head.")
"""Name prefixes of tensors that a detector does not use."""


@dataclass(frozen=True)
class Loaded:
    """Names of a classifier's tensors that were loaded and left out.

    Args:
        taken: names of the tensors loaded into the body.
        left: names of the tensors that only a classifier has: class token, class attention, last LayerNorm, head.
    """

    taken: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        """Return a one-line summary."""
        parts = sorted({name.split(".")[0] for name in self.left})
        return f"{len(self.taken)} tensors taken, {len(self.left)} left out ({', '.join(parts) or 'none'})"


@torch.no_grad()
def load_classifier(body: UFOBody, tensors: Mapping[str, Tensor]) -> Loaded:
    """Load a classifier's weights into a body, before its BatchNorms are frozen.

    Args:
        body: body with the classifier's size, normaliser and image size.
        tensors: name to tensor of the classifier's state dict.

    Raises:
        ValueError: the body and the classifier differ in the names or shapes of tensors.
    """
    own = body.net.state_dict()
    left = tuple(name for name in tensors if name.startswith(CLASSIFIER_ONLY))
    offered = {name: tensor for name, tensor in tensors.items() if name not in left}
    if missing := sorted(own.keys() - offered.keys()):
        raise ValueError(f"the weights lack {missing[0]}{_more(missing)}, which the backbone has")
    if unknown := sorted(offered.keys() - own.keys()):
        raise ValueError(f"the backbone has no {unknown[0]}{_more(unknown)}, which the weights have")
    for name, tensor in offered.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)} in the weights and {tuple(own[name].shape)} here")
        own[name].copy_(tensor)
    return Loaded(tuple(offered), left)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
