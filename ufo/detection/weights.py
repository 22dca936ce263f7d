"""A classifier's weights as the start of a detector's body, and a report of every tensor that was not taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ufo.detection.backbone import UFOBody

CLASSIFIER_ONLY = ("cls_token", "class_blocks.", "norm.", "head.")
"""Beginnings of the names of what a detector has no use for."""


@dataclass(frozen=True)
class Loaded:
    """What became of a classifier's tensors.

    Args:
        taken: names of those that the body has now.
        left: names of those of the classifier alone: class token, class attention, last LayerNorm, head.
    """

    taken: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in a line."""
        parts = sorted({name.split(".")[0] for name in self.left})
        return f"{len(self.taken)} tensors taken, {len(self.left)} left out ({', '.join(parts) or 'none'})"


@torch.no_grad()
def load_classifier(body: UFOBody, tensors: Mapping[str, Tensor]) -> Loaded:
    """Put a classifier's weights into a body before its BatchNorms are frozen; the table of positions as it is.

    Args:
        body: of the same size and normaliser, built for the classifier's image size.
        tensors: the classifier's, by name.

    Raises:
        ValueError: a tensor that the body lacks, one of its own that the classifier lacks, or another shape.
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
