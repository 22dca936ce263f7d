"""Versions of installed packages, and checks for optional ones."""

from __future__ import annotations

import importlib.metadata
import importlib.util

from ablations.config.errors import UsageError

DISTRIBUTION = "ufo-ablations"
"""Name of this package's distribution, as pip has it."""

OPTIONAL = {
    "timm": "timm>=1.0.20",
    "tensorboard": "tensorboard>=2.18",
    "wandb": "wandb>=0.19",
    "ray": "ray>=2.50",
    "submitit": "submitit>=1.5",
}
"""Requirement of each optional package; each is an extra of the same name, or of that in `EXTRAS`."""

EXTRAS = {"submitit": "slurm"}


def package_version(name: str) -> str | None:
    """Return the version of an installed distribution; None if there is none by that name.

    >>> package_version("no-such-distribution") is None
    True
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def require_package(package: str, feature: str) -> None:
    """Check that an optional package is installed, without importing it.

    Args:
        package: name of the package, a key of `OPTIONAL`.
        feature: feature that needs it, as the user wrote it.

    Raises:
        UsageError: a missing package, with the command that installs it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:  # no origin: a plain folder, such as the one that wandb writes
        raise UsageError(f"{feature} needs {package}, which is not installed: pip install '{OPTIONAL[package]}'")
