"""Where a result comes from: sources, revision, versions, machine."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ablations.study import UsageError

ROOT = Path(__file__).resolve().parent.parent

SOURCES = (
    "ufo/*.py",
    "ablations/streams.py",
    "ablations/recipes.py",
    "ablations/callbacks.py",
    "ablations/data/*.py",
    "ablations/tasks/*.py",
    "ablations/engine/cell.py",
)
"""Files that can change a cell's numbers."""

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "scikit-learn")


def source_hash(plugins: tuple[str, ...]) -> str:
    """Hash the sources that can change a cell's numbers, plug-ins too: a finished cell with another hash is stale."""
    files = [path for pattern in SOURCES for path in sorted(ROOT.glob(pattern)) if path.name != "testing.py"]
    digest = hashlib.sha256()
    for name, path in [(str(path.relative_to(ROOT)), path) for path in files] + _plugin_files(plugins):
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def import_plugin(name: str) -> ModuleType:
    """Import a module that registers normalisers, from the current folder too.

    Raises:
        UsageError: there is no such module. What the module itself raises is not caught.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if name.startswith("."):
        raise UsageError(f"--plugin {name}: give the module's full name")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that the plug-in needs: its own traceback says which
        raise UsageError(f"--plugin {name}: no such module here ({Path.cwd()}) or on PYTHONPATH") from None
    if module.__file__ is None:
        raise UsageError(f"--plugin {name}: a folder without __init__.py registers nothing")
    return module


def describe() -> dict[str, Any]:
    """Return revision, versions and machine, as a cell's record holds them."""
    return {
        "git": _git(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
    }


def _plugin_files(plugins: tuple[str, ...]) -> list[tuple[str, Path]]:
    files = []
    for name in plugins:
        file = import_plugin(name).__file__
        assert file is not None, f"plug-in {name} has no file"
        files.append((name, Path(file)))
    return files


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Return revision and whether tracked files differ from it; None outside a checkout."""

    def ask(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return {"revision": ask("rev-parse", "HEAD").strip(), "dirty": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
