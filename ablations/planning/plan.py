"""From a request to a plan: everything checked, nothing of the study written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ablations.config import CellConfig, Study, UsageError, recipes
from ablations.config.commands import DEFAULT_NORMS, DEFAULT_SEEDS, Rerun
from ablations.config.effects import check_effects
from ablations.config.foreign import check_own_fields, is_foreign, is_timm
from ablations.config.growth import extend
from ablations.config.numerics import recorded_numerics
from ablations.config.options import EngineOptions
from ablations.config.packages import require_package
from ablations.config.request import SMOKE_IMAGES, SMOKE_OBJECTS, Request
from ablations.config.search import check_search
from ablations.config.study import DATA_FIELDS, design
from ablations.config.task import check_meaning, task_of
from ablations.config.values import check_field, check_values, parse_values, value_name
from ablations.data import OWN_SIZE, DataInfo
from ablations.engine.capacity import Capacity
from ablations.engine.devices import find_devices
from ablations.planning.checks import (
    check_access,
    check_claims,
    check_engine,
    check_nets,
    check_precision,
    check_schedules,
    check_sizes,
    check_workers,
)
from ablations.planning.initial import InitialWeights, find_weights
from ablations.planning.study_data import StudyData, find_data
from ablations.store import TRIALS, CellRecord, Store
from ablations.store.provenance import import_plugin, numerics_now
from ablations.tasks.net import check_foreign_name
from ufo.norms import NORMS
from ufo.sizes import SIZES

State = Literal["done", "stale", "failed", "missing"]


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
        devices: to train on.
        engine: how the cells are run.
        shard: which of how many parts of the cells are run, from 1.
        missing: whether cells that have no record yet are run.
        rerun: which finished cells are run again.
        study_text: what study.yaml held as the plan was made.
        is_begun: whether the study's question stands: cells have been run, or are about to be.
        taken: values of axes that were not asked for and are the stored study's.
        starts: what the nets that are to be trained start from, where that is not their seeds.
    """

    study: Study
    cells: list[CellConfig]
    states: dict[str, State]
    records: dict[str, CellRecord]
    store: Store
    infos: dict[str, DataInfo]
    devices: tuple[torch.device, ...]
    engine: EngineOptions
    shard: tuple[int, int]
    missing: bool
    rerun: Rerun | None
    study_text: str
    is_begun: bool
    taken: dict[str, list[Any]]
    starts: tuple[str, ...] = ()

    @property
    def todo(self) -> list[CellConfig]:
        """The cells to run: missing, failed, and those asked to be run again; of them, the shard's."""
        number, parts = self.shard
        shards = shard_numbers(self.cells, parts)
        return [cell for cell in self.cells if shards[cell.id] == number and self._is_wanted(cell)]

    @property
    def num_jobs(self) -> int:
        """Cells side by side, as far as that is known before the first has been run."""
        return len(self._capacity.slots)

    @property
    def num_workers(self) -> int:
        """Processes that decode streamed images for each cell, as far as that is known before."""
        return self._capacity.workers

    @property
    def _capacity(self) -> Capacity:
        threads = max(cell.threads_per_cell for cell in self.cells)
        return Capacity(self.devices, self.engine, threads_per_cell=threads)

    def _is_wanted(self, cell: CellConfig) -> bool:
        state, retry = self.states[cell.id], self.engine.retry
        if state == "missing":
            return self.missing
        outcome = self.records[cell.id].outcome
        if state == "failed":
            return retry in ("failed", "all") or (retry == "oom" and outcome["kind"] == "oom")
        if retry == "all" and outcome["outcome"] == "diverged":
            return True
        return self.rerun == "all" or self.rerun == state

    def count(self, state: State) -> int:
        """Count the cells in a state."""
        return list(self.states.values()).count(state)


def make_plan(request: Request) -> Plan:
    """Check a request in full and lay out what it comes to.

    Only the cache of decoded data may be written, and what a runner left half done when it died is put right.

    Raises:
        UsageError: anything that the user got wrong, in one line.
    """
    for plugin in request.plugins:
        import_plugin(plugin)
    asked = _complete(request)
    task = task_of(asked)
    usual = recipes.recipe_fields(request.recipe, task)
    check_meaning(task, asked, usual=usual, searched=_searched(request))
    devices = find_devices(request.devices)
    check_precision(devices[0], asked)
    check_engine(devices[0], request.engine)
    data = find_data(
        asked["data"],
        image_sizes=asked.get("image_size", [None]),
        classes=asked.get("classes", [None]),
        data_root=request.data_root,
        download=request.download,
        in_memory=request.in_memory,
        task=task,
    )
    store = Store(_folder(request, data))
    check_access(store)
    study_text = store.study_text
    if store.exists:
        store.repair()
    records = store.records()
    # Until it is begun, the question may change.
    is_begun = bool(records) or any(store.leases.running()) or (store.exists and store.leases.is_opening)
    stored = store.read_study() if is_begun else None
    taken = {} if stored is None else _take_from(stored, request)
    if stored is not None and request.search is None:
        request = replace(request, search=stored.search, points=stored.points)
    asked |= taken
    check_precision(devices[0], asked)
    data = data.as_called_by(stored)
    weights = _find_weights(request, asked, stored)
    ref = _parse_ref(request)
    check_claims(request, asked)
    if request.search is not None:
        check_search(request.search, compare=request.compare, asked=asked, models=asked.get("model", []))
    title = _title(request, store)
    study, cells = _design(request, asked, data, weights, name=title, ref=ref if stored is None else None)
    if request.trials and study.conditions:
        raise UsageError(
            f"a tuning has one condition, and {', '.join(study.conditions)} has several values: tune one by one"
        )
    infos = data.by_fingerprint
    check_workers(request.engine.workers, infos)
    check_effects(request.asked, cells, usual=usual)
    check_sizes(cells, infos)
    check_schedules(cells, infos)
    if stored is not None:
        num_results = sum(record.has_result for record in records.values())
        study = extend(stored, study, named=request.asked.keys(), ref=ref, num_results=num_results)
    plan = Plan(
        study=study,
        cells=cells,
        states=_states(cells, records, numerics_now((cell.norm for cell in cells), task=task)),
        records=records,
        store=store,
        infos=infos,
        devices=devices,
        engine=replace(request.engine, weights=weights.paths),
        shard=request.shard,
        missing=request.missing,
        rerun=request.rerun,
        study_text=study_text,
        is_begun=is_begun,
        taken=taken,
    )
    return replace(plan, starts=tuple(check_nets(plan.todo, infos, weights=dict(weights.paths))))


def _find_weights(request: Request, asked: Mapping[str, list[Any]], stored: Study | None) -> InitialWeights:
    """Find what nets start from, and check that it is what those of a stored study did.

    Raises:
        UsageError: it is something else, or a task or nets that start from their seeds alone.
    """
    if request.init and task_of(asked) != "detect":
        raise UsageError("--init is for --task detect: a classifier starts from its seed")
    if request.init and "matched" in asked.get("scale", []):
        raise UsageError("--init and --scale matched: trained weights have a scale of their own; leave one out")
    if request.init and (foreign := [model for model in asked.get("model", []) if is_foreign(model)]):
        raise UsageError(f"--init is for UFO-ViT, and means nothing to {foreign[0]}")
    weights = find_weights(request.init, norms=asked["norm"])
    held = weights.hash if stored is None else stored.fixed.get("init", "none")
    if held != weights.hash:
        what = "starts from its seeds" if held == "none" else "starts from weights: give the same ones with --init"
        raise UsageError(f"study {stored.name if stored else ''} {what} (init {held}, not {weights.hash})")
    return weights


def _take_from(stored: Study, request: Request) -> dict[str, list[Any]]:
    """Return the axes of a stored study that were not asked for: they stay as they are.

    Data sets must be asked for, since a study does not hold the place of a folder.
    """
    for plugin in stored.plugins:
        import_plugin(plugin)
    if stored.compare != request.compare:
        return {}
    unnamed = {f: values for f, values in stored.axes.items() if f not in request.asked and f not in DATA_FIELDS}
    return {f: values for f, values in unnamed.items() if values != _complete(request).get(f)}


def _design(
    request: Request,
    asked: dict[str, list[Any]],
    data: StudyData,
    weights: InitialWeights,
    *,
    name: str,
    ref: str | None,
) -> tuple[Study, list[CellConfig]]:
    task = task_of(asked)
    recipe = {field: [value] for field, value in recipes.recipe_fields(request.recipe, task).items()}
    decided: dict[str, list[Any]] = {"smoke": [request.smoke], "scored_on": ["val" if request.trials else "test"]}
    decided["init"] = [weights.hash]
    asked = {**recipe, **asked, "data": data.names, **decided}
    asked = {field: values for field, values in asked.items() if field not in _searched(request)}
    if request.smoke:  # no more images than there are
        fewest = min(info.num_train for info in data.by_fingerprint.values())
        for field, values in (SMOKE_OBJECTS if task == "detect" else SMOKE_IMAGES).items():
            if asked.get(field) == values:
                asked[field] = [min(fewest, *values)]
                fewest = asked[field][0]  # a batch is no larger than the images taken
            elif field == "train_limit" and asked.get(field):
                fewest = min(fewest, *(value for value in asked[field] if value is not None))

    def defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
        info = data.info(fields["data"], fields.get("image_size"), fields.get("classes"))
        values = recipes.defaults(
            image_side=min(info.image_shape[:2]),
            flips=info.flips,
            task=task,
            recipe=request.recipe,
            streamed=info.streamed,
            batch_size=fields.get("batch_size"),
            from_weights=weights.hash != "none",
        )
        return {**values, "data_fingerprint": info.fingerprint, "streamed": info.streamed}

    return design(
        name=name,
        asked=asked,
        compare=request.compare,
        ref=ref,
        recipe=request.recipe,
        defaults=defaults,
        question=request.question,
        search=request.search,
        points=request.points,
        plugins=request.plugins,
        claims=request.claims,
    )


def _complete(request: Request) -> dict[str, list[Any]]:
    if request.compare == "data":
        raise UsageError("--compare data: arms see the same batches; give several --data, and each gets its own table")
    if request.compare == "seed":
        raise UsageError(f"--compare {request.compare}: seeds are replicates and cannot be arms; choose another field")
    check_field(request.compare)
    norms = list(DEFAULT_NORMS) if request.compare == "norm" else ["xnorm"]
    data = "shapes" if request.asked.get("task") == ["detect"] else "digits"
    asked: dict[str, list[Any]] = {"data": [data], "norm": norms, "seed": list(range(DEFAULT_SEEDS))}
    asked |= request.asked
    own_sizes = {OWN_SIZE.get(str(spec).partition(":")[0]) for spec in asked["data"]}
    if len(own_sizes) == 1 and own_sizes != {None}:
        asked.setdefault("image_size", list(own_sizes))
    for field, values in asked.items():
        check_values(field, values)
    for name in asked["norm"]:
        NORMS[name]
    for model in asked.get("model", []):
        if is_timm(model):
            require_package("timm", f"model {model}")
        if is_foreign(model):
            check_foreign_name(model, task_of(asked))
        else:
            SIZES[model]
    check_own_fields(asked)
    return asked


def _parse_ref(request: Request) -> str | None:
    if request.ref is None:
        return None
    values = parse_values(request.compare, request.ref)
    if len(values) > 1:
        raise UsageError(f"--ref {request.ref}: give one arm")
    return value_name(values[0])


def shard_numbers(cells: list[CellConfig], parts: int) -> dict[str, int]:
    """Divide cells into parts, numbered from 1: whole seeds, so that a pair stays on one machine.

    Where there are fewer seeds than parts, cell by cell.

    Args:
        cells: in the order in which they are run.
        parts: how many.

    Returns:
        The number of each cell's part, by its id.
    """
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    if len(seeds) < parts:
        return {cell.id: 1 + i % parts for i, cell in enumerate(cells)}
    return {cell.id: 1 + seeds.index(cell.seed) % parts for cell in cells}


def _searched(request: Request) -> list[str]:
    return [] if request.search is None else request.search.fields


def _folder(request: Request, data: StudyData) -> Path:
    """Return the study's folder; that of a tuning's trials lies in the one that its winners will have."""
    folder = request.out / _name(request, data)
    return folder / TRIALS if request.trials else folder


def _title(request: Request, store: Store) -> str:
    """Return the study's name: its folder's, of trials together with the folder above."""
    return f"{store.folder.parent.name}/{TRIALS}" if request.trials else store.folder.name


def _name(request: Request, data: StudyData) -> str:
    if request.name is not None:
        if not re.fullmatch(r"\w[\w.+-]*", request.name):
            raise UsageError(
                f"--study {request.name}: a name has letters, digits, '.', '_', '+' and '-'; --out is the folder"
            )
        return request.name
    sets = "-".join(name.partition(":")[2] or name for name in data.names)
    name = re.sub(r"[^\w.-]", "_", f"{request.compare}-{sets}{'-tuned' if request.search else ''}")
    return f"{name}-smoke" if request.smoke else name


def _states(cells: list[CellConfig], records: dict[str, CellRecord], numerics: dict[str, str]) -> dict[str, State]:
    states: dict[str, State] = {}
    for cell in cells:
        record = records.get(cell.id)
        if record is None:
            states[cell.id] = "missing"
        elif not record.has_result:
            states[cell.id] = "failed"
        else:
            states[cell.id] = "done" if recorded_numerics(record.outcome) == numerics[cell.norm] else "stale"
    return states
