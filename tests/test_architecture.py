"""Arrows run one way: what may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ALLOWED = {
    "study": {"study"},
    "platforms": set(),
    "signals": set(),
    "streams": set(),
    "threads": set(),
    "recipes": {"recipes", "study"},
    "provenance": {"study"},
    "data": {"data", "streams", "study"},
    "store": {"store", "study"},
    "callbacks": set(),
    "tasks": {"tasks", "callbacks", "data", "recipes", "streams", "study"},
    "engine": {
        "engine",
        "callbacks",
        "tasks",
        "data",
        "store",
        "provenance",
        "signals",
        "streams",
        "study",
        "threads",
    },
    "board": {"store", "study"},
    "progress": {"board", "store", "study"},
    "stats": {"stats"},
    "figures": {"figures", "stats"},
    "claims": {"stats", "study"},
    "contrasts": {"stats"},
    "results": {"claims", "contrasts", "plot", "stats", "store", "study", "tasks"},
    "gallery": {"figures", "results", "study"},
    "initial": {"study", "tasks"},
    "plot": {"gallery", "results", "study"},
    "report": {"report", "gallery", "results", "stats", "store", "study"},
    "caveats": {"study"},
    "describe": {"board", "caveats", "contrasts", "data", "engine", "plan", "stats", "study"},
    "listing": {"data", "recipes", "store", "study"},
    "clean": {"data", "store"},
    "request": {"data", "engine", "study"},
    "study_data": {"data", "study"},
    "checks": {"request", "tasks", "data", "engine", "store", "study"},
    "plan": {
        "checks",
        "initial",
        "request",
        "study_data",
        "tasks",
        "data",
        "engine",
        "store",
        "provenance",
        "recipes",
        "study",
    },
    "tuning": {"tuning", "plan", "request", "engine", "stats", "store", "study"},
    "one_cell": {"data", "plan", "request", "study", "tasks"},
    "api": {
        *("caveats", "describe", "one_cell", "plan", "progress", "report", "request", "results", "tuning"),
        *("data", "engine", "store", "provenance", "study"),
    },
    "bench": {
        "bench",
        "figures",
        "plan",
        "request",
        "tasks",
        "data",
        "recipes",
        "signals",
        "streams",
        "study",
        "threads",
    },
    "cli": {
        *("cli", "api", "describe", "plan", "request", "report", "listing", "board", "progress", "clean", "bench"),
        "tuning",
        *("engine", "platforms", "store", "provenance", "signals", "study"),
    },
    "__main__": {"cli"},
    "__init__": {"api", "platforms"},
}
"""Room to the rooms that it may import. `stats` and `figures` know DataFrames alone."""

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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_run_one_way(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("ablations.")}
    if parts[0] == "ufo":
        assert not rooms, f"ufo knows nothing of the harness, and here imports {rooms}"
    else:
        assert rooms <= ALLOWED[parts[1]], f"{parts[1]} may not import {rooms - ALLOWED[parts[1]]}"


def test_numbers_and_pictures_need_no_torch():
    code = (
        "import importlib, sys\nfor module in sys.argv[1:]:\n    importlib.import_module(module)\n"
        "    assert not {'torch', 'matplotlib.pyplot'} & sys.modules.keys(), module"
    )
    subprocess.run([sys.executable, "-c", code, "ablations.stats", *FIGURES], cwd=ROOT, check=True)


def test_help_imports_neither_torch_nor_pandas():
    code = (
        "import sys\nsys.argv = ['ablations', '--help']\n"
        "from ablations.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pandas', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True).returncode == 0


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
