"""One change each from a common net: what makes an ablation over several of its parts one comparison with arms."""

from __future__ import annotations

from typing import Any

from ablations.config.cell import CellConfig
from ablations.config.errors import UsageError
from ablations.config.values import parse_values, value_name
from ufo.registry import unknown_name
from ufo.sizes import SIZES

NONE = "none"

CHANGEABLE = (
    *("patch", "patch_embed", "pos_embed", "lpi", "ff_ratio", "class_attention", "class_norm", "layer_scale"),
    *("depth", "embed_dim", "attn_dim", "num_heads"),
)
"""Fields of the net that a change may name; the normaliser has a grid of its own."""


def apply_change(config: CellConfig) -> CellConfig:
    """Return a cell as its ``change`` makes it."""
    if config.change == NONE:
        return config
    field, value = parse_change(config.change)
    return config.model_copy(update={field: value, "change": NONE})


def parse_change(change: str) -> tuple[str, Any]:
    """Read ``FIELD=VALUE``.

    Raises:
        UsageError: a field that is no part of the net, or a value that it cannot have.

    >>> parse_change("lpi=off")
    ('lpi', False)
    """
    field, _, text = change.partition("=")
    if field not in CHANGEABLE:
        raise UsageError(f"change {change}: {unknown_name('part of the net', field, list(CHANGEABLE))}")
    values = parse_values(field, text)
    if len(values) != 1 or values[0] is None:
        raise UsageError(f"change {change}: give one value of {field}")
    return field, values[0]


def check_change(config: CellConfig) -> None:
    """Refuse a change that changes nothing, or that is not written in the one form that names its arm.

    Raises:
        UsageError: the cell's own value of the field is the change's already, or the change cannot be read.
    """
    if config.change == NONE:
        return
    field, value = parse_change(config.change)
    if config.change != (name := f"{field}={value_name(value)}"):
        raise UsageError(f"change {config.change}: write it {name}")
    own = getattr(config, field)
    if own is None and config.model in SIZES:
        own = getattr(SIZES[config.model], field, None)
    if own == value and type(own) is type(value):
        raise UsageError(f"change {config.change}: {config.model} has {field}={value_name(own)} already; give another")
