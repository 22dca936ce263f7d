"""Figures of results as methods, for notebooks."""

from __future__ import annotations

from matplotlib.axes import Axes

from ablations.analysis.results import Results
from ablations.config import UsageError
from ablations.report.gallery import FigureSpec, all_figures


class Plot:
    """Figures of results: each method draws one condition into the given axes, or into new ones.

    Args:
        results: results to draw.
    """

    def __init__(self, results: Results) -> None:
        self._results = results

    def test_accuracy(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw each arm's test accuracy: every seed, the mean and its interval."""
        return self._draw("test_accuracy", "", condition, axes)

    def paired_differences(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the differences to the reference: every seed, the mean with its interval, and p."""
        return self._draw("paired_differences", "", condition, axes)

    def contrasts(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the contrasts: differences of arms that differ in one factor."""
        return self._draw("contrasts", "", condition, axes)

    def training_loss(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the training loss over the epochs."""
        return self._draw("training_loss", "", condition, axes)

    def validation_accuracy(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the validation accuracy over the epochs."""
        return self._draw("validation_accuracy", "", condition, axes)

    def test_ap(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw each arm's mask AP on the test images: every seed, the mean and its interval."""
        return self._draw("test_ap", "", condition, axes)

    def validation_ap(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the mask AP on validation over the epochs."""
        return self._draw("validation_ap", "", condition, axes)

    def precision_recall(self, kind: str = "mask", condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw precision over recall for ``box`` or ``mask``."""
        return self._draw("precision_recall", kind, condition, axes)

    def ap_by_size(self, kind: str = "mask", condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the AP of small, medium and large objects for ``box`` or ``mask``."""
        return self._draw("ap_by_size", kind, condition, axes)

    def found_objects(
        self, image: str, panel: str = "annotated", condition: str | None = None, *, axes: Axes | None = None
    ) -> Axes:
        """Draw a test image with its annotations, or with the detections of an arm's first seed."""
        return self._draw("found_objects", image, condition, axes, panel=panel)

    def failures(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw each arm's outcomes."""
        return self._draw("failures", "", condition, axes)

    def agreement(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the share of test images on which two runs differ."""
        return self._draw("agreement", "", condition, axes)

    def lr_sensitivity(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the test accuracy over the learning rate; the condition covers the other axes."""
        return self._draw("lr_sensitivity", "", condition, axes)

    def tuning_sensitivity(self, field: str = "lr", condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the validation accuracy of a tuning's trials over a searched field."""
        return self._draw("tuning_sensitivity", field, condition, axes)

    def tuning_isolation(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw each arm's trials and the best of them."""
        return self._draw("tuning_isolation", "", condition, axes)

    def tuning_best_of_k(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the expected best validation accuracy of k trials."""
        return self._draw("tuning_best_of_k", "", condition, axes)

    def accuracy_against_cost(
        self, quantity: str = "parameters", condition: str | None = None, *, axes: Axes | None = None
    ) -> Axes:
        """Draw the test accuracy against parameters, multiply_adds, inference_s or training_step_s."""
        return self._draw("accuracy_against_cost", quantity, condition, axes)

    def ap_against_cost(
        self, quantity: str = "parameters", condition: str | None = None, *, axes: Axes | None = None
    ) -> Axes:
        """Draw the mask AP on the test images against a cost, as in `accuracy_against_cost`."""
        return self._draw("ap_against_cost", quantity, condition, axes)

    def probes_over_depth(
        self, probe: str = "output_rms", condition: str | None = None, *, axes: Axes | None = None
    ) -> Axes:
        """Draw a probe over the layers at the last epoch."""
        return self._draw("probes_over_depth", probe, condition, axes)

    def probes_over_time(
        self, layer: str, probe: str = "output_rms", condition: str | None = None, *, axes: Axes | None = None
    ) -> Axes:
        """Draw a probe of one layer over the epochs."""
        return self._draw("probes_over_time", probe, condition, axes, panel=layer)

    def _draw(self, name: str, part: str, condition: str | None, axes: Axes | None, *, panel: str = "") -> Axes:
        """Draw one figure.

        Raises:
            UsageError: the figure, part, panel or condition is unknown, or several conditions leave it ambiguous.
        """
        ours = [figure for figure in all_figures(self._results) if figure.name == name]
        if not ours:
            raise UsageError(f"these results have no data for {name}")
        if part not in (parts := list(dict.fromkeys(figure.part for figure in ours))):
            raise UsageError(f"{name}: unknown '{part}'. Valid: {', '.join(parts)}")
        ours = [figure for figure in ours if figure.part == part]
        if panel not in (panels := list(dict.fromkeys(figure.panel for figure in ours))):
            raise UsageError(f"{name}: unknown '{panel}'. Valid: {', '.join(panels)}")
        here = {figure.condition: figure for figure in ours if figure.panel == panel}
        if condition is None and len(here) > 1:
            raise UsageError(f"{name}: choose a condition: {'; '.join(here)}")
        if condition is not None and condition not in here:
            names = "Valid: " + "; ".join(here) if any(here) else "The only condition has no name"
            raise UsageError(f"{name}: unknown condition '{condition}'. {names}")
        figure = here[next(iter(here)) if condition is None else condition]
        return figure.draw(_new_axes(figure) if axes is None else axes)


def _new_axes(figure: FigureSpec) -> Axes:
    """Return axes of a new pyplot figure, which a notebook or `matplotlib.pyplot.show` displays."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=figure.size, layout="constrained").add_subplot()
