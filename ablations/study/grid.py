"""A study: a grid of cells with one question. From what is asked to cells, and how a study may grow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ablations.study.cell import CellConfig, make_config
from ablations.study.errors import UsageError

FORMAT: Literal[1] = 1
"""Version of study.yaml."""

ALWAYS_AXES = ("norm", "seed")

Defaults = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From the fields of a cell that were asked for to a value for every other field that needs one."""


class Study(BaseModel):
    """What was asked, complete.

    Args:
        name: of the study and its folder.
        question: one sentence, from the experiment file; empty where there is none.
        compare: the field whose values are the arms.
        ref: the arm that every other is compared with; None where there is one arm only.
        axes: values of every field that varies, in the order of the expansion; ``seed`` is one of them.
        fixed: value of every field that does not.
        plugins: modules that were imported to register normalisers.
        history: one line for each extension.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    name: str
    question: str = ""
    compare: str = "norm"
    ref: str | None = None
    axes: dict[str, list[Any]]
    fixed: dict[str, Any]
    plugins: tuple[str, ...] = ()
    history: tuple[str, ...] = ()

    @property
    def arms(self) -> list[Any]:
        """Values of the compared field."""
        return self.axes[self.compare]

    @property
    def conditions(self) -> dict[str, list[Any]]:
        """Every other axis of several values: tables and tests are per combination of them."""
        others = {field: values for field, values in self.axes.items() if field not in (self.compare, "seed")}
        return {field: values for field, values in others.items() if len(values) > 1}


def arm_name(value: Any) -> str:
    """Write an arm's value as files, tables and ``--ref`` have it.

    >>> arm_name("xnorm"), arm_name(0.001), arm_name(True), arm_name(None)
    ('xnorm', '0.001', 'on', 'none')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def expand(axes: Mapping[str, list[Any]], fixed: Mapping[str, Any], defaults: Defaults) -> list[CellConfig]:
    """Expand the product of the axes, seed by seed, so that an interrupted grid compares equal numbers.

    Raises:
        UsageError: values that do not go together.
    """
    others = {field: values for field, values in axes.items() if field != "seed"}
    cells = []
    for seed in axes["seed"]:
        for point in itertools.product(*others.values()):
            asked = {**fixed, **dict(zip(others, point, strict=True)), "seed": seed}
            cells.append(make_config({**defaults(asked), **asked}))
    return cells


def design(
    *,
    name: str,
    asked: Mapping[str, list[Any]],
    compare: str,
    ref: str | None,
    defaults: Defaults,
    question: str = "",
    plugins: tuple[str, ...] = (),
) -> tuple[Study, list[CellConfig]]:
    """Make a study and its cells from lists of values.

    Args:
        asked: values for each field that was named; several make an axis.

    Raises:
        UsageError: a reference that is no arm, or values that do not go together.
    """
    fields = sorted(asked, key=lambda field: (field != compare, field == "seed"))
    axes = {f: list(asked[f]) for f in fields if len(asked[f]) > 1 or f in (*ALWAYS_AXES, compare)}
    if compare not in axes:
        raise UsageError(f"--compare {compare}: give the values to compare, for instance --set {compare}=a,b")
    cells = expand(axes, {field: asked[field][0] for field in asked if field not in axes}, defaults)
    dumped = [cell.model_dump(mode="json") for cell in cells]
    fixed = {f: v for f, v in dumped[0].items() if f not in axes and all(cell[f] == v for cell in dumped)}
    arms = [arm_name(value) for value in axes[compare]]
    if ref is not None and ref not in arms:
        raise UsageError(f"--ref {ref} is none of the arms: {', '.join(arms)}")
    ref = ref or _default_ref(arms)
    study = Study(name=name, question=question, compare=compare, ref=ref, axes=axes, fixed=fixed, plugins=plugins)
    return study, cells


def extend(stored: Study, asked: Study, *, explicit_ref: bool) -> Study:
    """Grow a stored study along its axes to take in what is asked now.

    Args:
        explicit_ref: whether the reference was asked for; else the stored one stays.

    Returns:
        The stored study with the union of the values, and the additions as a line of its history.

    Raises:
        UsageError: what is asked is another question; the field that differs is named.
    """
    if asked.compare != stored.compare:
        raise _another_question(stored, "compare", stored.compare, asked.compare)
    axes = {field: list(values) for field, values in stored.axes.items()}
    added: list[str] = []
    for field in {**asked.axes, **asked.fixed}:
        values = asked.axes.get(field, [asked.fixed.get(field)])
        if field in axes:
            new = [value for value in values if value not in axes[field]]
            axes[field] += new
            added += [f"{field}={arm_name(value)}" for value in new]
        else:
            have = stored.fixed.get(field, CellConfig.model_fields[field].get_default())
            if field == "data" and len(values) == 1:
                continue  # a data set is what its fingerprint says, whatever its folder is called
            if values != [have]:
                raise _another_question(stored, field, have, ",".join(arm_name(value) for value in values))
    axes["seed"] = sorted(axes["seed"])
    ref = asked.ref if explicit_ref else stored.ref or _default_ref([arm_name(v) for v in axes[stored.compare]])
    if ref != stored.ref:
        added.append(f"ref={ref}")
    plugins = tuple(dict.fromkeys((*stored.plugins, *asked.plugins)))
    history = (*stored.history, f"extended: {', '.join(added)}") if added else stored.history
    return stored.model_copy(update={"axes": axes, "ref": ref, "plugins": plugins, "history": history})


def _default_ref(arms: list[str]) -> str | None:
    if len(arms) < 2:
        return None
    return "xnorm" if "xnorm" in arms else arms[0]


def _another_question(stored: Study, field: str, have: Any, want: Any) -> UsageError:
    return UsageError(
        f"study '{stored.name}' asks another question: its {field} is {arm_name(have)}, not {want}; "
        f"choose another name with --study"
    )
