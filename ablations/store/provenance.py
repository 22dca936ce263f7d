"""Where a result comes from: numerics, sources, revision, versions, machine."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import ablations
from ablations.config import UsageError
from ablations.config.numerics import numerics_text
from ablations.config.packages import DISTRIBUTION, package_version
from ablations.config.types import Task
from ufo.norms import NORMS, RegistrationError

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "scikit-learn", "faster-coco-eval"),
    "timm",
)
"""Packages whose versions a cell's record holds; an absent one is left out."""


def numerics_now(norms: Iterable[str], *, task: Task) -> dict[str, str]:
    """Return the numerics of cells with each normaliser, as the code is; a result of others is stale.

    A plug-in counts for its own normalisers alone: its file, or every Python file of its package.

    Args:
        norms: of the cells.
        task: of the cells.

    Raises:
        UnknownNameError: no such normaliser; a plug-in must have been imported.
    """
    return {norm: numerics_text(task, plugin_hash=plugin_hash(norm)) for norm in dict.fromkeys(norms)}


def plugin_hash(norm: str) -> str:
    """Hash the plug-in that registers a normaliser; empty for our own.

    Raises:
        UnknownNameError: no such normaliser.
    """
    files = _plugin_files(NORMS[norm].cls.__module__)
    return _hash_files(files) if files else ""


def import_plugin(name: str) -> ModuleType:
    """Import a module that registers normalisers, from the current folder too.

    Raises:
        UsageError: there is no such module, or it registers a normaliser wrongly. What else it raises is not caught.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if not name or name.startswith(".") or name.endswith(".py"):
        raise UsageError(f"--plugin {name}: give the module's full name, without .py")
    known = set(NORMS)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that the plug-in needs: its own traceback says which
        raise UsageError(f"--plugin {name}: no such module here ({Path.cwd()}) or on PYTHONPATH") from None
    except RegistrationError as error:
        raise UsageError(f"--plugin {name}: {error}") from None
    if getattr(module, "__file__", None) is None:
        raise UsageError(f"--plugin {name}: a module without a file registers nothing")
    top = name.partition(".")[0]
    if known == set(NORMS) and not any(spec.cls.__module__.partition(".")[0] == top for spec in NORMS.values()):
        raise UsageError(f"--plugin {name}: it registers no normaliser")
    return module


def describe() -> dict[str, Any]:
    """Return sources, revision, versions and machine, as a cell's record holds them."""
    ours = {"python": platform.python_version(), DISTRIBUTION: ablations.__version__}
    versions = {name: package_version(name) for name in PACKAGES}
    files = [path for package in ("ufo", "ablations") for path in sorted((ROOT / package).rglob("*.py"))]
    return {
        "source_hash": _hash_files([(path.relative_to(ROOT).as_posix(), path) for path in files]),
        "git": _git(),
        "versions": ours | {name: version for name, version in versions.items() if version is not None},
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
    }


def _hash_files(files: list[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def _plugin_files(module: str) -> list[tuple[str, Path]]:
    """Return the files of the top-level package or module of a normaliser's class, by name; none for our own."""
    top = module.partition(".")[0]
    if top == "ufo":
        return []
    file = sys.modules[top].__file__ or sys.modules[module].__file__  # a folder without __init__.py has none
    assert file is not None, f"{module} has no file"
    path = Path(file)
    if path.name != "__init__.py":
        return [(top, path)]
    return [(f"{top}/{p.relative_to(path.parent).as_posix()}", p) for p in sorted(path.parent.rglob("*.py"))]


def _git() -> dict[str, Any] | None:
    """Return revision and whether tracked files of the code differ from it; None outside a checkout of this project.

    What a run writes, which may be under version control too, is no change of the code. An environment that lies in
    the checkout of another project has that project's revision, which says nothing of this code.
    """

    def ask(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        ask("ls-files", "--error-unmatch", "ablations")
        changed = ask("status", "--porcelain", "-uno", "--", "ufo", "ablations")
        return {"revision": ask("rev-parse", "HEAD").strip(), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
