"""Results as notebooks and `ablations.load` have them: numbers, figures, trained modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablations.analysis.results import Results
from ablations.config import UsageError

if TYPE_CHECKING:
    from ablations.report.plot import Plot
    from ablations.training.module import CellModule


class StudyResults(Results):
    """Results with their figures and trained modules."""

    @property
    def plot(self) -> Plot:
        """The figures: `results.plot.test_accuracy()` and others."""
        from ablations.report.plot import Plot

        return Plot(self)

    def module(self, cell: str) -> CellModule:
        """Return a trained cell's LightningModule, in evaluation mode, where its weights were saved.

        Args:
            cell: its name, as ``xnorm-s0``, or the whole name of its folder where several cells have that one.

        Raises:
            UsageError: there is no such cell or more than one, or it has no weights.
        """
        from ablations.tasks.trained import load_module

        found = [
            stratum.folder / "cells" / folder
            for stratum in self.strata
            for folder in stratum.frames.cells["folder"]
            if cell in (folder, folder.rpartition("-")[0])
        ]
        if len(found) != 1:
            names = self.cells["folder"].tolist() if not found else [folder.name for folder in found]
            said = "there is no cell" if not found else "several cells are named"
            raise UsageError(f"{said} {cell}; there are {', '.join(names)}")
        return load_module(found[0])
