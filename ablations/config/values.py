"""Values of a cell's fields as they are written, on the command line and in files."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from ablations.config.cell import FIELDS
from ablations.config.errors import UsageError, message_of, shown
from ablations.config.escape import is_readable, visible
from ablations.config.limits import MOST_VALUE, check_num_values
from ufo.registry import unknown_name

MOST_VALUES = 10_000
"""Largest number of values in a range."""

MOST_DIGITS = 100
"""Longest number in a range, in digits."""


def value_name(value: Any) -> str:
    """Write a value as it is read.

    >>> value_name("xnorm"), value_name(0.001), value_name(True), value_name(None)
    ('xnorm', '0.001', 'on', 'none')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def plural(count: int, noun: str) -> str:
    """Write a number of things.

    >>> plural(1, "seed"), plural(2, "seed")
    ('1 seed', '2 seeds')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Write a time in short.

    >>> duration(0.2), duration(90), duration(600), duration(9000)
    ('1 s', '90 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def check_field(name: str) -> None:
    """Check that a field exists and may be asked for.

    Raises:
        UsageError: it does not; the message has the nearest match.
    """
    fields = [field.name for field in FIELDS.values() if not field.traits.is_derived]
    if name not in fields:
        raise UsageError(str(unknown_name("field", name, sorted(fields))))


def parse_values(field: str, text: str, *, may_repeat: bool = False) -> list[Any]:
    """Read one value, a comma list, or a range of integers (``0-3``) of a field.

    Args:
        may_repeat: whether a value may come twice, as in zipped fields.

    Raises:
        UsageError: unknown field, a value that it cannot have, or a value given twice.

    >>> parse_values("lr", "1e-3,0.003"), parse_values("depth", "2-4,8"), parse_values("lpi", "on,off")
    ([0.001, 0.003], [2, 3, 4, 8], [True, False])
    """
    return parse_list(field, text.split(","), may_repeat=may_repeat)


def parse_list(field: str, entries: Sequence[Any], *, may_repeat: bool = False) -> list[Any]:
    """Read the entries of a list: each text as a part of a comma list is read.

    Raises:
        UsageError: as in `parse_values`.

    >>> parse_list("depth", ["2-4", 8]), parse_list("train_limit", ["none", 100]), parse_list("classes", ["cat", "dog"])
    ([2, 3, 4, 8], [None, 100], ['cat+dog'])
    """
    check_field(field)
    joins = FIELDS[field].traits.joins
    if joins is not None and all(isinstance(entry, str) for entry in entries):
        entries = joins(entries)
    values: list[Any] = []
    for entry in entries:
        values += _parse_part(field, entry.strip()) if isinstance(entry, str) else [entry]
        check_num_values(field, len(values))
    return check_values(field, values, may_repeat=may_repeat)


def check_values(field: str, values: list[Any], *, may_repeat: bool = False) -> list[Any]:
    """Validate the values of an axis.

    Args:
        may_repeat: whether a value may come twice, as in zipped fields.

    Returns:
        The values, converted to the field's type.

    Raises:
        UsageError: unknown field, no value, a value that the field cannot have, or a value given twice.
    """
    check_field(field)
    if not values:
        raise UsageError(f"{field}: give at least one value")
    checked = []
    for value in values:
        if isinstance(value, bool) and bool not in types_of(field):
            raise UsageError(f"{field}={value}: must be a number or a name")
        if isinstance(value, str) and field != "classes" and len(value) > MOST_VALUE:  # whose type has its own bound
            raise UsageError(f"{field}={shown(value)}: it has more than {MOST_VALUE:,} characters")
        if isinstance(value, str) and not is_readable(value):
            raise UsageError(f"{field}={visible(shown(value))}: it has bytes that are no characters; write it in UTF-8")
        try:
            checked.append(FIELDS[field].adapter.validate_python(value))
        except ValidationError as error:
            raise UsageError(f"{field}={shown(value)}: {message_of(error.errors())}") from None
    seen = set[Any]()
    for value in checked if not may_repeat else ():
        if value in seen:
            raise UsageError(f"{field}={value_name(value)} is given twice")
        seen.add(value)
    return checked


def number_type(field: str) -> type[int] | type[float] | None:
    """Return the type of a field's numbers; None if it takes no numbers, or truth values too."""
    kinds = types_of(field)
    return None if bool in kinds else float if float in kinds else int if int in kinds else None


def types_of(field: str) -> set[Any]:
    """Return the types that a field's values may have."""

    def leaves(annotation: Any) -> set[Any]:
        if typing.get_origin(annotation) is typing.Annotated:
            return leaves(annotation.__origin__)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            return set().union(*map(leaves, typing.get_args(annotation)))
        return {annotation}

    return leaves(FIELDS[field].info.annotation)


def _parse_part(field: str, part: str) -> list[Any]:
    first, dash, last = part.partition("-")
    if dash and first.isdecimal() and last.isdecimal() and int in types_of(field):
        if max(len(first), len(last)) > MOST_DIGITS:
            raise UsageError(f"{field}={shown(part)}: its numbers have more than {MOST_DIGITS} digits")
        if int(last) < int(first):
            raise UsageError(f"{field}={part}: the range runs backwards")
        if int(last) - int(first) >= MOST_VALUES:
            raise UsageError(f"{field}={part}: the range has more than {MOST_VALUES:,} values")
        return list(range(int(first), int(last) + 1))
    if part.lower() == "none" and types.NoneType in types_of(field):
        return [None]
    return [part]
