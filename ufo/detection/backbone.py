"""From a net to the feature maps that a detector reads: four taps, four strides, one pyramid.

Dimension letters: B batch, C width of a tap, F width of the pyramid; an image is H x W.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ufo.blocks import Block
from ufo.init import keyed_seed
from ufo.model import UFOViT

STRIDES = (4, 8, 16, 32)
"""Pixels of an image's side for each pixel of the four maps that the pyramid is built from."""

BatchNorms = Literal["frozen", "sync"]

BATCH_NORMS: tuple[BatchNorms, ...] = ("frozen", "sync")
"""What becomes of a body's BatchNorms: they keep their statistics and factors, or take those of the batch, of all
devices together."""


class Body(nn.Module):
    """What a detector's features come from: images (B, in_chans, H, W) to four maps (B, C, H / stride, W / stride).

    Args:
        widths: C of each map.
        strides: of each map; powers of two.
    """

    def __init__(self, *, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != len(STRIDES) or len(strides) != len(STRIDES):
            raise ValueError(f"a body gives {len(STRIDES)} maps, not {len(widths)} widths and {len(strides)} strides")
        for stride in strides:
            if stride < 1 or stride & (stride - 1) or stride > STRIDES[-1]:
                raise ValueError(f"a stride is a power of two up to {STRIDES[-1]}, not {stride}")
        self.widths, self.strides = tuple(widths), tuple(strides)


class UFOBody(Body):
    """The tokens of a UFO-ViT after four of its blocks, as images: no class token, and no LayerNorm at the end.

    The residual stream is tapped as it is (XCiT's detection code, arXiv 2106.09681). Images of another size than the
    net's have its positions interpolated.

    Args:
        net: with ``class_attention=0`` and ``num_classes=0``; its last LayerNorm, which nothing reads, is taken away.

    Attributes:
        start: what its weights were taken from, in words; empty where its seed gave them.

    Raises:
        ValueError: the net has a class token or a head; or its patch is no power of two, or above 32.
    """

    def __init__(self, net: UFOViT) -> None:
        if net.cls_token is not None or not isinstance(net.head, nn.Identity):
            raise ValueError("a detector's UFO-ViT has no class token and no head: class_attention=0, num_classes=0")
        block = net.blocks[0]
        assert isinstance(block, Block)
        super().__init__(
            widths=[block.attn_norm.normalized_shape[0]] * len(STRIDES), strides=[net.patch] * len(STRIDES)
        )
        net.norm = nn.Identity()  # type: ignore[assignment]  # parameters that would get no gradient
        self.start = ""
        self.net = net
        self.taps = tap_blocks(len(net.blocks))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, in_chans, H, W), multiples of the patch, to four maps (B, C, H / patch, W / patch)."""
        rows = self.net.rows_by_block(images, None)
        x, grid = self.net.embed(images)  # (B, N, C)
        maps: dict[int, Tensor] = {}
        for number, block in enumerate(self.net.blocks, start=1):
            x = block(x, grid, next(rows))
            if number in self.taps:
                maps[number] = x.unflatten(1, grid).permute(0, 3, 1, 2)  # (B, C, H / patch, W / patch), a view
        return [maps[number] for number in self.taps]


def tap_blocks(depth: int) -> tuple[int, ...]:
    """Return the blocks after which a net is tapped, counted from 1: a third, a half, two thirds, all of them.

    XCiT's for 12 and 24 blocks (its blocks 3, 5, 7, 11 counted from 0); a shallow net is tapped twice in one place.

    >>> tap_blocks(12), tap_blocks(24), tap_blocks(3)
    ((4, 6, 8, 12), (8, 12, 16, 24), (1, 2, 2, 3))
    """
    return tuple(max(1, (2 * depth * over + under) // (2 * under)) for over, under in ((1, 3), (1, 2), (2, 3), (1, 1)))


class PyramidBackbone(nn.Module):
    """A body, its maps brought to the strides 4, 8, 16 and 32, and a feature pyramid over them.

    A map of a coarser stride goes through transposed 2 x 2 convolutions, with BatchNorm and GELU between two of them;
    one of a finer stride through a max-pool (XCiT's detection code). An image of any size is padded with zeros, right
    and below, to a multiple of 32, and so of the patch. What torchvision's detectors ask of a backbone.

    Args:
        body: with its first weights.
        fpn_dim: F.
        batch_norm: ``frozen`` or ``sync``, of the body; what stands between it and the pyramid is new, and takes the
            batch's statistics (XCiT's detection code).
        seed: of the first weights of all that is not the body; the global generator is left alone.

    Attributes:
        out_channels: F.

    Raises:
        ValueError: no such way with BatchNorms, or one of the body that does more than to normalise.
    """

    def __init__(self, body: Body, *, fpn_dim: int, batch_norm: BatchNorms, seed: int) -> None:
        super().__init__()
        if batch_norm not in BATCH_NORMS:
            raise ValueError(f"batch_norm is one of {', '.join(BATCH_NORMS)}, not '{batch_norm}'")
        levels = zip(body.widths, body.strides, STRIDES, strict=True)
        with drawn_for(seed, "neck"):
            neck = [_resample(width, stride=stride, wanted=wanted) for width, stride, wanted in levels]
        with drawn_for(seed, "fpn"):
            self.fpn = FeaturePyramidNetwork(list(body.widths), fpn_dim, extra_blocks=LastLevelMaxPool())
        self.body, self.neck = body, nn.ModuleList(neck)
        self.out_channels = fpn_dim
        replace_batch_norms(self.body, batch_norm)
        replace_batch_norms(self.neck, "sync")

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map (B, in_chans, H, W) to the pyramid's maps by name: ``0`` to ``3`` of stride 4 to 32, ``pool`` of 64.

        Each is (B, F, H / stride, W / stride), with H and W padded to multiples of 32.
        """
        H, W = images.shape[2:]
        images = F.pad(images, (0, -W % STRIDES[-1], 0, -H % STRIDES[-1]))
        maps = [resample(tap) for resample, tap in zip(self.neck, self.body(images), strict=True)]
        pyramid: OrderedDict[str, Tensor] = self.fpn(OrderedDict((str(level), x) for level, x in enumerate(maps)))
        return pyramid


def replace_batch_norms(module: nn.Module, batch_norm: BatchNorms) -> None:
    """Put a BatchNorm that is frozen, or synchronised, in the place of each one below a module.

    Of timm's BatchNorms with a dropout and an activation in them, these stay behind it.

    Raises:
        ValueError: one that does more, and would do it no longer.
    """
    for name, child in module.named_children():
        if not isinstance(child, nn.BatchNorm2d):
            replace_batch_norms(child, batch_norm)
            continue
        norm = _replaced(child, batch_norm)
        if type(child) is not nn.BatchNorm2d:
            after = [getattr(child, part, None) for part in ("drop", "act")]  # in this order in timm's
            if not all(isinstance(part, nn.Module) for part in after):
                raise ValueError(f"a {type(child).__name__} does more than to normalise: it can be no {batch_norm} one")
            norm = nn.Sequential(norm, *after)  # type: ignore[arg-type]
        setattr(module, name, norm)


def _replaced(norm: nn.BatchNorm2d, batch_norm: BatchNorms) -> nn.Module:
    if batch_norm == "sync":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
        return converted
    frozen = FrozenBatchNorm2d(norm.num_features, eps=norm.eps)
    held = {name: tensor for name, tensor in norm.state_dict().items() if name in frozen.state_dict()}
    frozen.load_state_dict(held)
    return frozen


@contextlib.contextmanager
def drawn_for(seed: int, part: str) -> Iterator[None]:
    """Let library code draw a part's first weights from the global CPU generator, keyed, and leave that as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_seed(seed, "init", part))
        yield


def _resample(width: int, *, stride: int, wanted: int) -> nn.Module:
    """Bring a map from one stride to another; both are powers of two."""
    if stride == wanted:
        return nn.Identity()
    if stride < wanted:
        return nn.MaxPool2d(wanted // stride)
    layers: list[nn.Module] = []
    for _ in range((stride // wanted).bit_length() - 1):
        layers += [nn.ConvTranspose2d(width, width, 2, stride=2), nn.BatchNorm2d(width), nn.GELU()]
    return nn.Sequential(*layers[:-2])
