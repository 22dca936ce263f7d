"""The plan of a request: everything is checked, and nothing of the study is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ablations.config import CellConfig, Study, recipes
from ablations.config.effects import check_effects, check_task
from ablations.config.growth import extend
from ablations.config.numerics import recorded_numerics
from ablations.config.options import EngineOptions
from ablations.config.request import Request
from ablations.config.search import check_search
from ablations.config.task import task_of
from ablations.data import DataInfo
from ablations.engine.capacity import Capacity
from ablations.engine.devices import cluster_devices, find_devices
from ablations.planning import checks
from ablations.planning.asked import (
    complete,
    complete_grids,
    name_claimed_arms,
    parse_ref,
    searched_fields,
    study_folder,
    with_per_arm,
)
from ablations.planning.design import design_study
from ablations.planning.initial import find_initial
from ablations.planning.known import mark_known
from ablations.planning.stored import Stored, read_stored
from ablations.planning.study_data import find_data
from ablations.store import CellRecord, Store
from ablations.store.provenance import import_plugin, numerics_now, record_norms

State = Literal["done", "stale", "failed", "missing"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Checked plan of a request; nothing of the study is written yet.

    Args:
        study: study to write to study.yaml, extended by the request.
        cells: requested cells, in the order of running.
        states: state of each cell, by id.
        request: request, with the search of the stored study.
        stored: contents of the study's folder when the plan was made.
        infos: data sets by fingerprint.
        devices: devices to train on.
        engine: options of the engine.
        taken: values of axes that the request leaves out and takes from the stored study.
        starts: initial weights of nets that do not start from their seeds, one line each.
    """

    study: Study
    cells: list[CellConfig]
    states: dict[str, State]
    request: Request
    stored: Stored
    infos: dict[str, DataInfo]
    devices: tuple[torch.device, ...]
    engine: EngineOptions
    taken: dict[str, list[Any]]
    starts: tuple[str, ...] = ()

    @property
    def store(self) -> Store:
        """Folder of the study."""
        return self.stored.store

    @property
    def todo(self) -> list[CellConfig]:
        """Cells of the shard to run: missing ones, failed ones to retry, and finished ones to rerun."""
        number, parts = self.request.shard
        shards = shard_numbers(self.cells, parts)
        return [cell for cell in self.cells if shards[cell.id] == number and self._is_wanted(cell)]

    @property
    def num_jobs(self) -> int:
        """Number of cells that run at once, as far as it is known before the first one."""
        return len(self._capacity.slots)

    @property
    def num_workers(self) -> int:
        """Number of processes that decode streamed images for each cell, as far as it is known before the first one."""
        return self._capacity.workers

    @property
    def _capacity(self) -> Capacity:
        threads = max(cell.run.threads_per_cell for cell in self.cells)
        return Capacity(self.devices, self.engine, threads_per_cell=threads)

    def _is_wanted(self, cell: CellConfig) -> bool:
        state, retry = self.states[cell.id], self.engine.retry
        if state == "missing":
            return self.request.missing
        outcome = self.stored.records[cell.id].outcome
        if state == "failed":
            return retry in ("failed", "all") or (retry == "oom" and outcome["kind"] == "oom")
        if retry == "all" and outcome["outcome"] == "diverged":
            return True
        return self.request.rerun in ("all", state)

    def count(self, state: State) -> int:
        """Count the cells in a state."""
        return list(self.states.values()).count(state)


def make_plan(request: Request) -> Plan:
    """Check a request in full and return its plan.

    It writes only the cache of decoded data, and repairs what a killed runner left behind.

    Raises:
        UsageError: any mistake in the request.
    """
    for plugin in request.plugins:
        import_plugin(plugin)
    asked = complete(request)
    request = name_claimed_arms(request)
    task = task_of(asked)
    recipe = recipes.recipe_fields(request.recipe, task)
    every = with_per_arm(asked, request)
    check_task(task, every, recipe=recipe, searched=searched_fields(request))
    request, devices = _placed(request)
    checks.check_device_fields(devices[0], every)
    checks.check_engine(devices, request.engine)
    data = find_data(request, asked, complete_grids(request, asked))
    store = Store(study_folder(request, data))
    checks.check_access(store, request.engine)

    stored = read_stored(store)
    named, taken, own_grids = request.named, stored.values_taken(request), request.grids
    if own_grids:
        request = replace(request, asked={**request.asked, **taken})
    request, data = stored.with_search(stored.with_grids(request)), data.named_as_in(stored.study)
    asked = complete(request) | taken
    taken = taken if request.grids == own_grids else {}  # the grids of the stored study have these values
    checks.check_device_fields(devices[0], with_per_arm(asked, request))
    weights, ref = find_initial(request, asked, stored.study), parse_ref(request)
    checks.check_claims(request, asked)
    if request.search is not None:
        check_search(request.search, compare=request.compare, asked=asked, models=asked.get("model", []))

    study, cells = design_study(request, asked, data, store=store, init=weights.hash, ref=None if stored.study else ref)
    infos = data.by_fingerprint
    check_effects(named, cells, recipe=recipe)
    checks.check_cells(cells, infos, request.engine)
    if stored.study is None:
        study = stored.with_claims(study, cells)
    else:
        study = extend(stored.study, study, named=named, ref=ref, num_results=stored.num_results)
    study = study.model_copy(update={"norms": {**study.norms, **record_norms(study.axes["norm"])}})
    study = mark_known(study, cells, stored=stored, out=request.out)
    numerics = numerics_now((cell.net.norm for cell in cells), task=task)
    plan = Plan(
        study=study,
        cells=cells,
        states={c.id: _state(stored.records.get(c.id), numerics=numerics[c.net.norm]) for c in cells},
        request=request,
        stored=stored,
        infos=infos,
        devices=devices,
        engine=replace(request.engine, weights=weights.paths),
        taken=taken,
    )
    return replace(plan, starts=tuple(checks.check_builds(plan.todo, infos, weights=dict(weights.paths))))


def _state(record: CellRecord | None, *, numerics: str) -> State:
    if record is None:
        return "missing"
    if not record.has_result:
        return "failed"
    return "done" if recorded_numerics(record.outcome) == numerics else "stale"


def shard_numbers(cells: list[CellConfig], parts: int) -> dict[str, int]:
    """Divide cells into parts by seed, so that a pair stays on one machine; cell by cell if seeds are fewer than parts.

    Args:
        cells: cells in the order of running.
        parts: number of parts, from 1.

    Returns:
        Part of each cell by its id, from 1.
    """
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    if len(seeds) < parts:
        return {cell.id: 1 + i % parts for i, cell in enumerate(cells)}
    return {cell.id: 1 + seeds.index(cell.seed) % parts for cell in cells}


def _placed(request: Request) -> tuple[Request, tuple[torch.device, ...]]:
    """Find the devices, and name those that the options need where the choice is left to us."""
    engine, names = request.engine, request.devices
    if engine.name != "local":
        if names == ("auto",) and (engine.gpus_per_cell > 1 or engine.slurm.gpus_per_task):
            names = ("cuda",)
        return replace(request, devices=names), cluster_devices(names)
    if engine.gpus_per_cell > 1 and names in (("auto",), ("cuda",)):
        names = tuple(f"cuda:{number}" for number in range(engine.gpus_per_cell))
    return replace(request, devices=names), find_devices(names)
