"""Values of an annotation file: checked, and counted if COCO would write them otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablations.config import UsageError
from ablations.config.escape import is_readable

LARGEST = 2**63
"""Bound on the absolute value of a number."""

LARGEST_EXACT = 2**53
"""Bound on the absolute value of a float that stands for one integer only."""

MOST_CHARACTERS = 1000
"""Longest text, in characters."""

TEXT = f"a text of at most {MOST_CHARACTERS:,} whole characters"

WHOLE = "a whole number within 64 bits"

DIGITS = re.compile(r"\s*[+-]?\d{1,19}(\.0*)?\s*", re.ASCII)
"""Text of a whole number."""


@dataclass
class Converted:
    """Values of one key that are written otherwise than in COCO.

    Args:
        first: the first entry and its value, in words.
        count: number of such values.
    """

    first: str
    count: int = 0


class Values:
    """Checked values of the records of one annotation file.

    Whole numbers may be floats (pandas writes ``1.0``) or text; `notes` counts them.

    Args:
        file: name of the file.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._converted: dict[tuple[str, str], Converted] = {}

    def whole(self, record: Any, key: str, entry: str) -> int:
        """Return the integer of a record.

        Args:
            record: record of the file.
            key: key of the value.
            entry: kind and name of the record, such as ``image 7``.

        Raises:
            UsageError: no record, no value, or another value.
        """
        value = self.value(record, key, entry, WHOLE)
        if type(value) is int and abs(value) < LARGEST:
            return value
        number = as_whole(value)
        if number is None:
            raise self.invalid(entry, key, value, WHOLE)
        return self._count(number, key, entry, value)

    def flag(self, record: Mapping[str, Any], key: str, entry: str) -> bool:
        """Return the flag of a record, 0 or 1; False without one.

        Raises:
            UsageError: another value.
        """
        value = record.get(key, 0)
        if type(value) is int and value in (0, 1):
            return value == 1
        number = int(value or 0) if isinstance(value, bool | None) else as_whole(value)
        if number not in (0, 1):
            raise self.invalid(entry, key, value, "0 or 1")
        return self._count(number, key, entry, value) == 1

    def integers(self, numbers: list[Any], key: str, entry: str) -> list[int | None]:
        """Return the integers that numbers stand for, None for one that stands for none; counted as one value."""
        found = [as_whole(number) for number in numbers]
        odd = [number for number in numbers if type(number) is not int]
        if odd and None not in found:
            self._count(0, key, entry, odd[0])
        return found

    def text(self, record: Any, key: str, entry: str) -> str:
        """Return the text of a record.

        Raises:
            UsageError: no record, no value, or another value.
        """
        value = self.value(record, key, entry, TEXT)
        if not isinstance(value, str) or len(value) > MOST_CHARACTERS or not is_readable(value):
            raise self.invalid(entry, key, value, TEXT)
        return value

    def value(self, record: Any, key: str, entry: str, allowed: str) -> Any:
        """Return any value of a record.

        Raises:
            UsageError: no record, or no value.
        """
        if not isinstance(record, dict):
            raise UsageError(f"{self.file}: {entry} is not a record: {record!r:.60}; must have keys and values")
        if key not in record:
            raise UsageError(f"{self.file}: {entry} has no {key}; must be {allowed}")
        return record[key]

    def invalid(self, entry: str, key: str, value: Any, allowed: str) -> UsageError:
        """Return the error of a refused value, with what is allowed."""
        return UsageError(f"{self.file}: {entry}: invalid {key}: {value!r:.60}; must be {allowed}")

    def notes(self) -> list[str]:
        """Return a line about the values that are written otherwise than in COCO; none without any."""
        parts = [
            f"{key} of {count_text(each.count, what)} ({each.first})" for (what, key), each in self._converted.items()
        ]
        return [f"{self.file}: taken as whole numbers: {', '.join(parts)}"] if parts else []

    def _count(self, number: int, key: str, entry: str, value: Any) -> int:
        what = entry.partition(" ")[0]
        first = Converted(f"the first is {json.dumps(value):.60} in {entry}")
        self._converted.setdefault((what, key), first).count += 1
        return number


def as_whole(value: Any) -> int | None:
    """Return the integer that a value stands for; None if it stands for none.

    >>> as_whole(1.0), as_whole(" 7"), as_whole("7.0"), as_whole(1.5), as_whole(True), as_whole("a7")
    (1, 7, 7, None, None, None)
    """
    number: int | None = None
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_EXACT:
        number = int(value)
    elif isinstance(value, str) and DIGITS.fullmatch(value):
        number = int(value.partition(".")[0])
    elif type(value) is int:
        number = value
    return number if number is not None and abs(number) < LARGEST else None


def is_number(value: Any) -> bool:
    """Tell whether a value is a number within 64 bits.

    >>> is_number(1), is_number(0.5), is_number(True), is_number(float("nan")), is_number("1"), is_number(10**400)
    (True, True, False, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def count_text(count: int, noun: str) -> str:
    """Write a number of things.

    >>> count_text(1, "box"), count_text(2000, "box"), count_text(2, "category"), count_text(2, "image")
    ('1 box', '2,000 boxes', '2 categories', '2 images')
    """
    plural = {"box": "boxes", "category": "categories"}.get(noun, f"{noun}s")
    return f"{count:,} {noun if count == 1 else plural}"
