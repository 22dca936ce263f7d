"""What was asked for, by flags or an experiment file, before it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ablations.config import Study, UsageError
from ablations.config.cell import FIELDS
from ablations.config.claim import Claim
from ablations.config.effects import without_foreign
from ablations.config.experiment import Experiment, load_experiment
from ablations.config.options import EngineOptions, InMemory
from ablations.config.search import EXAMPLE, FIRST_TRIAL_SEED, Point, Search, parse_search
from ablations.config.seeds import parse_seeds
from ablations.config.types import COSINE

SMOKE_IMAGES = {"train_limit": [256], "batch_size": [64]}
SMOKE: dict[str, list[Any]] = {
    "epochs": [1],
    "warmup_epochs": [0],
    "warmup_steps": [0],
    "schedule": [COSINE],
    "seed": [0, 1],
    **SMOKE_IMAGES,
}
"""Fields of a smoke run: they win over an experiment file and yield to flags; the arms stay as they are."""

SMOKE_OBJECTS = {"train_limit": [16], "batch_size": [4]}
"""In their place, of a smoke run that detects, whose images take a hundred times longer."""

SMOKE_TRIALS = 2
"""Trials of a smoke run of a tuning, and seeds of its winners."""

DEFAULT_TRIALS = 16
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
        search: of a tuning; its fields are not in ``asked``.
        points: values of the searched fields.
        trials: whether the cells are the tuning's trials, and not what its winners come to.
        init: folders of cells of classifiers, whose weights the backbones of detectors start from.
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
    search: Search | None = None
    points: tuple[Point, ...] = ()
    trials: bool = False
    init: tuple[Path, ...] = ()
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
    experiment: str | Path | None,
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
    search: Search | None = None,
    init: tuple[Path, ...] = (),
) -> Request:
    """Merge an experiment file with what was asked for beside it, which wins; a smoke run stands between them.

    Raises:
        UsageError: the experiment file is a tuning and nothing is searched; or it cannot be read, or has a key or value
            that is none.
    """
    loaded = Experiment() if experiment is None else load_experiment(experiment)
    if loaded.search is not None and search is None:
        raise UsageError(f"{experiment} is a tuning: run it with python -m ablations tune --experiment {experiment}")
    name = loaded.study if name is None else name
    compare = loaded.compare if compare is None else compare
    task = asked.get("task", loaded.asked.get("task"))
    short = {**SMOKE, **(SMOKE_OBJECTS if task == ["detect"] else {})}
    shortened = {field: values for field, values in short.items() if smoke and field != compare}
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
        search=search,
        init=init,
        engine=engine,
        shard=shard,
        rerun=rerun,
    )


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was asked for of a tuning, beside the fields of its cells.

    Args:
        search: what is searched.
        num_trials: of every arm.
        confirm: seeds on which each arm's winner is trained; none: the trials are all.
        storage: of Optuna's studies, a database's URL; None: a journal file in the folder of the trials.
    """

    search: Search
    num_trials: int
    confirm: list[int]
    storage: str | None


def make_tuning(
    *,
    experiment: str | Path | None,
    search: str | Mapping[str, Any] | None,
    sampler: str | None,
    sampler_seed: int | None,
    trials: int | None,
    confirm: str | None,
    smoke: bool,
    storage: str | None,
) -> Tuning:
    """Merge what an experiment file asks of a tuning with what was asked for beside it, which wins.

    Raises:
        UsageError: nothing is searched, or a value that is none.
    """
    loaded = Experiment() if experiment is None else load_experiment(experiment)
    if search is None and loaded.search is None:
        raise UsageError(f"a tuning needs something to search: give --search {EXAMPLE}, or lr alone")
    held = loaded.search or parse_search(search or {})
    found = parse_search(
        str(held) if search is None else search,
        sampler=held.sampler if sampler is None else sampler,
        seed=held.seed if sampler_seed is None else sampler_seed,
    )
    num_trials = trials or (SMOKE_TRIALS if smoke else loaded.trials or DEFAULT_TRIALS)
    seeds = loaded.confirm or []
    if confirm is not None:
        seeds = [] if confirm == "0" else parse_seeds(confirm, option="--confirm")
    if smoke and confirm is None:
        seeds = seeds[:SMOKE_TRIALS]
    if late := [seed for seed in seeds if seed >= FIRST_TRIAL_SEED]:
        raise UsageError(f"--confirm: seed {late[0]} is one of the trials', which begin at {FIRST_TRIAL_SEED:,}")
    return Tuning(search=found, num_trials=num_trials, confirm=seeds, storage=storage)


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
    single = {field: [value] for field, value in study.fixed.items() if not FIELDS[field].traits.is_derived}
    asked = without_foreign({**single, **study.axes})
    if data is not None:
        asked["data"] = data
    elif placeless := [name for name in asked["data"] if ":" in name]:
        kind = placeless[0].partition(":")[0]
        raise UsageError(f"a study does not hold the place of {placeless[0]}: give it as --data {kind}:DIR")
    own = folder if folder.name not in ("", "..") else folder.resolve()
    own = own.parent if study.is_tuning else own
    return Request(
        asked=asked,
        compare=study.compare,
        ref=study.ref,
        recipe=study.recipe or "quick",
        search=study.search,
        points=study.points,
        trials=study.is_tuning,
        name=own.resolve().name,
        out=own.parent,
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
