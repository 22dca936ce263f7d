"""Seeded damage to a study's folder: of bytes, of fields and of whole files, as accidents and strangers make it."""

from __future__ import annotations

import bz2
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, 10**400, -1e308, float("nan"), float("inf"), 0.5, 1e-300),
    *("", " ", "x" * 10_000, "\x1b[31mred\x1b[0m", "a\n\\input{/etc/passwd}", "../../../etc/passwd", "/etc/passwd"),
    *("=cmd|' /C calc'!A0", "$x^{", "<script>alert(1)</script>", "[red]x[/]", "\u202egnp.exe", "%s{0}", "no", "1e400"),
    *([], {}, [[]], [None], ["x"] * 1_000, {"x": 1}, {"": None}, [1, "x", None], ["nan"], "nan", "\ud800"),
)
"""Values of other types, sizes and intents than any field expects."""

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(9 * [f'*{before}'])}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
NPY = b"\x93NUMPY\x01\x00v\x00{'descr': '|b1', 'fortran_order': False, 'shape': (999999999999999,), }"

LINES = {"yaml": BOMB.encode(), "json": b"[" * 100_000, "npy": NPY.ljust(128) + b"\n", "csv": b'"' + b",\x00" * 5_000}
"""Content that hangs or exhausts a careless reader, by the suffix of the file."""


def mutate(folder: Path, rng: random.Random, outside: Path) -> str:
    """Damage a study, and say how.

    Args:
        folder: folder of the study, which is changed.
        rng: source of all choices.
        outside: folder that is none of the study's, to which links lead.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        return "nothing left"
    path = rng.choice(files)
    change = rng.choice([_bytes, _bytes, _field, _field, _field, _file, _file, _line])
    what = change(path, rng, outside)
    return f"{path.relative_to(folder)}: {what}"


def _bytes(path: Path, rng: random.Random, outside: Path) -> str:
    content = bytearray(path.read_bytes())
    how = rng.choice(["flip", "cut", "insert", "repeat", "zero"])
    place = rng.randrange(len(content) + 1)
    if how == "flip":
        for _ in range(rng.choice([1, 1, 20])):
            if content:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del content[place:]
    elif how == "insert":
        content[place:place] = rng.choice([b"\x00", b"\x1b[2J", b"\xff\xfe", b"\n", b",", b"{", b"\r\n\r\n", b'"'])
    elif how == "repeat":
        content += content[place:]
    else:
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    path.write_bytes(content)
    return f"{how} at byte {place}"


def _field(path: Path, rng: random.Random, outside: Path) -> str:
    """Change a value in a file of fields; of others, a piece of text between commas."""
    if path.suffix in (".csv", ".txt"):
        return _cell(path, rng)
    try:
        if path.suffix == ".json":
            content, write = json.loads(path.read_bytes()), json.dumps
        elif path.name.endswith(".json.bz2"):
            content, write = json.loads(bz2.decompress(path.read_bytes())), json.dumps
        elif path.suffix == ".yaml":
            content, write = yaml.safe_load(path.read_text()), yaml.safe_dump
        else:
            return _bytes(path, rng, outside)
    except (ValueError, OSError, EOFError, RecursionError, yaml.YAMLError):  # damaged before
        return _bytes(path, rng, outside)
    places = list(_places(content))
    owner, key = rng.choice(places) if places else (content, None)
    value = rng.choice(ODD)
    if key is None:
        content = value
    elif rng.random() < 0.15:
        del owner[key]
        value = "deleted"
    elif rng.random() < 0.1 and isinstance(owner, dict):
        owner[f"{key}_"] = owner.pop(key)
        value = "renamed"
    else:
        owner[key] = value
    try:
        text = write(content).encode(errors="surrogatepass")
    except (yaml.YAMLError, ValueError, TypeError):
        text = str(content).encode(errors="surrogatepass")
    path.write_bytes(bz2.compress(text) if path.suffix == ".bz2" else text)
    return f"{key} = {str(value)[:40]!r}"


def _cell(path: Path, rng: random.Random) -> str:
    lines = path.read_text(errors="replace").split("\n")
    row = rng.randrange(len(lines))
    texts = lines[row].split(",")
    column, value = rng.randrange(len(texts)), str(rng.choice(ODD))
    texts[column] = value
    lines[row] = ",".join(texts)
    path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    return f"line {row + 1}, column {column + 1} = {value[:40]!r}"


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _line(path: Path, rng: random.Random, outside: Path) -> str:
    content = LINES.get(path.suffix[1:], b"\x00" * 1_000)
    path.write_bytes(content)
    return "a bomb"


def _file(path: Path, rng: random.Random, outside: Path) -> str:
    """Put something else in the place of a file or of its folder."""
    target = rng.choice([path, path, path, path.parent, path.parent.parent])
    if target.name in ("made_up", "runs"):  # the study itself
        target = path
    kinds: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "a folder": target.mkdir,
        "a pipe": lambda: os.mkfifo(target),
        "a link to a device": lambda: target.symlink_to("/dev/zero"),
        "a link outside": lambda: target.symlink_to(rng.choice([outside, outside / "file.json", outside / "missing"])),
        "a link to itself": lambda: target.symlink_to(target),
        "a large hole": lambda: _hole(target),
        "an empty file": target.touch,
        "another file": lambda: target.write_bytes(b'{"format": 1}'),
    }
    kind = rng.choice(list(kinds))
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    kinds[kind]()
    return f"{kind} in the place of {target.name}"


def _hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)
