"""Figures of results as methods, for notebooks."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature

from matplotlib.axes import Axes

from ablations.analysis.results import Results
from ablations.config import UsageError
from ablations.report.gallery import all_figures
from ablations.report.kinds import FIGURES, FigureSpec, Kind


class Plot:
    """Figures of results: each of `FIGURES` is a method that draws one condition into axes.

    All take ``condition``, needed if there are several, and ``axes``; by default they make a new figure.

    Args:
        results: results to draw.
    """

    def __init__(self, results: Results) -> None:
        self._results = results

    def __getattr__(self, name: str) -> Callable[..., Axes]:
        """Name the figures if there is none of this name."""
        raise AttributeError(f"no figure '{name}'; there are {', '.join(FIGURES)}")

    def _draw(
        self,
        name: str,
        part: str,
        condition: str | None,
        axes: Axes | None,
        *,
        panel: str = "",
        is_part_named: bool = True,
    ) -> Axes:
        """Draw one figure; a part that is not named is the default, or the only one that there is.

        Raises:
            UsageError: the figure, part, panel or condition is unknown, or several conditions leave it ambiguous.
        """
        ours = [figure for figure in all_figures(self._results) if figure.name == name]
        if not ours:
            raise UsageError(f"these results have no data for {name}")
        parts = list(dict.fromkeys(figure.part for figure in ours))
        if len(parts) == 1 and not is_part_named:
            (part,) = parts
        if part not in parts:
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


def _method(name: str, kind: Kind) -> Callable[..., Axes]:
    """Return the method that draws a figure."""
    signature = _signature(kind)

    def draw(self: Plot, *args: object, **kwargs: object) -> Axes:
        given = signature.bind(self, *args, **kwargs)
        is_part_named = kind.part is not None and kind.part[0] in given.arguments
        given.apply_defaults()
        part, panel = (given.arguments[each[0]] if each else "" for each in (kind.part, kind.panel))
        condition, axes = (given.arguments[each] for each in ("condition", "axes"))
        return self._draw(name, part, condition, axes, panel=panel, is_part_named=is_part_named)

    draw.__name__, draw.__qualname__, draw.__doc__ = name, f"Plot.{name}", kind.help
    draw.__signature__ = signature  # type: ignore[attr-defined]
    return draw


def _signature(kind: Kind) -> Signature:
    """Return a method's arguments: those without a default first."""
    selecting = sorted(filter(None, (kind.part, kind.panel)), key=lambda each: each[1] is not None)
    either = Parameter.POSITIONAL_OR_KEYWORD
    parameters = [Parameter("self", either)]
    parameters += [Parameter(n, either, default=Parameter.empty if d is None else d) for n, d in selecting]
    parameters.append(Parameter("condition", either, default=None))
    return Signature([*parameters, Parameter("axes", Parameter.KEYWORD_ONLY, default=None)], return_annotation=Axes)


for _name, _kind in FIGURES.items():
    setattr(Plot, _name, _method(_name, _kind))
