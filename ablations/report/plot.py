"""The figures of results as methods, for notebooks."""

from __future__ import annotations

from matplotlib.axes import Axes

from ablations.analysis.results import Results
from ablations.config import UsageError
from ablations.report.gallery import Picture, all_pictures


class Plot:
    """The figures of results; each method draws one condition into axes, new ones where none are given.

    Args:
        results: what is drawn.
    """

    def __init__(self, results: Results) -> None:
        self._results = results

    def test_accuracy(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the test accuracy of every seed, arm below arm, with means and intervals."""
        return self._draw("test_accuracy", "", condition, axes)

    def paired_differences(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the differences to the reference seed by seed, with interval and p."""
        return self._draw("paired_differences", "", condition, axes)

    def contrasts(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the contrasts: differences of arms that differ in one thing."""
        return self._draw("contrasts", "", condition, axes)

    def training_loss(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the training loss over the epochs."""
        return self._draw("training_loss", "", condition, axes)

    def validation_accuracy(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the validation accuracy over the epochs."""
        return self._draw("validation_accuracy", "", condition, axes)

    def test_ap(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the mask AP of every seed on the test images, arm below arm, with means and intervals."""
        return self._draw("test_ap", "", condition, axes)

    def validation_ap(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the mask AP on validation over the epochs."""
        return self._draw("validation_ap", "", condition, axes)

    def precision_recall(self, kind: str = "mask", condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw precision over recall, of ``box`` or ``mask``."""
        return self._draw("precision_recall", kind, condition, axes)

    def ap_by_size(self, kind: str = "mask", condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the AP of small, medium and large objects, of ``box`` or ``mask``."""
        return self._draw("ap_by_size", kind, condition, axes)

    def found_objects(
        self, image: str, panel: str = "annotated", condition: str | None = None, *, axes: Axes | None = None
    ) -> Axes:
        """Draw a test image with what is annotated in it, or with what an arm's first seed found."""
        return self._draw("found_objects", image, condition, axes, panel=panel)

    def failures(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw how the runs ended, arm below arm."""
        return self._draw("failures", "", condition, axes)

    def agreement(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw in how many test images two runs differ."""
        return self._draw("agreement", "", condition, axes)

    def lr_sensitivity(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the test accuracy over the learning rate; the condition is that of the other axes."""
        return self._draw("lr_sensitivity", "", condition, axes)

    def tuning_sensitivity(self, field: str = "lr", condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the validation accuracy of a tuning's trials over a searched field."""
        return self._draw("tuning_sensitivity", field, condition, axes)

    def tuning_isolation(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw each arm's best trial beside the others'."""
        return self._draw("tuning_isolation", "", condition, axes)

    def tuning_best_of_k(self, condition: str | None = None, *, axes: Axes | None = None) -> Axes:
        """Draw the best validation accuracy to be expected of k trials."""
        return self._draw("tuning_best_of_k", "", condition, axes)

    def accuracy_against_cost(
        self, quantity: str = "parameters", condition: str | None = None, *, axes: Axes | None = None
    ) -> Axes:
        """Draw the test accuracy against parameters, multiply_adds, inference_s or training_step_s."""
        return self._draw("accuracy_against_cost", quantity, condition, axes)

    def ap_against_cost(
        self, quantity: str = "parameters", condition: str | None = None, *, axes: Axes | None = None
    ) -> Axes:
        """Draw the mask AP on the test images against the same."""
        return self._draw("ap_against_cost", quantity, condition, axes)

    def probes_over_depth(
        self, probe: str = "output_rms", condition: str | None = None, *, axes: Axes | None = None
    ) -> Axes:
        """Draw a probe over the layers, at the last epoch."""
        return self._draw("probes_over_depth", probe, condition, axes)

    def probes_over_time(
        self, layer: str, probe: str = "output_rms", condition: str | None = None, *, axes: Axes | None = None
    ) -> Axes:
        """Draw a probe of one layer over the epochs."""
        return self._draw("probes_over_time", probe, condition, axes, panel=layer)

    def _draw(self, name: str, part: str, condition: str | None, axes: Axes | None, *, panel: str = "") -> Axes:
        """Draw one figure.

        Raises:
            UsageError: there is none of that part or condition, or there are several conditions and none is named.
        """
        ours = [picture for picture in all_pictures(self._results) if picture.name == name]
        if not ours:
            raise UsageError(f"these results have nothing to draw {name} from")
        if part not in (parts := list(dict.fromkeys(picture.part for picture in ours))):
            raise UsageError(f"{name}: '{part}' is none of {', '.join(parts)}")
        ours = [picture for picture in ours if picture.part == part]
        if panel not in (panels := list(dict.fromkeys(picture.panel for picture in ours))):
            raise UsageError(f"{name}: '{panel}' is none of {', '.join(panels)}")
        here = {picture.condition: picture for picture in ours if picture.panel == panel}
        if condition is None and len(here) > 1:
            raise UsageError(f"{name}: name one of the conditions: {'; '.join(here)}")
        if condition is not None and condition not in here:
            named = "; ".join(filter(None, here)) or "there is one, without a name"
            raise UsageError(f"{name}: '{condition}' is none of the conditions: {named}")
        picture = here[next(iter(here)) if condition is None else condition]
        return picture.draw(_new_axes(picture) if axes is None else axes)


def _new_axes(picture: Picture) -> Axes:
    """Return axes of a figure of their own, which a notebook shows and `matplotlib.pyplot.show` does elsewhere."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=picture.size, layout="constrained").add_subplot()
