"""Backbone of a detector: four maps of a net, resampled to four strides, and a feature pyramid over them.

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
"""Strides of the pyramid's four input maps, in image pixels."""

BatchNorms = Literal["frozen", "sync"]

BATCH_NORMS: tuple[BatchNorms, ...] = ("frozen", "sync")
"""Treatment of a body's BatchNorms: fixed statistics and factors, or batch statistics synchronised over devices."""


class Body(nn.Module):
    """Base of feature extractors: images (B, in_chans, H, W) to four maps (B, C, H / stride, W / stride).

    Args:
        widths: C of each map.
        strides: stride of each map, a power of two up to 32.

    Raises:
        ValueError: there are not four widths and strides, or a stride is invalid.
    """

    def __init__(self, *, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != len(STRIDES) or len(strides) != len(STRIDES):
            raise ValueError(f"a body needs {len(STRIDES)} maps, got {len(widths)} widths and {len(strides)} strides")
        for stride in strides:
            if stride < 1 or stride & (stride - 1) or stride > STRIDES[-1]:
                raise ValueError(f"a stride must be a power of two up to {STRIDES[-1]}, got {stride}")
        self.widths, self.strides = tuple(widths), tuple(strides)


class UFOBody(Body):
    """Feature extractor of the patch tokens after four blocks of a UFO-ViT, as maps.

    The residual stream is used without LayerNorm (XCiT's detection code, arXiv 2106.09681). Positions are interpolated
    to the image size.

    Args:
        net: net with ``class_attention=0`` and ``num_classes=0``; its last LayerNorm, which is unused, is removed.

    Attributes:
        start: source of the weights, in words; empty for initial weights.

    Raises:
        ValueError: the net has a class token or a head, or its patch is not a power of two up to 32.
    """

    def __init__(self, net: UFOViT) -> None:
        if net.cls_token is not None or not isinstance(net.head, nn.Identity):
            raise ValueError("a detector's UFO-ViT has neither class token nor head: class_attention=0, num_classes=0")
        block = net.blocks[0]
        assert isinstance(block, Block)
        super().__init__(
            widths=[block.attn_norm.normalized_shape[0]] * len(STRIDES), strides=[net.patch] * len(STRIDES)
        )
        net.norm = nn.Identity()  # type: ignore[assignment]  # its parameters would receive no gradient
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
    """Return the blocks whose outputs a detector reads, counted from 1: at 1/3, 1/2, 2/3 and all of the depth.

    They are XCiT's for 12 and 24 blocks (blocks 3, 5, 7, 11 counted from 0). A shallow net may repeat a block.

    >>> tap_blocks(12), tap_blocks(24), tap_blocks(3)
    ((4, 6, 8, 12), (8, 12, 16, 24), (1, 2, 2, 3))
    """
    return tuple(max(1, (2 * depth * over + under) // (2 * under)) for over, under in ((1, 3), (1, 2), (2, 3), (1, 1)))


class PyramidBackbone(nn.Module):
    """Backbone for torchvision's detectors: a body, its maps resampled to strides 4, 8, 16 and 32, and a pyramid.

    Transposed 2 x 2 convolutions, with BatchNorm and GELU between them, upsample a map; a max-pool downsamples it
    (XCiT's detection code). Images are padded with zeros at the right and bottom to a multiple of 32, and hence of the
    patch.

    Args:
        body: initialised body.
        fpn_dim: F.
        batch_norm: ``frozen`` or ``sync`` for the body; the resampling layers are new and always ``sync`` (XCiT's
            detection code).
        seed: seed of the initial weights outside the body; the global generator's state is unchanged.

    Attributes:
        out_channels: F.

    Raises:
        ValueError: batch_norm is unknown, or a BatchNorm of the body has unsupported extra layers.
    """

    def __init__(self, body: Body, *, fpn_dim: int, batch_norm: BatchNorms, seed: int) -> None:
        super().__init__()
        if batch_norm not in BATCH_NORMS:
            raise ValueError(f"batch_norm must be one of {', '.join(BATCH_NORMS)}, got '{batch_norm}'")
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
        """Map (B, in_chans, H, W) to the pyramid's maps: ``0`` to ``3`` of stride 4 to 32, and ``pool`` of stride 64.

        Each map is (B, F, H / stride, W / stride), with H and W padded to multiples of 32.
        """
        H, W = images.shape[2:]
        images = F.pad(images, (0, -W % STRIDES[-1], 0, -H % STRIDES[-1]))
        maps = [resample(tap) for resample, tap in zip(self.neck, self.body(images), strict=True)]
        pyramid: OrderedDict[str, Tensor] = self.fpn(OrderedDict((str(level), x) for level, x in enumerate(maps)))
        return pyramid


def replace_batch_norms(module: nn.Module, batch_norm: BatchNorms) -> None:
    """Replace every BatchNorm in a module by a frozen or synchronised one.

    The dropout and activation inside timm's BatchNorms are kept after it.

    Raises:
        ValueError: a BatchNorm subclass has other extra layers, which would be lost.
    """
    for name, child in module.named_children():
        if not isinstance(child, nn.BatchNorm2d):
            replace_batch_norms(child, batch_norm)
            continue
        norm = _replaced(child, batch_norm)
        if type(child) is not nn.BatchNorm2d:
            after = [getattr(child, part, None) for part in ("drop", "act")]  # in timm's order
            if not all(isinstance(part, nn.Module) for part in after):
                raise ValueError(f"a {type(child).__name__} does more than normalise: it cannot be made {batch_norm}")
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
    """Seed the global CPU generator for a part's initial weights, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_seed(seed, "init", part))
        yield


def _resample(width: int, *, stride: int, wanted: int) -> nn.Module:
    """Build the layers that resample a map from one stride to another; both are powers of two."""
    if stride == wanted:
        return nn.Identity()
    if stride < wanted:
        return nn.MaxPool2d(wanted // stride)
    layers: list[nn.Module] = []
    for _ in range((stride // wanted).bit_length() - 1):
        layers += [nn.ConvTranspose2d(width, width, 2, stride=2), nn.BatchNorm2d(width), nn.GELU()]
    return nn.Sequential(*layers[:-2])
