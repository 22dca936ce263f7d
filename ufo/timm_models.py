"""UFO-ViT in timm's registry: after ``import ufo.timm_models``, ``timm.create_model("ufo_vit_s", norm="l2")``.

Only this import registers the models; ``import ufo`` does not need timm. Written for timm 1.0.31. Parameters have the
same names as in `ufo.build`, so weights are interchangeable.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import nn

from ufo.attention import CorePrecision
from ufo.layers import Lpi
from ufo.sizes import SIZES, Size

try:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.models import build_model_with_cfg, register_model

    from ufo.timm_net import TimmUFOViT
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "timm":
        raise
    raise ModuleNotFoundError("ufo.timm_models needs timm: pip install 'timm>=1.0.20'", name="timm") from None

__all__ = ["TimmUFOViT"]  # timm adds the models' names

default_cfgs = {
    size.name: {
        "url": "",  # no weights are published
        "num_classes": 1000,
        "input_size": (3, size.img_size, size.img_size),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "fixed_input_size": False,
        "first_conv": "patch_embed.0",
        "classifier": "head",
    }
    for size in SIZES.values()
}
"""Pretrained configurations, which timm looks up under this name."""


def _create(
    size: Size,
    pretrained: bool = False,
    *,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: Any = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    norm: str = "xnorm",
    num_classes: int = 1000,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    embed_dim: int | None = None,
    attn_dim: int | None = None,
    depth: int | None = None,
    num_heads: int | None = None,
    patch_embed: str = "conv",
    lpi: Lpi = True,
    ff_ratio: int = 4,
    pos_embed: str = "learned",
    class_attention: int | None = None,
    class_norm: str = "same",
    layer_scale: float | None = None,
    output_gate: bool = False,
    core_precision: CorePrecision = "own",
    global_pool: str | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    seed: int | None = None,
) -> nn.Module:
    make = functools.partial(build_model_with_cfg, TimmUFOViT, size.name, pretrained, pretrained_cfg=pretrained_cfg)
    make = functools.partial(make, pretrained_cfg_overlay=pretrained_cfg_overlay, cache_dir=cache_dir)
    return make(
        feature_cfg=_feature_cfg(features_only, out_indices, size.depth if depth is None else depth),
        features_only=features_only,
        norm=norm,
        num_classes=num_classes,
        in_chans=in_chans,
        img_size=size.img_size if img_size is None else img_size,
        patch_size=size.patch if patch_size is None else patch_size,
        embed_dim=size.embed_dim if embed_dim is None else embed_dim,
        attn_dim=size.attn_dim if attn_dim is None else attn_dim,
        depth=size.depth if depth is None else depth,
        num_heads=size.num_heads if num_heads is None else num_heads,
        patch_embed=patch_embed,
        lpi=lpi,
        ff_ratio=ff_ratio,
        pos_embed=pos_embed,
        class_attention=size.class_attention if class_attention is None else class_attention,
        class_norm=class_norm,
        layer_scale=layer_scale,
        output_gate=output_gate,
        core_precision=core_precision,
        global_pool=global_pool,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
        seed=seed,
    )


def _feature_cfg(features_only: bool, out_indices: int | Sequence[int] | None, depth: int) -> dict[str, Any]:
    if out_indices is not None and not features_only:
        raise ValueError("out_indices requires features_only=True")
    return {"out_indices": min(3, depth) if out_indices is None else out_indices, "feature_cls": "getter"}


def _register(size: Size) -> None:
    """Register a size in timm, whose registry holds one callable per model; sizes that are None are the model's own."""
    create = functools.partial(_create, size)
    vars(create).update(__module__=__name__, __name__=size.name, __qualname__=size.name)
    vars(create).update(__doc__=f"UFO-ViT, {size.checked}.")
    register_model(create)


for _size in SIZES.values():
    _register(_size)
