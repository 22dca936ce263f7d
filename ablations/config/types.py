"""Types of a cell's fields: what a value may be, and the one text in which it is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

Task = Literal["classify", "detect"]
TASKS: tuple[Task, ...] = ("classify", "detect")

Name = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Count = Annotated[int, Field(ge=1, le=10**9)]
NotNegativeCount = Annotated[int, Field(ge=0)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
PositiveShare = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

JOINT = "+"
"""Joins the numbers, or the class names, of one value; a comma separates the values of an axis."""

COSINE = "cosine"


def matching(pattern: str, expected: str) -> AfterValidator:
    """Return a validator of texts that match a pattern; the error says what is expected."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {expected}")
        return value

    return AfterValidator(check)


def _as_numbers(value: Any) -> Any:
    """Write whole numbers in ascending order, joined by plus signs; leave anything else unchanged."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not re.fullmatch(r" *[0-9]+ *(\+ *[0-9]+ *)*", value):
        return value
    return JOINT.join(str(number) for number in sorted({int(part) for part in value.split(JOINT)}))


NUMBERS = r"[1-9][0-9]{0,8}(\+[1-9][0-9]{0,8})*"

Numbers = Annotated[
    str, BeforeValidator(_as_numbers), matching(NUMBERS, "whole numbers above 0, joined by + if there are several")
]
"""Whole numbers above 0, ascending, joined by plus signs."""

Schedule = Annotated[
    str, BeforeValidator(_as_numbers), matching(f"{COSINE}|{NUMBERS}", f"{COSINE}, or epochs above 0 joined by +")
]
"""``cosine``, or epochs joined by plus signs."""


def _as_classes(value: Any) -> Any:
    """Write a number as text, and class names in alphabetical order; leave anything else unchanged."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return value
    names = [name.strip() for name in value.split(JOINT)]
    return JOINT.join(sorted(set(names))) if all(names) else value


Classes = Annotated[
    str,
    BeforeValidator(_as_classes),
    StringConstraints(max_length=10**6),
    matching(r"0*[1-9][0-9]*|[^+]+(\+[^+]+)+", "a number of classes, or two or more names without a +"),
]
"""A number of classes, or their names in alphabetical order, joined by plus signs."""


def join_classes(parts: Sequence[str]) -> list[str]:
    """Join the values of ``classes``: a list of names is one value; of numbers or joined names, several.

    >>> join_classes(["10", "20"]), join_classes(["cat", "dog"]), join_classes(["cat+dog", "cat+cow"])
    (['10', '20'], ['cat+dog'], ['cat+dog', 'cat+cow'])
    """
    parts = [part.strip() for part in parts]
    if all(part.isdecimal() or JOINT in part or part.lower() == "none" for part in parts):
        return parts
    return [JOINT.join(parts)]
