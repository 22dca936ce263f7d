"""Provenance of a result: numerics version, sources, revision, package versions, machine."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

import ablations
from ablations.config import Study, UsageError
from ablations.config.errors import first_error
from ablations.config.norm_record import NormRecord
from ablations.config.numerics import numerics_text
from ablations.config.packages import DISTRIBUTION, package_version
from ablations.config.types import Task
from ufo.norms import NORMS, NormSpec, RegistrationError

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "scikit-learn", "faster-coco-eval"),
    "timm",
)
"""Packages whose versions are recorded, if they are installed."""


def numerics_now(norms: Iterable[str], *, task: Task) -> dict[str, str]:
    """Return the current numerics version by normaliser; a result of another version is stale.

    The version of a plug-in's normaliser includes the hash of the plug-in.

    Args:
        norms: normalisers of the cells.
        task: task of the cells.

    Raises:
        UnknownNameError: there is no such normaliser; import its plug-in first.
    """
    return {norm: numerics_text(task, plugin_hash=plugin_hash(norm)) for norm in dict.fromkeys(norms)}


def plugin_hash(norm: str) -> str:
    """Hash the file or package of a normaliser's plug-in; return an empty string for our own.

    Raises:
        UnknownNameError: there is no such normaliser.
    """
    module = NORMS[norm].cls.__module__
    top = module.partition(".")[0]
    if top == "ufo":
        return ""
    file = sys.modules[top].__file__ or sys.modules[module].__file__  # a folder without __init__.py has none
    assert file is not None, f"{module} has no file"
    path = Path(file)
    if path.name != "__init__.py":
        return _hash_files([(top, path)])
    return _hash_files(
        [(f"{top}/{p.relative_to(path.parent).as_posix()}", p) for p in sorted(path.parent.rglob("*.py"))]
    )


def plugin_files(names: Iterable[str]) -> dict[str, bytes]:
    """Return the files of imported plug-ins, modules or packages, by their path in a folder of the search path."""
    found: dict[str, bytes] = {}
    for top in dict.fromkeys(name.partition(".")[0] for name in names):
        module = sys.modules[top]
        folders = [Path(folder) for folder in getattr(module, "__path__", ())]
        for folder in folders:
            own = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
            found |= {f"{top}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in own}
        if not folders and module.__file__ is not None:
            found[Path(module.__file__).name] = Path(module.__file__).read_bytes()
    return found


def record_norms(norms: Iterable[str]) -> dict[str, NormRecord]:
    """Return what a study records of its normalisers.

    Raises:
        UnknownNameError: there is no such normaliser; import its plug-in first.
        UsageError: the label, the group or the caveat of one is too long.
    """
    order = {name: place for place, name in enumerate(NORMS)}
    return {name: _record_norm(name, NORMS[name], order[name]) for name in norms}


def _record_norm(name: str, spec: NormSpec, order: int) -> NormRecord:
    try:
        return NormRecord(label=spec.label, group=spec.group, order=order, cross=spec.cross, caveat=spec.caveat)
    except ValidationError as error:
        raise UsageError(f"normaliser {name}: {first_error(error)}") from None


def plugin_lines(study: Study) -> list[str]:
    """Say which plug-ins a command that runs cells of a study is about to import, and from where.

    Those that are imported already are left out: the command line named them, or they were said before.
    """
    found = {name: _find_plugin(name) or "nowhere" for name in study.plugins if name not in sys.modules}
    return [f"importing the plug-in {name}, which the study names, from {path}" for name, path in found.items()]


def _find_plugin(name: str) -> Path | None:
    """Return the file or folder that `import_plugin` would import, without importing it; None: there is none."""
    spec = PathFinder.find_spec(name.partition(".")[0], [str(Path.cwd()), *sys.path])
    if spec is None:
        return None
    if spec.origin is not None:
        return Path(spec.origin)
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0]) if folders else None


def import_plugin(name: str) -> ModuleType:
    """Import a plug-in, a module that registers normalisers, also from the current folder.

    Raises:
        UsageError: there is no such module, or it registers no valid normaliser. Its other exceptions are not caught.
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
            raise  # a missing dependency of the plug-in; its traceback names it
        raise UsageError(f"--plugin {name}: no such module in {Path.cwd()} or on PYTHONPATH") from None
    except RegistrationError as error:
        raise UsageError(f"--plugin {name}: {error}") from None
    if getattr(module, "__file__", None) is None:
        raise UsageError(f"--plugin {name}: it has no file, so it registers no normaliser")
    top = name.partition(".")[0]
    if known == set(NORMS) and not any(spec.cls.__module__.partition(".")[0] == top for spec in NORMS.values()):
        raise UsageError(f"--plugin {name}: it registers no normaliser")
    return module


def describe() -> dict[str, Any]:
    """Return the recorded source hash, revision, versions and machine."""
    ours = {"python": platform.python_version(), DISTRIBUTION: ablations.__version__}
    versions = {name: package_version(name) for name in PACKAGES}
    return {
        "source_hash": hash_sources(),
        "git": _git(),
        "versions": ours | {name: version for name, version in versions.items() if version is not None},
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
    }


def hash_sources() -> str:
    """Hash the sources of both packages."""
    files = [path for package in ("ufo", "ablations") for path in sorted((ROOT / package).rglob("*.py"))]
    return _hash_files([(path.relative_to(ROOT).as_posix(), path) for path in files])


def _hash_files(files: list[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def _git() -> dict[str, Any] | None:
    """Return the revision and whether tracked files differ from it; None outside a checkout of this project.

    Only files of the code count, since a run may write tracked results. An environment that lies in the checkout of
    another project would record that project's revision.
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
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
