"""The request for a study: an experiment file, a smoke run and the options merged, before anything is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ablations.config import UsageError
from ablations.config.claim import Claim
from ablations.config.commands import DEFAULT_TRIALS, Rerun, RunOptions, TuneOptions
from ablations.config.experiment import Experiment, load_experiment
from ablations.config.field_values import read_search
from ablations.config.grid import GridRequest
from ablations.config.grid_options import overridden, parse_exclusions, parse_zipped, shortened
from ablations.config.options import EngineOptions, InMemory
from ablations.config.parsing import devices, folders, numbers, shard
from ablations.config.search import EXAMPLE, FIRST_TRIAL_SEED, Point, Search
from ablations.config.seeds import parse_confirmed, parse_seeds
from ablations.config.types import COSINE
from ablations.config.values import parse_values, value_name

Value = TypeVar("Value")

SMOKE_IMAGES = {"train_limit": [256], "batch_size": [64]}
SMOKE: dict[str, list[Any]] = {
    "epochs": [1],
    "warmup_epochs": [0],
    "warmup_steps": [0],
    "schedule": [COSINE],
    "seed": [0, 1],
    **SMOKE_IMAGES,
}
"""Fields of a smoke run: they override an experiment file, and options override them; the arms stay unchanged."""

SMOKE_OBJECTS = {"train_limit": [16], "batch_size": [4]}
"""Their values for a smoke run that detects: its images take a hundred times longer."""

SMOKE_TRIALS = 2
"""Trials of each arm in a smoke run of a tuning, and seeds of the winners."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A study or tuning as it is asked for.

    Args:
        asked: values for each field that was given; ``data`` as on the command line.
        grids: grids whose union the study is; empty: the product of ``asked``.
        per_arm: values of fields that depend on the arm, by its name.
        from_file: whether an experiment file says which grids and values per arm there are.
        notes: what of the grids is taken from a stored study, or left without effect by options, one line each.
        compare: the field whose values are the arms.
        ref: the reference arm; None: xnorm, or the first arm.
        recipe: gives the values of the other fields.
        name: the study's name; None: made from the compared field and the data.
        question: one sentence.
        claims: what the study's numbers are to support or to contradict.
        search: ranges of a tuning; its fields are not in ``asked``.
        points: values of the searched fields.
        trials: whether the cells are the trials of a tuning, and not the replicates of its winners.
        init: folders of classifiers' cells, from whose weights the backbones of detectors start.
        out: folder that holds the studies.
        data_root: folder of torchvision's data.
        download: whether missing data may be downloaded.
        in_memory: whether folders of images are decoded once (``on``), streamed (``off``), or by their size (``auto``).
        devices: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``, or several of ``cuda:N``.
        plugins: modules that register normalisers.
        smoke: whether this is a smoke run: one epoch, 256 images, 2 seeds, under a name of its own.
        engine: how the cells are run.
        shard: number of the part of the cells to run, from 1, and the number of parts.
        missing: whether cells without a record are run.
        rerun: which finished cells are run again.
    """

    asked: dict[str, list[Any]]
    grids: tuple[GridRequest, ...] = ()
    per_arm: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    from_file: bool = False
    notes: tuple[str, ...] = ()
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

    @property
    def named(self) -> set[str]:
        """Fields that it gives values of."""
        return {*self.asked, *(name for grid in self.grids for name in grid.asked)} | self.named_per_arm

    @property
    def named_per_arm(self) -> set[str]:
        """Fields that it makes depend on the arm."""
        return {name for own in self.per_arm.values() for name in own}


def make_request(options: RunOptions | TuneOptions, *, search: Search | None = None) -> Request:
    """Merge an experiment file, a smoke run and the options of a command: each overrides the one before it.

    Args:
        options: options of ``run`` or ``tune``.
        search: ranges of a tuning.

    Raises:
        UsageError: the file cannot be read or has a wrong key or value, or it is a tuning and nothing is searched.
    """
    loaded = _load(options)
    if loaded.search is not None and search is None:
        file = options.experiment
        raise UsageError(f"{file} is a tuning: run it with python -m ablations tune --experiment {file}")
    name = _first(options.study, loaded.study, default=None)
    compare = _first(options.compare, loaded.compare, default="norm")
    given = options.asked
    if isinstance(options, RunOptions):
        given |= {} if options.seeds is None else {"seed": parse_seeds(options.seeds)}
    short = _shortened(options, {**loaded.asked, **given}, compare)
    asked = {**loaded.asked, **short, **given}
    grids, notes = _grids_of(options, loaded, short=short, given=given, asked=asked)
    per_arm, others = _per_arm_of(loaded, compare, {**short, **given})
    engine = options.engine_options(retry=options.retry)
    if options.probe_steps is None and loaded.probe_steps is not None:
        engine = replace(engine, probe_steps=numbers(loaded.probe_steps, least=1))
    return Request(
        asked=asked,
        grids=grids,
        per_arm=per_arm,
        from_file=options.experiment is not None,
        notes=(*notes, *others),
        compare=compare,
        ref=_first(options.ref, loaded.ref, default=None),
        recipe=_first(options.recipe, loaded.recipe, default="quick"),
        name=f"{name}-smoke" if options.smoke and name else name,
        question=loaded.question,
        claims=loaded.claims,
        plugins=tuple(dict.fromkeys((*loaded.plugins, *options.plugins))),
        out=Path(options.out),
        data_root=Path(options.data_root),
        download=options.download,
        in_memory=options.in_memory,
        devices=devices(options.devices or "auto"),
        smoke=options.smoke,
        search=search,
        init=folders(options.init),
        engine=engine,
        shard=shard(options.shard) if isinstance(options, RunOptions) else (1, 1),
        rerun=options.rerun,
    )


def _grids_of(
    options: RunOptions | TuneOptions,
    loaded: Experiment,
    *,
    short: Mapping[str, list[Any]],
    given: Mapping[str, list[Any]],
    asked: Mapping[str, list[Any]],
) -> tuple[tuple[GridRequest, ...], tuple[str, ...]]:
    """Return the grids of a file with the options that override it, and what that leaves without effect."""
    requests, notes = overridden(loaded.requests, given, short=short)
    if isinstance(options, RunOptions) and (options.zip or options.exclude):
        more = GridRequest(zipped=parse_zipped(options.zip), exclude=parse_exclusions(options.exclude))
        requests = [
            replace(each, zipped=(*each.zipped, *more.zipped), exclude=(*each.exclude, *more.exclude))
            for each in requests or (GridRequest(),)
        ]
    found, others = shortened(requests, {f: v for f, v in short.items() if f not in given}, asked=asked)
    return found, (*notes, *others)


def _per_arm_of(
    loaded: Experiment, compare: str, given: Mapping[str, list[Any]]
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Return a file's values per arm, by the arms' names in a study, and in a line each what options override."""
    found: dict[str, dict[str, Any]] = {}
    arms = list(map(value_name, given.get(compare, [])))
    for text, own in loaded.per_arm.items():
        values = parse_values(compare, text)
        if len(values) > 1:
            raise UsageError(f"per_arm {text}: give one arm")
        if compare in own:
            raise UsageError(f"per_arm: {compare} is the compared field; its values are the arms")
        arm = value_name(values[0])
        if arm in found:
            raise UsageError(f"per_arm: {arm} is given twice")
        found[arm] = {name: value for name, value in own.items() if name not in given}
    lost = {name: None for own in loaded.per_arm.values() for name in own if name in given}
    notes = tuple(f"per_arm has no effect here: {name} is given for all arms" for name in lost)
    return {arm: own for arm, own in found.items() if own and (compare not in given or arm in arms)}, notes


def _load(options: RunOptions | TuneOptions) -> Experiment:
    return Experiment() if options.experiment is None else load_experiment(options.experiment)


def _first(*values: Value | None, default: Value) -> Value:
    """Return the first value that is given."""
    return next((value for value in values if value is not None), default)


def _shortened(
    options: RunOptions | TuneOptions, asked: Mapping[str, list[Any]], compare: str
) -> Mapping[str, list[Any]]:
    """Return the fields that a smoke run shortens; the compared one keeps its values."""
    if not options.smoke:
        return {}
    short = SMOKE | SMOKE_OBJECTS if asked.get("task") == ["detect"] else SMOKE
    return {field: values for field, values in short.items() if field != compare}


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A tuning as it is asked for.

    Args:
        request: request without seeds and points.
        search: ranges and sampler.
        num_trials: trials of each arm.
        confirm: seeds on which the winner of each arm is trained; empty: none is.
        storage: URL of the database of Optuna's studies; None: a journal file in the folder of the trials.
    """

    request: Request
    search: Search
    num_trials: int
    confirm: list[int]
    storage: str | None


def make_tuning(options: TuneOptions) -> Tuning:
    """Merge an experiment file, a smoke run and the options of ``tune``: each overrides the one before it.

    Raises:
        UsageError: nothing is searched, a seed of the winners is a trial's, or as for `make_request`.
    """
    loaded = _load(options)
    loaded.check_tuning()
    ranges = _first(options.search, loaded.search, default=None)
    if ranges is None:
        raise UsageError(f"a tuning needs a search: give --search {EXAMPLE}, or only lr")
    found = read_search(ranges)
    search = Search(
        ranges=found.ranges,
        sampler=_first(options.sampler, loaded.sampler, default=found.sampler),
        seed=_first(options.sampler_seed, loaded.sampler_seed, default=found.seed),
    )
    seeds = parse_confirmed(_first(options.confirm, loaded.confirm, default=0))
    if options.smoke and options.confirm is None:
        seeds = seeds[:SMOKE_TRIALS]
    if late := [seed for seed in seeds if seed >= FIRST_TRIAL_SEED]:
        raise UsageError(f"--confirm: seed {late[0]} is one of the trials', which begin at {FIRST_TRIAL_SEED:,}")
    default = SMOKE_TRIALS if options.smoke else loaded.trials or DEFAULT_TRIALS
    request = make_request(options, search=search)
    if request.asked.get("stack", [1]) != [1]:
        raise UsageError("--stack: the trials of a tuning differ in more than their seeds; leave it out")
    return Tuning(
        request=request,
        search=search,
        num_trials=options.trials or default,
        confirm=seeds,
        storage=options.storage,
    )
