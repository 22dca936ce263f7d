"""The ablation harness: grids of paired training runs, and what their numbers support.

``ablations.run(norm=["xnorm", "l2"], seeds=8)`` runs a study, ``ablations.tune(...)`` tunes every arm first,
``ablations.load("runs/x")`` reads one, and ``ablations.build(norm="xnorm", data="digits")`` gives a cell's
LightningModule and its data to a Trainer of one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablations.api import IncompleteStudyWarning, build, load, run, tune

__version__ = "0.2.0.dev0"

__all__ = ["IncompleteStudyWarning", "build", "load", "run", "tune"]


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def __getattr__(name: str) -> Any:
    """Load what a notebook asks for when it asks: the command line starts without torch."""
    if name not in __all__:
        raise AttributeError(f"module 'ablations' has no attribute '{name}'")
    from ablations.config.platforms import UNSUPPORTED, is_supported

    if not is_supported():
        raise ImportError(f"ablations.{name}: {UNSUPPORTED}")
    from ablations import api

    return getattr(api, name)
