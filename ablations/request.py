"""What was asked for, by flags or an experiment file, before it is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ablations.data import InMemory
from ablations.engine.options import EngineOptions
from ablations.study import Study, UsageError
from ablations.study.cell import NEVER_ASKED
from ablations.study.claim import Claim
from ablations.study.experiment import Experiment, load_experiment
from ablations.study.timm import without_own_fields

SMOKE_IMAGES = {"train_limit": [256], "batch_size": [64]}
SMOKE: dict[str, list[Any]] = {"epochs": [1], "warmup_epochs": [0], "seed": [0, 1], **SMOKE_IMAGES}
"""Fields of a smoke run: they win over an experiment file and yield to flags; the arms stay as they are."""

DEFAULT_NORMS = ("xnorm", "l2", "single_l2")
DEFAULT_SEEDS = 8
"""Enough for six comparisons: 2 / 2^8 x 6 < 0.05."""

Rerun = Literal["stale", "all"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for.

    Args:
        asked: values for each field that was named; ``data`` as on the command line.
        compare: the field whose values are the arms.
        ref: the reference arm; None: xnorm, or the first arm.
        recipe: the values of fields that are not named.
        name: the study's; None: made from the compared field and the data.
        question: one sentence.
        claims: what the study's numbers are to support or to contradict.
        out: folder that holds the studies.
        data_root: folder of torchvision's data.
        download: whether missing data may be fetched.
        in_memory: whether folders of images are decoded once (``on``), streamed (``off``), or by their size (``auto``).
        devices: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``, or several of ``cuda:N``.
        plugins: modules that register normalisers.
        smoke: one epoch, 256 images, 2 seeds, under a name of its own.
        engine: how the cells are run.
        shard: which of how many parts of the cells are run, from 1.
        missing: whether cells that have no record yet are run.
        rerun: which finished cells are run again.
    """

    asked: dict[str, list[Any]]
    compare: str = "norm"
    ref: str | None = None
    recipe: str = "quick"
    name: str | None = None
    question: str = ""
    claims: tuple[Claim, ...] = ()
    out: Path = Path("runs")
    data_root: Path = Path("data")
    download: bool = False
    in_memory: InMemory = "auto"
    devices: tuple[str, ...] = ("auto",)
    plugins: tuple[str, ...] = ()
    smoke: bool = False
    engine: EngineOptions = field(default_factory=EngineOptions)
    shard: tuple[int, int] = (1, 1)
    missing: bool = True
    rerun: Rerun | None = None


def make_request(
    *,
    experiment: Path | None,
    asked: dict[str, list[Any]],
    smoke: bool,
    compare: str | None,
    ref: str | None,
    recipe: str | None = None,
    name: str | None,
    plugins: tuple[str, ...],
    out: Path,
    data_root: Path,
    download: bool,
    in_memory: InMemory = "auto",
    devices: tuple[str, ...],
    engine: EngineOptions,
    shard: tuple[int, int],
    rerun: Rerun | None,
) -> Request:
    """Merge an experiment file with what was asked for beside it, which wins; a smoke run stands between them.

    Raises:
        UsageError: the experiment file cannot be read, or has a key or value that is none.
    """
    loaded = Experiment() if experiment is None else load_experiment(experiment)
    name = loaded.study if name is None else name
    compare = loaded.compare if compare is None else compare
    shortened = {field: values for field, values in SMOKE.items() if smoke and field != compare}
    return Request(
        asked={**loaded.asked, **shortened, **asked},
        compare=compare,
        ref=loaded.ref if ref is None else ref,
        recipe=loaded.recipe if recipe is None else recipe,
        name=f"{name}-smoke" if smoke and name else name,
        question=loaded.question,
        claims=loaded.claims,
        plugins=tuple(dict.fromkeys((*loaded.plugins, *plugins))),
        out=out,
        data_root=data_root,
        download=download,
        in_memory=in_memory,
        devices=devices,
        smoke=smoke,
        engine=engine,
        shard=shard,
        rerun=rerun,
    )


def request_of(study: Study, *, folder: Path, data: list[str] | None, data_root: Path) -> Request:
    """Ask for a stored study again, as it is.

    Args:
        study: as its folder has it.
        folder: the study's.
        data: its data sets as on the command line, where their names do not say where they are.
        data_root: folder of torchvision's data.

    Raises:
        UsageError: a data set is a folder of images, and a study does not hold its place.
    """
    single = {field: [value] for field, value in study.fixed.items() if field not in NEVER_ASKED}
    asked = without_own_fields({**single, **study.axes})
    if data is not None:
        asked["data"] = data
    elif placeless := [name for name in asked["data"] if ":" in name]:
        kind = placeless[0].partition(":")[0]
        raise UsageError(f"a study does not hold the place of {placeless[0]}: give it as --data {kind}:DIR")
    return Request(
        asked=asked,
        compare=study.compare,
        ref=study.ref,
        recipe=study.recipe or "quick",
        name=folder.resolve().name,
        out=folder.parent if folder.name not in ("", "..") else folder.resolve().parent,
        data_root=data_root,
        in_memory=_in_memory_of(study),
        plugins=study.plugins,
        smoke=bool(study.fixed.get("smoke")),
    )


def _in_memory_of(study: Study) -> InMemory:
    """Return what a stored study was asked for; by size where its data sets differ in it, as size alone tells them."""
    streamed = {bool(point.get("streamed")) for point in study.data_points.values()}
    if len(streamed) > 1:
        return "auto"
    if streamed == {True}:
        return "off"
    folders = any(":" in name for name in (point["data"] for point in study.data_points.values()))
    return "on" if folders else "auto"
