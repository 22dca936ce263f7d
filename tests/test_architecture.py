"""Arrows run one way: what may import what."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def table(head: str) -> list[list[str]]:
    """Return the rows of CONTRIBUTING's table with this head."""
    lines = CONTRIBUTING[CONTRIBUTING.index(head) :].partition("\n\n")[0].splitlines()[2:]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


ALLOWED = {
    room.strip("`"): set(filter(None, allowed.split(", "))) for room, allowed, _ in table("| room | may import |")
}
ALLOWED |= {"__init__": {"config", "api"}, "__main__": {"cli"}}
"""Each room, after all that it may import: there is no circle."""

LOOSE = {"api", "__init__", "__main__"}
"""Rooms that are one file."""

FIGURES = sorted(f"ablations.figures.{path.stem}" for path in (ROOT / "ablations" / "figures").glob("[!_]*.py"))

FILES = sorted((ROOT / "ablations").rglob("*.py")) + sorted((ROOT / "ufo").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def imported_rooms(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("ablations.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_run_one_way(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    rooms = imported_rooms(path)
    if parts[0] == "ufo":
        assert not rooms, f"ufo knows nothing of the harness, and here imports {rooms}"
    else:
        assert rooms <= ALLOWED[parts[1]] | {parts[1]}, f"{parts[1]} may not import {rooms - ALLOWED[parts[1]]}"


def test_there_is_no_circle():
    rooms = list(ALLOWED)
    assert all(room_before in rooms[:number] for number, room in enumerate(rooms) for room_before in ALLOWED[room])


def test_every_arrow_is_used():
    found = {room: set() for room in ALLOWED}
    for path in FILES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] == "ablations":
            found[parts[1]] |= imported_rooms(path) - {parts[1]}
    assert found == ALLOWED


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`([\w./]+/[\w.]+\.(?:py|json))`", CONTRIBUTING))))
def test_files_that_contributing_names_exist(file):
    assert (ROOT / file).is_file() or (ROOT / "ablations" / file).is_file(), file


def test_files_in_a_rooms_line_are_in_that_room():
    for room, _, what in table("| room | may import |"):
        for file in re.findall(r"`(\w+\.py)`", what):
            assert (ROOT / "ablations" / room.strip("`") / file).is_file(), (room, file)


def test_rooms_are_few():
    packages = {path.parent.name for path in (ROOT / "ablations").glob("*/__init__.py")}
    assert packages == ALLOWED.keys() - LOOSE
    assert {path.stem for path in (ROOT / "ablations").glob("*.py")} == LOOSE
    assert len(packages) <= 14


@pytest.mark.process
def test_numbers_and_pictures_need_no_torch():
    code = (
        "import importlib, sys\nfor module in sys.argv[1:]:\n    importlib.import_module(module)\n"
        "    assert not {'torch', 'matplotlib.pyplot'} & sys.modules.keys(), module"
    )
    subprocess.run([sys.executable, "-c", code, "ablations.analysis", *FIGURES], cwd=ROOT, check=True)


@pytest.mark.process
def test_help_imports_neither_torch_nor_pandas():
    code = (
        "import sys\nsys.argv = ['ablations', '--help']\n"
        "from ablations.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pandas', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True).returncode == 0


@pytest.mark.process
def test_records_are_read_without_torch_or_pandas():
    code = "import sys, ablations.store; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_planning_imports_nothing_that_takes_seconds_to_load():
    code = "import sys, ablations.api, ablations.cli.run; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not {"lightning_fabric", "torchmetrics", "torchvision", "matplotlib", "sklearn"} & set(loaded.split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_room_is_called_utils(path):
    assert path.stem not in ("utils", "helpers", "base", "common", "misc")
