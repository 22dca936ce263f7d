"""Values of a cell's fields as they are written, on the command line and in files."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ablations.config.cell import CLASS_JOINT, NEVER_ASKED, CellConfig, message_of
from ablations.config.errors import UsageError
from ufo.registry import unknown_name

MOST_VALUES = 10_000
"""Of one axis: as many as a range may have."""


def value_name(value: Any) -> str:
    """Write a value as it is read.

    >>> value_name("xnorm"), value_name(0.001), value_name(True), value_name(None)
    ('xnorm', '0.001', 'on', 'none')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def plural(count: int, noun: str) -> str:
    """Count things.

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
    fields = [field for field in CellConfig.model_fields if field not in NEVER_ASKED]
    if name not in fields:
        raise UsageError(str(unknown_name("field", name, sorted(fields))))


def parse_values(field: str, text: str) -> list[Any]:
    """Read one value, a comma list, or a range of integers (``0-3``) for a field.

    Raises:
        UsageError: no such field, a value of another type, or one that comes twice.

    >>> parse_values("lr", "1e-3,0.003"), parse_values("depth", "2-4,8"), parse_values("lpi", "on,off")
    ([0.001, 0.003], [2, 3, 4, 8], [True, False])
    """
    check_field(field)
    values: list[Any] = []
    for part in _split_classes(text) if field == "classes" else text.split(","):
        values += _parse_part(field, part.strip())
    return check_values(field, values)


def check_values(field: str, values: list[Any]) -> list[Any]:
    """Check an axis: its values have the field's type, there is one at least, and none comes twice.

    Raises:
        UsageError: the value, and what is expected.
    """
    check_field(field)
    if not values:
        raise UsageError(f"{field}: at least one value is needed")
    adapter: TypeAdapter[Any] = TypeAdapter(_annotation(field))
    checked = []
    for value in values:
        if isinstance(value, bool) and not _takes(field, bool):
            raise UsageError(f"{field}: {value!r} does not fit, a number or a name is needed")
        try:
            checked.append(adapter.validate_python(value))
        except ValidationError as error:
            raise UsageError(f"{field}: {value!r} does not fit, {message_of(error)}") from None
    seen = set[Any]()
    for value in checked:
        if value in seen:
            raise UsageError(f"{field}: {value!r} is given twice")
        seen.add(value)
    return checked


def _split_classes(text: str) -> list[str]:
    """Part the values of ``classes``: a comma list of names is one value, of numbers or of joined names several.

    >>> _split_classes("10,20"), _split_classes("cat,dog"), _split_classes("cat+dog,cat+cow")
    (['10', '20'], ['cat+dog'], ['cat+dog', 'cat+cow'])
    """
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() or CLASS_JOINT in part or part.lower() == "none" for part in parts):
        return parts
    return [CLASS_JOINT.join(parts)]


def _parse_part(field: str, part: str) -> list[Any]:
    first, dash, last = part.partition("-")
    if dash and first.isdecimal() and last.isdecimal() and _takes(field, int):
        if int(last) < int(first):
            raise UsageError(f"{field}: the range {part} runs backwards")
        if int(last) - int(first) >= MOST_VALUES:
            raise UsageError(f"{field}: the range {part} has more than {MOST_VALUES:,} values")
        return list(range(int(first), int(last) + 1))
    if part.lower() == "none" and _takes(field, types.NoneType):
        return [None]
    return [part]


def _annotation(field: str) -> Any:
    return typing.get_type_hints(CellConfig, include_extras=True)[field]


def _takes(field: str, kind: type) -> bool:
    def flat(annotation: Any) -> list[Any]:
        inner = typing.get_args(annotation)
        return [annotation, *(leaf for part in inner for leaf in flat(part))]

    return kind in flat(_annotation(field))
