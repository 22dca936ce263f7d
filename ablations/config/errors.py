"""Errors that end a command, and validation errors as one line."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

MOST_SHOWN = 100
"""Characters of a text that a message shows in full."""


class UsageError(ValueError):
    """Report a mistake of the user; the message is one line with the value and the fix."""


class RunStopped(Exception):
    """Stop a run: no more cells are started, finished cells are kept. The message says why."""


class Detached(RunStopped):
    """The cells go on by themselves, in jobs of a cluster. The message says how to see them."""


class Interrupted(BaseException):
    """Stop because the user or the system asked for it; finished cells are kept.

    Not an Exception, so that code that catches a cell's or a library's errors does not catch it.
    """


def one_line(error: BaseException) -> str:
    """Return an error's message with its lines joined."""
    return " ".join(str(error).split())


def first_error(error: ValidationError, *, groups: tuple[str, ...] = ()) -> str:
    """Format a validation error as one line: field, value, reason.

    Args:
        error: validation error.
        groups: names of nested models, which are left out of the field's name.
    """
    first, *_ = errors = error.errors()
    parts = [str(part) for part in first["loc"] if part not in groups]
    where, depth = ".".join(parts), len(first["loc"]) - len(parts) + 1
    if first["type"] == "missing":
        return f"{where} is required"
    reasons = message_of(each for each in errors if each["loc"][:depth] == first["loc"][:depth])
    return f"{where}={shown(first.get('input'))}: {reasons}" if where else reasons


def message_of(errors: Iterable[Mapping[str, object]]) -> str:
    """Say why a value is refused; every reason, if it may have several types."""
    messages = dict.fromkeys(str(each["msg"]).removeprefix("Value error, ") for each in errors)
    shorter = (re.sub("^(Input|String) should", "must", text.partition(", unable")[0]) for text in messages)
    shorter = (text.replace("must be a valid boolean", "must be on or off") for text in shorter)
    return ", or ".join(text[0].lower() + text[1:] for text in shorter)


def shown(value: object) -> str:
    """Write a refused value, shortened if it is long.

    >>> shown("fast"), shown(""), shown(None)
    ('fast', "''", 'None')
    """
    return value if isinstance(value, str) and value.strip() and len(value) < MOST_SHOWN else reprlib.repr(value)
