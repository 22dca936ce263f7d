"""One change of the net per arm, which makes an ablation of several parts one comparison."""

from __future__ import annotations

from typing import Any

from ablations.config.cell import FIELDS, CellConfig
from ablations.config.errors import UsageError
from ablations.config.values import parse_values, value_name
from ufo.registry import unknown_name
from ufo.sizes import SIZES

NONE = "none"


def apply_change(config: CellConfig) -> CellConfig:
    """Return a cell with its ``change`` applied."""
    if config.net.change == NONE:
        return config
    field, value = parse_change(config.net.change)
    return config.model_copy(update={field: value, "change": NONE})


def parse_change(change: str) -> tuple[str, Any]:
    """Parse ``FIELD=VALUE``.

    Raises:
        UsageError: a field that is not part of the net, or a value that it cannot have.

    >>> parse_change("lpi=off")
    ('lpi', False)
    """
    field, _, text = change.partition("=")
    changeable = [known.name for known in FIELDS.values() if known.traits.one_change]
    if field not in changeable:
        raise UsageError(f"change={change}: {unknown_name('part of the net', field, changeable)}")
    values = parse_values(field, text)
    if len(values) != 1 or values[0] is None:
        raise UsageError(f"change={change}: give one value of {field}")
    return field, values[0]


def check_change(config: CellConfig) -> None:
    """Reject a change that has no effect or is not in canonical form, which is the name of its arm.

    Raises:
        UsageError: a value that the cell has already, or a change that cannot be parsed.
    """
    net = config.net
    if net.change == NONE:
        return
    field, value = parse_change(net.change)
    if net.change != (name := f"{field}={value_name(value)}"):
        raise UsageError(f"change={net.change}: write {name}")
    own = config[field]
    if own is None and net.model in SIZES:
        own = getattr(SIZES[net.model], field, None)
    if own == value and type(own) is type(value):
        raise UsageError(f"change={net.change}: {net.model} has {field}={value_name(own)} already; give another")
