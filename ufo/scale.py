"""One scale for every arm: a fixed gain at each attention layer that gives its output the RMS of xnorm's at the start.

The normalisers differ in the size of what they give, at the start by a factor of 1,000 and more, and for some it grows
with the number of tokens. With the size matched, what is left between two arms is the function.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ufo.attention import ClassAttention, UFOAttention
from ufo.model import UFOViT


class UnmatchableError(ValueError):
    """An attention output whose size no gain can change: zero throughout, or no number.

    Args:
        layer: its name.
        rms: of its output.
    """

    def __init__(self, layer: str, rms: float) -> None:
        super().__init__(f"the scale of {layer} cannot be matched: its output has an RMS of {rms:g}")
        self.rms = rms


def attention_layers(net: nn.Module) -> dict[str, UFOAttention | ClassAttention]:
    """Return a net's attention layers by name, in the order in which an image passes them."""
    return {name: module for name, module in net.named_modules() if isinstance(module, (UFOAttention, ClassAttention))}


@torch.no_grad()
def match_scale(net: UFOViT, twin: UFOViT, images: Tensor) -> dict[str, float]:
    """Fix the gain of each attention layer so that its output has the RMS of the same layer's in a twin.

    Both nets see one batch as in training: with the batch's own statistics, and nothing dropped. A layer is matched
    behind layers that are matched already, so that its input is what it will be. Running statistics stay as they were.

    Args:
        net: whose gains are set, in place.
        twin: of the same layers and weights outside the normaliser, with another normaliser.
        images: (B, in_chans, height, width), normalised, on the nets' device.

    Returns:
        Each layer's gain.

    Raises:
        UnmatchableError: an output of the net that is zero throughout or no number.
    """
    wanted: dict[str, Tensor] = {}
    gains: dict[str, float] = {}

    def note(layer: str, _attention: UFOAttention | ClassAttention, output: Tensor) -> None:
        wanted[layer] = rms(output)

    def match(layer: str, attention: UFOAttention | ClassAttention, output: Tensor) -> None:
        own = rms(output)
        if not (torch.isfinite(own) and own > 0):
            raise UnmatchableError(layer, own.item())
        attention.matched_gain = wanted[layer] / own  # at once: the layer is about to apply it
        gains[layer] = attention.matched_gain.item()

    _forward(twin, images, note)
    for attention in attention_layers(net).values():
        attention.matched_gain = None
    _forward(net, images, match)
    return gains


def rms(x: Tensor) -> Tensor:
    """Return the root of the mean square, a scalar, computed in float32.

    >>> rms(torch.tensor([6.0, -8.0, 0.0, 0.0])).item()
    5.0
    """
    return x.detach().float().square().mean().sqrt()


def _forward(net: UFOViT, images: Tensor, seen: Callable[[str, UFOAttention | ClassAttention, Tensor], None]) -> None:
    """Take a batch through a net as in training, showing each normaliser's output; leave the net as it was."""
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    was_training, drop_path = net.training, net.drop_path

    def hook(layer: str, attention: UFOAttention | ClassAttention) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _norm, _inputs, output: seen(layer, attention, output)

    layers = attention_layers(net).items()
    handles = [attention.norm.register_forward_hook(hook(layer, attention)) for layer, attention in layers]
    net.drop_path = 0.0
    try:
        net.train()(images)
    finally:
        net.drop_path = drop_path
        net.train(was_training)
        for handle in handles:
            handle.remove()
        for name, buffer in buffers.items():
            net.get_buffer(name).copy_(buffer)
