"""Values of a cell's fields and ranges of a search, as options give them: text or Python values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablations.config.declare import Values
from ablations.config.errors import UsageError
from ablations.config.limits import check_num_values
from ablations.config.parsing import class_names
from ablations.config.search import EXAMPLE, Search, parse_search
from ablations.config.values import check_values, parse_list, parse_values


def read_values(field: str, value: Values, *, may_repeat: bool = False) -> list[Any]:
    """Read values of a cell's field.

    Args:
        may_repeat: whether a value may come twice, as in zipped fields.

    Raises:
        UsageError: an unknown field, or a value that it cannot have.
    """
    if isinstance(value, str):
        is_file = field == "classes" and value.startswith("@")
        return parse_list(field, [class_names(value)]) if is_file else parse_values(field, value, may_repeat=may_repeat)
    if not isinstance(value, Sequence):
        return check_values(field, [value])
    check_num_values(field, len(value))
    return parse_list(field, value, may_repeat=may_repeat)


def read_fields(given: Mapping[str, Values] | Sequence[str] | None) -> dict[str, list[Any]]:
    """Read values of any fields, which may repeat: by field, or texts ``FIELD=VALUE``; None: no fields.

    Raises:
        ValueError: neither a mapping nor a list of texts.
        UsageError: a text without a value, a field that comes twice, ``seed``, or anything that `read_values` refuses.
    """
    found: dict[str, list[Any]] = {}
    for field, value in _pairs({} if given is None else given):
        if field in found:
            raise UsageError(f"{field} is given twice")
        if field == "seed":
            raise UsageError("seed is not set as a field: give seeds")
        found[field] = read_values(field, value, may_repeat=True)
    return found


def _pairs(given: object) -> Iterable[tuple[str, Values]]:
    """Give each field with its value."""
    if isinstance(given, Mapping):
        return given.items()
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        raise ValueError("give a mapping of fields to values, or a list of texts FIELD=VALUE")
    return map(_split_setting, given)


def _split_setting(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: write FIELD=VALUE or FIELD=VALUE,VALUE")
    return field, value


def read_search(value: str | Mapping[str, Any] | Search) -> Search:
    """Read the ranges of a search.

    Raises:
        UsageError: anything else.
    """
    if isinstance(value, Search):
        return value
    if not isinstance(value, (str, Mapping)):
        raise ValueError(f"give fields with their ranges, as {EXAMPLE}")
    return parse_search(value)
