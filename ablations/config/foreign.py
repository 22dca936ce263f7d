"""Nets of other libraries among the models: their names, and the fields of a cell that mean nothing to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.config.cell import CellConfig
from ablations.config.errors import UsageError

TIMM = "timm:"
"""What the name of a net from timm's registry begins with, as a value of ``model``."""

TORCHVISION = "torchvision:"
"""What the name of one of torchvision's ResNets begins with; they are backbones of detectors alone."""

OWN_FIELDS = frozenset(
    {
        *("norm", "patch", "patch_embed", "lpi", "class_attention", "layer_scale"),
        *("depth", "embed_dim", "attn_dim", "num_heads"),
        *("class_norm", "pos_embed", "ff_ratio", "change", "scale"),
    }
)
"""Fields that lay out UFO-ViT alone."""

SHARED_OUT = frozenset({"norm", "patch"})
"""Of these the ones that every UFO-ViT must have: beside a net of timm a single value of theirs goes to UFO-ViT."""


def is_timm(model: str) -> bool:
    """Tell whether a model is a net of timm's."""
    return model.startswith(TIMM)


def is_foreign(model: str) -> bool:
    """Tell whether a model is another library's.

    >>> is_foreign("timm:xcit_small_12_p16_224"), is_foreign("torchvision:resnet50"), is_foreign("ufo_vit_s")
    (True, True, False)
    """
    return model.startswith((TIMM, TORCHVISION))


def check_own_fields(asked: Mapping[str, list[Any]]) -> None:
    """Refuse fields that would have no effect on a net of timm's.

    One normaliser and one patch may be asked for where UFO-ViT is among the models too: they are UFO-ViT's.

    Args:
        asked: values of each field that was named.

    Raises:
        UsageError: such a field, and what to do.
    """
    models = asked.get("model", [])
    foreign = [model for model in models if is_foreign(model)]
    if not foreign:
        return
    has_own = len(foreign) < len(models)
    for field in sorted(OWN_FIELDS & asked.keys()):
        values = asked[field]
        info = CellConfig.model_fields.get(field)
        is_plain = info is not None and not info.is_required() and values == [info.default]
        if is_plain or (len(values) == 1 and field in SHARED_OUT and (has_own or values == ["xnorm"])):
            continue
        shown = ",".join(str(value) for value in values)
        raise UsageError(
            f"{field}={shown} means nothing to {foreign[0]}: leave it out (the models are arms with "
            f"--compare model), or give it in a study without nets of timm"
        )


def without_own_fields(asked: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Leave out what UFO-ViT's defaults have put into the record of a study that has nets of timm's alone."""
    alone = all(map(is_foreign, asked.get("model", [""])))
    return {field: values for field, values in asked.items() if not (alone and field in OWN_FIELDS)}
