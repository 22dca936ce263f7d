"""Errors that end a command, and validation errors as one line."""

from __future__ import annotations

import re
import reprlib

from pydantic import ValidationError

MOST_SHOWN = 100
"""Characters of a text that a message shows in full."""


class UsageError(ValueError):
    """Report a mistake of the user; the message is one line with the value and the fix."""


class RunStopped(Exception):
    """Stop a run: no more cells are started, finished cells are kept. The message says why."""


class Interrupted(BaseException):
    """Stop because the user or the system asked for it; finished cells are kept.

    Not an Exception, so that code that catches a cell's or a library's errors does not catch it.
    """


def first_error(error: ValidationError, *, groups: tuple[str, ...] = ()) -> str:
    """Format a validation error as one line: field, value, reason.

    Args:
        error: Validation error.
        groups: Names of nested models, which are left out of the field's name.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in groups)
    if first["type"] == "missing":
        return f"{where} is required"
    return f"{where}={shown(first.get('input'))}: {message_of(error)}" if where else message_of(error)


def message_of(error: ValidationError) -> str:
    """Say why a value is refused; every reason, if the field has several types."""
    messages = dict.fromkeys(each["msg"].removeprefix("Value error, ") for each in error.errors())
    return ", or ".join(re.sub("^(Input|String) should", "must", text.partition(", unable")[0]) for text in messages)


def shown(value: object) -> str:
    """Write a refused value, shortened if it is long.

    >>> shown("fast"), shown(""), shown(None)
    ('fast', "''", 'None')
    """
    return value if isinstance(value, str) and value.strip() and len(value) < MOST_SHOWN else reprlib.repr(value)
