"""Installed packages: their versions, and what the optional ones are needed for."""

from __future__ import annotations

import importlib.metadata
import importlib.util

from ablations.config.errors import UsageError

DISTRIBUTION = "ufo-ablations"
"""The name under which pip knows this package."""

OPTIONAL = {"timm": "timm>=1.0.20", "tensorboard": "tensorboard>=2.18", "wandb": "wandb>=0.19"}
"""Package that a plain installation lacks, to what pip is asked for; each is an extra of the same name."""


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
        package: a key of `OPTIONAL`.
        feature: what needs it, as the user asked for it.

    Raises:
        UsageError: it is not installed; one line says how to install it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:  # the latter is a mere folder: wandb leaves one of its name where it is run
        raise UsageError(f"{feature} needs {package}, which is not installed: pip install '{OPTIONAL[package]}'")
