"""Matched output scale: a fixed gain at each attention layer gives its initial output the RMS of xnorm's.

The initial outputs of normalisers differ in scale by a factor of 1,000 and more, and some grow with the number of
tokens. With matched scales, two arms differ only in the function.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ufo.attention import ClassAttention, UFOAttention
from ufo.model import UFOViT


class UnmatchableError(ValueError):
    """Attention output that no gain can rescale: all zero, or not finite.

    Args:
        layer: name of the layer.
        rms: RMS of its output.
    """

    def __init__(self, layer: str, rms: float) -> None:
        super().__init__(f"the scale of {layer} cannot be matched: its output has an RMS of {rms:g}")
        self.rms = rms


def attention_layers(net: nn.Module) -> dict[str, UFOAttention | ClassAttention]:
    """Return a net's attention layers by name, in forward order."""
    return {name: module for name, module in net.named_modules() if isinstance(module, (UFOAttention, ClassAttention))}


@torch.no_grad()
def match_scale(net: UFOViT, twin: UFOViT, images: Tensor) -> dict[str, float]:
    """Set the gain of each attention layer so that its output has the RMS of the same layer in a twin.

    Both nets run one batch in training mode, with batch statistics and without drop path. Layers are matched in forward
    order, so that each one's input is final. Running statistics stay unchanged.

    Args:
        net: net to modify in place.
        twin: net with another normaliser and the same layers and weights outside it.
        images: (B, in_chans, height, width), normalised, on the nets' device.

    Returns:
        Layer name to its gain, > 0.

    Raises:
        UnmatchableError: an output of the net is all zero or not finite.
    """
    wanted: dict[str, Tensor] = {}
    gains: dict[str, float] = {}

    def note(layer: str, _attention: UFOAttention | ClassAttention, output: Tensor) -> None:
        wanted[layer] = rms(output)

    def match(layer: str, attention: UFOAttention | ClassAttention, output: Tensor) -> None:
        own = rms(output)
        if not (torch.isfinite(own) and own > 0):
            raise UnmatchableError(layer, own.item())
        attention.matched_gain = wanted[layer] / own  # set in the hook, before the layer applies it
        gains[layer] = attention.matched_gain.item()

    _forward(twin, images, note)
    for attention in attention_layers(net).values():
        attention.matched_gain = None
    _forward(net, images, match)
    return gains


def rms(x: Tensor) -> Tensor:
    """Return the root mean square, a scalar, computed in float32.

    >>> rms(torch.tensor([6.0, -8.0, 0.0, 0.0])).item()
    5.0
    """
    return x.detach().float().square().mean().sqrt()


def _forward(net: UFOViT, images: Tensor, seen: Callable[[str, UFOAttention | ClassAttention, Tensor], None]) -> None:
    """Run a batch in training mode, call ``seen`` on each normaliser's output, and restore the net."""
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
