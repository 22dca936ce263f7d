"""Values of options, read from text or Python values: counts, times, memory, devices, names, numbers.

Each function but `sizes` accepts its own result. Its error says which values are allowed; the caller adds option and
value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ablations.config.errors import UsageError
from ablations.config.types import JOINT

UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
UNITS_MIB = {"MiB": 1.0, "GiB": 1024.0, "MB": 1e6 / 2**20, "GB": 1e9 / 2**20}

AUTO = "auto"


def count(value: Any, *, least: int = 1) -> int | None:
    """Read a number of things; None: ``auto``.

    >>> count("3"), count(2), count("auto")
    (3, 2, None)
    """
    if value is None or value == AUTO:
        return None
    if not re.fullmatch("[0-9]{1,9}", str(value)) or int(value) < least:
        raise ValueError(f"give auto or a number from {least} up")
    return int(value)


def whole(value: Any) -> int | None:
    """Read a whole number.

    >>> whole("-3"), whole(2)
    (-3, 2)
    """
    if value is None:
        return None
    if isinstance(value, bool) or not re.fullmatch("-?[0-9]{1,18}", str(value)):
        raise ValueError("give a whole number")
    return int(value)


def seconds(value: Any) -> float | None:
    """Read a time: a `timedelta`, seconds, or text with a unit.

    >>> seconds("1.5m"), seconds(90), seconds(timedelta(minutes=2))
    (90.0, 90.0, 120.0)
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return _quantity(value, {"": 1.0, **UNITS_S}, "90s, 30m or 2h")


def settings(value: Any) -> tuple[tuple[str, str], ...]:
    """Read names with values: a mapping, pairs, or texts NAME=VALUE.

    >>> settings(["account=lab", "qos=high"]), settings({"account": "lab"})
    ((('account', 'lab'), ('qos', 'high')), (('account', 'lab'),))
    """
    if isinstance(value, Mapping):
        return tuple((str(name), str(own)) for name, own in value.items())
    pairs = [
        each if isinstance(each, tuple) else _pair(each) for each in ([value] if isinstance(value, str) else value)
    ]
    return tuple((name.removeprefix("--"), own) for name, own in pairs)


def _pair(text: Any) -> tuple[str, str]:
    name, sign, value = str(text).partition("=")
    if not name or not sign:
        raise ValueError("give NAME=VALUE")
    return name, value


def mebibytes(value: Any) -> float | None:
    """Read an amount of memory: MiB, or text with a unit.

    >>> mebibytes("2GiB"), mebibytes(800)
    (2048.0, 800.0)
    """
    return _quantity(value, {"": 1.0, **UNITS_MIB}, "800MiB or 4GiB")


def _quantity(value: Any, units: dict[str, float], examples: str) -> float | None:
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", str(value).strip())
    if not match or match[2] not in units or float(match[1]) == 0:
        raise ValueError(f"give {examples}")
    return float(match[1]) * units[match[2]]


def interval(value: Any) -> int | timedelta | None:
    """Read the distance of checkpoints: a number of epochs, or a time; None: ``auto``.

    >>> interval("10m"), interval(2), interval("auto")
    (datetime.timedelta(seconds=600), 2, None)
    """
    if isinstance(value, timedelta) and value > timedelta():
        return value
    if value is None or re.fullmatch(r"[0-9]+|auto", str(value)):
        return count(value, least=0)
    return timedelta(seconds=_quantity(value, UNITS_S, "a number of epochs, or time as 90s, 10m or 2h") or 0)


def names(value: Any) -> tuple[str, ...]:
    """Read different names: a comma list, or a sequence.

    >>> names("tensorboard, wandb"), names(["wandb"])
    (('tensorboard', 'wandb'), ('wandb',))
    """
    found = tuple(_parts(value))
    if not all(found) or len(set(found)) < len(found):
        raise ValueError("give one or several, each once, with commas between them")
    return found


def folder(value: Any) -> Path:
    """Read a folder or a file: text or a path."""
    if not isinstance(value, (str, Path)):
        raise ValueError("give a path")
    return Path(value)


def folders(value: Any) -> tuple[Path, ...]:
    """Read folders: a comma list, or a sequence."""
    return tuple(map(Path, names(value)))


def module_names(value: Any) -> tuple[str, ...]:
    """Read a list of modules; a text is refused, because experiment files take a list."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not (is_list and all(isinstance(name, str) for name in value)):
        raise ValueError("give a list of module names")
    return tuple(value)


def devices(value: Any) -> tuple[str, ...]:
    """Read the devices to train on: names as torch has them, or numbers of GPUs.

    >>> devices("cpu"), devices("0, 3"), devices(["cuda:1"])
    (('cpu',), ('cuda:0', 'cuda:3'), ('cuda:1',))
    """
    found = _parts(value)
    if not found or not all(found):
        raise ValueError("give auto, cpu, cuda, cuda:N or mps, or numbers of GPUs as 0,1")
    return tuple(f"cuda:{int(name)}" if name.isdecimal() else name for name in found)


def device(value: Any) -> str:
    """Read one device.

    >>> device("cpu"), device("1")
    ('cpu', 'cuda:1')
    """
    first, *others = devices(value)
    if others:
        raise ValueError("give one device")
    return first


def shard(value: Any) -> tuple[int, int]:
    """Read a part of the cells: its number, from 1, and the number of parts.

    >>> shard("2/3"), shard((1, 1))
    ((2, 3), (1, 1))
    """
    text = "/".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    number, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= parts:
        raise ValueError("give I/N with I from 1 to N")
    return number, parts


def numbers(value: Any, *, least: int = 0) -> tuple[int, ...]:
    """Read a comma list of different whole numbers.

    >>> numbers("0,1,2")
    (0, 1, 2)
    """
    parts = _parts(value)
    found = [int(part) for part in parts if re.fullmatch("[0-9]{1,6}", part)]
    if not found or len(found) < len(parts) or min(found) < least or len(set(found)) < len(found):
        raise ValueError(f"give numbers from {least} up, each once, as {least},{least + 1}")
    return tuple(found)


def sizes(value: Any) -> tuple[tuple[int, int], ...]:
    """Read a comma list of image sizes, in pixels: a square's side, or HEIGHTxWIDTH.

    >>> sizes("224,800x1333")
    ((224, 224), (800, 1333))
    """
    parts = _parts(value)
    matches = [re.fullmatch(r"([1-9][0-9]{0,5})(?:x([1-9][0-9]{0,5}))?", part) for part in parts]
    found = [(int(match[1]), int(match[2] or match[1])) for match in matches if match]
    if len(found) < len(parts) or len(set(found)) < len(found):
        raise ValueError("give sides or HEIGHTxWIDTH from 1 up, each once, as 224,800x1333")
    return tuple(found)


def class_names(text: str) -> str:
    """Read which classes are taken, from ``@FILE`` with a name on each line.

    Raises:
        UsageError: the file cannot be read, has fewer than two names, or a name that cannot be joined.
    """
    try:
        lines = [line.strip() for line in Path(text[1:]).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--classes {text}: the file cannot be read: {error}") from error
    if len(lines) < 2:
        raise UsageError(f"--classes {text}: give a file with two names or more, one on each line")
    if odd := next((line for line in lines if JOINT in line), None):
        raise UsageError(f"--classes {text}: '{odd}' has a {JOINT}, which joins names; rename the class")
    return JOINT.join(lines)


def _parts(value: Any) -> list[str]:
    """Split a comma list; a sequence is split already."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
    return [str(part).strip() for part in parts]
