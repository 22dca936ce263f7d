"""What the commands do: plan a study, run what is missing. The command line only parses and prints."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from ablations import recipes
from ablations.data import DataInfo, find_source, prepare
from ablations.provenance import import_plugin, source_hash
from ablations.stats import can_decide, seeds_needed
from ablations.store import CellRecord, Store
from ablations.study import CellConfig, Study, UsageError
from ablations.study.cell import check_field, check_values
from ablations.study.experiment import Experiment, load_experiment
from ablations.study.grid import arm_name, design, extend
from ablations.tasks.net import build_net
from ufo.attention import ClassAttention
from ufo.model import SIZES
from ufo.norms import NORMS

if TYPE_CHECKING:
    from ablations.report import Report

SMOKE: dict[str, list[Any]] = {
    "epochs": [1],
    "warmup_epochs": [0],
    "train_limit": [256],
    "batch_size": [64],
    "seed": [0, 1],
}
"""Fields of a smoke run: they win over an experiment file and yield to flags."""

DEFAULT_NORMS = ("xnorm", "l2", "single_l2")
DEFAULT_SEEDS = 8
"""Enough for six comparisons: 2 / 2^8 x 6 < 0.05."""

State = Literal["done", "stale", "failed", "missing"]
Rerun = Literal["stale", "all"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for.

    Args:
        asked: values for each field that was named; ``data`` as on the command line.
        compare: the field whose values are the arms.
        ref: the reference arm; None: xnorm, or the first arm.
        name: the study's; None: made from the compared field and the data.
        question: one sentence.
        out: folder that holds the studies.
        data_root: folder of torchvision's data.
        download: whether missing data may be fetched.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        plugins: modules that register normalisers.
        smoke: one epoch, 256 images, 2 seeds, under a name of its own.
        rerun: which finished cells are run again.
    """

    asked: dict[str, list[Any]]
    compare: str = "norm"
    ref: str | None = None
    name: str | None = None
    question: str = ""
    out: Path = Path("runs")
    data_root: Path = Path("data")
    download: bool = False
    device: str = "auto"
    plugins: tuple[str, ...] = ()
    smoke: bool = False
    rerun: Rerun | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a request comes to; nothing is written yet.

    Args:
        study: as it will stand in study.yaml, grown by what is asked.
        cells: those asked for, in the order in which they are run.
        states: of each, by id.
        records: finished cells of the study's folder, by id.
        store: the study's folder.
        infos: data sets by fingerprint.
        device: to train on.
        rerun: which finished cells are run again.
    """

    study: Study
    cells: list[CellConfig]
    states: dict[str, State]
    records: dict[str, CellRecord]
    store: Store
    infos: dict[str, DataInfo]
    device: torch.device
    rerun: Rerun | None

    @property
    def todo(self) -> list[CellConfig]:
        """The cells to run: missing, failed, and those asked to be run again."""
        again = {"stale": ("stale",), "all": ("stale", "done")}.get(self.rerun or "", ())
        return [cell for cell in self.cells if self.states[cell.id] in ("missing", "failed", *again)]

    def count(self, state: State) -> int:
        """Count the cells in a state."""
        return list(self.states.values()).count(state)


def make_request(
    *,
    experiment: Path | None,
    asked: dict[str, list[Any]],
    smoke: bool,
    compare: str | None,
    ref: str | None,
    name: str | None,
    plugins: tuple[str, ...],
    out: Path,
    data_root: Path,
    download: bool,
    device: str,
    rerun: Rerun | None,
) -> Request:
    """Merge an experiment file with what was asked for beside it, which wins; a smoke run stands between them.

    Raises:
        UsageError: the experiment file cannot be read, or has a key or value that is none.
    """
    loaded = Experiment() if experiment is None else load_experiment(experiment)
    name = name or loaded.study
    return Request(
        asked={**loaded.asked, **(SMOKE if smoke else {}), **asked},
        compare=compare or loaded.compare,
        ref=ref or loaded.ref,
        name=f"{name}-smoke" if smoke and name else name,
        question=loaded.question,
        plugins=tuple(dict.fromkeys((*loaded.plugins, *plugins))),
        out=out,
        data_root=data_root,
        download=download,
        device=device,
        smoke=smoke,
        rerun=rerun,
    )


def make_plan(request: Request) -> Plan:
    """Check a request in full and lay out what it comes to; only the cache of decoded data may be written.

    Raises:
        UsageError: anything that the user got wrong, in one line.
    """
    for plugin in request.plugins:
        import_plugin(plugin)
    asked = _complete(request)
    device = _find_device(request.device, asked.get("precision", ["32-true"]))
    infos = _find_data(request, asked)
    asked["data"] = [name for name, _ in dict.fromkeys((info.name, None) for info in infos.values())]
    by_data = {(info.name, size): info for (_, size), info in infos.items()}

    def defaults(fields: Any) -> dict[str, Any]:
        info = by_data[fields["data"], fields.get("image_size")]
        values = recipes.defaults(image_side=min(info.image_shape[:2]), flips=info.flips)
        return {**values, "data_fingerprint": info.fingerprint, "smoke": request.smoke}

    study, cells = design(
        name=request.name or _default_name(request, asked),
        asked=asked,
        compare=request.compare,
        ref=request.ref,
        defaults=defaults,
        question=request.question,
        plugins=request.plugins,
    )
    by_fingerprint = {info.fingerprint: info for info in infos.values()}
    _check_sizes(cells, by_fingerprint)
    store = Store(request.out / study.name)
    records: dict[str, CellRecord] = {}
    if store.exists:
        study = extend(store.read_study(), study, explicit_ref=request.ref is not None)
        records = store.records()
    plan = Plan(
        study=study,
        cells=cells,
        states=_states(cells, records, source_hash(study.plugins)),
        records=records,
        store=store,
        infos=by_fingerprint,
        device=device,
        rerun=request.rerun,
    )
    _check_nets(plan.todo, by_fingerprint)
    return plan


def describe_plan(plan: Plan) -> list[str]:
    """Say in lines what will be run, and what to know before it is."""
    study, infos = plan.study, plan.infos.values()
    counts = [f"{plan.count(state)} {state}" for state in ("done", "stale", "failed", "missing") if plan.count(state)]
    lines = [f"{len(plan.cells)} cells: {', '.join(counts)}; {len(plan.todo)} to run on {plan.device}"]
    if plan.todo:
        lines.append(_cost(plan))
    if plan.count("stale") and plan.rerun is None:
        lines.append("stale cells come from other sources than these; --rerun stale runs them again")
    lines += [f"{info.name}: {note}" for info in infos for note in info.notes]
    num_seeds, num_comparisons = len(study.axes["seed"]), _num_comparisons(study)
    if num_comparisons and not can_decide(num_seeds, num_comparisons):
        lines.append(
            f"{num_seeds} seeds cannot reach significance in {num_comparisons} comparisons, whatever the numbers: "
            f"it takes {seeds_needed(num_comparisons)}"
        )
    return lines + _substitutions(plan.cells)


def make_report(folder: Path) -> Report:
    """Rebuild a study's table and figures.

    Args:
        folder: the study's.

    Raises:
        UsageError: there is no study, or a record that cannot be read.
    """
    from ablations.report import write_report

    store = Store(folder)
    study = store.read_study()
    for plugin in study.plugins:
        import_plugin(plugin)
    num_asked = math.prod(len(values) for values in study.axes.values())
    return write_report(store, source_hash=source_hash(study.plugins), caveats=caveats(study), num_asked=num_asked)


def caveats(study: Study) -> list[str]:
    """Return the sentences that must stand wherever these arms' results are shown."""
    if study.compare != "norm":
        return []
    return [NORMS[arm].caveat for arm in study.arms if arm in NORMS and NORMS[arm].caveat]


def execute(plan: Plan, *, on_done: Callable[[CellConfig, dict[str, Any]], None]) -> None:
    """Write the study and run what is to be run.

    Args:
        on_done: called with each finished cell and the content of its outcome.json.

    Raises:
        UsageError: the folder cannot be written.
        Interrupted: the run was stopped; what is finished is kept.
    """
    plan.store.write_study(plan.study)
    if not plan.todo:
        return
    from ablations.engine.local import run_cells

    run_cells(
        plan.todo,
        study=plan.study,
        store=plan.store,
        infos=plan.infos,
        device=plan.device,
        earlier=plan.records,
        on_done=on_done,
    )


def _complete(request: Request) -> dict[str, list[Any]]:
    if request.compare in ("seed", "data_fingerprint", "smoke"):
        raise UsageError(f"--compare {request.compare}: seeds are replicates and cannot be arms; choose another field")
    check_field(request.compare)
    norms = list(DEFAULT_NORMS) if request.compare == "norm" else ["xnorm"]
    asked: dict[str, list[Any]] = {"data": ["digits"], "norm": norms, "seed": list(range(DEFAULT_SEEDS))}
    asked |= request.asked
    for field, values in asked.items():
        check_values(field, values)
    for registry, field in ((NORMS, "norm"), (SIZES, "model")):
        for name in asked.get(field, []):
            registry[name]
    return asked


def _find_data(request: Request, asked: dict[str, list[Any]]) -> dict[tuple[str, int | None], DataInfo]:
    infos: dict[tuple[str, int | None], DataInfo] = {}
    for spec in asked["data"]:
        for size in asked.get("image_size", [None]):
            source = find_source(spec, data_root=request.data_root, download=request.download, image_size=size)
            if any(info.name == source.name and other != spec for (other, _), info in infos.items()):
                raise UsageError(f"two data sets are called {source.name}; rename the folder of one")
            infos[spec, size] = prepare(source)
    return infos


def _find_device(name: str, precisions: list[Any]) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: give auto, cpu, cuda, cuda:N or mps") from None
    usable = {
        "cpu": True,
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if device.type not in usable:
        raise UsageError(f"--device {name}: give auto, cpu, cuda, cuda:N or mps")
    if not usable[device.type]:
        raise UsageError(f"--device {name}: torch finds no such device here")
    if "16-mixed" in precisions and device.type == "cpu":
        raise UsageError("--precision 16-mixed needs a GPU; on a CPU give bf16-mixed or 32-true")
    return device


def _default_name(request: Request, asked: dict[str, list[Any]]) -> str:
    data = "-".join(name.partition(":")[2] or name for name in asked["data"])
    name = re.sub(r"[^\w.-]", "_", f"{request.compare}-{data}")
    return f"{name}-smoke" if request.smoke else name


def _check_sizes(cells: list[CellConfig], infos: dict[str, DataInfo]) -> None:
    for cell in cells:
        info = infos[cell.data_fingerprint]
        if cell.train_limit is not None and cell.train_limit > info.num_train:
            raise UsageError(
                f"train_limit {cell.train_limit} exceeds the {info.num_train} training images of {info.name}"
            )
        if cell.batch_size > (cell.train_limit or info.num_train):
            have = cell.train_limit or info.num_train
            raise UsageError(f"batch_size {cell.batch_size} exceeds the {have} training images")


def _states(cells: list[CellConfig], records: dict[str, CellRecord], sources: str) -> dict[str, State]:
    states: dict[str, State] = {}
    for cell in cells:
        record = records.get(cell.id)
        if record is None:
            states[cell.id] = "missing"
        elif not record.has_result:
            states[cell.id] = "failed"
        else:
            states[cell.id] = "done" if record.outcome["source_hash"] == sources else "stale"
    return states


def _check_nets(todo: list[CellConfig], infos: dict[str, DataInfo]) -> None:
    """Build each distinct net once, so that sizes that do not fit stop here and not in the night."""
    distinct = {cell.model_copy(update={"seed": 0, "lr": 1.0}).id: cell for cell in todo}
    for cell in distinct.values():
        info = infos[cell.data_fingerprint]
        try:
            build_net(cell, image_shape=info.image_shape, num_classes=len(info.classes))
        except ValueError as error:
            raise UsageError(f"{cell.model} with {cell.norm} on {info.name}: {error}") from error


def _cost(plan: Plan) -> str:
    from ablations.engine.estimate import estimate_seconds

    finished = [record.outcome["seconds"] for record in plan.records.values() if record.has_result]
    if finished:
        each_s, source = statistics.median(finished), "the median of the finished cells"
    else:
        first = plan.todo[0]
        arm = arm_name(getattr(first, plan.study.compare))
        try:
            each_s = estimate_seconds(first, plan.infos[first.data_fingerprint], device=plan.device)
        except Exception as error:  # the cell itself will record it; the other arms must still run
            return f"how long is not known: a step of {arm} fails with {type(error).__name__}: {error}"
        source = f"from a few steps of {arm}"
    disk_mib = sum(_disk_bytes(cell, plan.infos[cell.data_fingerprint]) for cell in plan.todo) / 2**20
    total = _duration(each_s * len(plan.todo))
    return f"about {total} in all, {_duration(each_s)} a cell ({source}), and {disk_mib:.1f} MiB of disk"


def _disk_bytes(cell: CellConfig, info: DataInfo) -> int:
    """Bytes of a cell's folder: a byte for each test image, a row for each epoch, the records."""
    depth = cell.depth or SIZES[cell.model].depth
    return info.num_test + cell.epochs * (150 + 200 * depth) + 8192


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _num_comparisons(study: Study) -> int:
    return (len(study.arms) - 1) * math.prod(len(values) for values in study.conditions.values())


def _substitutions(cells: list[CellConfig]) -> list[str]:
    """Say where class attention has another normaliser than the arm."""
    lines = []
    for cell in cells:
        blocks = SIZES[cell.model].class_attention if cell.class_attention is None else cell.class_attention
        if blocks and (used := ClassAttention.uses(cell.norm)) != cell.norm:
            lines.append(f"{cell.norm} cannot serve one query against many keys: class attention uses {used} there")
    return list(dict.fromkeys(lines))
