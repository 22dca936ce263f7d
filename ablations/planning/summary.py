"""Summary of a plan in lines: cells, time, disk, and warnings before it is run."""

from __future__ import annotations

import shutil
import statistics
import time
from collections import Counter
from typing import Any

import torch

from ablations.analysis import can_decide, seeds_needed
from ablations.analysis.caveats import other_differences, substitutions, unshared
from ablations.analysis.contrasts import contrasts_of
from ablations.config import CellConfig, Study
from ablations.config.cell import FIELDS
from ablations.config.change import apply_change
from ablations.config.nets import is_foreign
from ablations.config.values import duration, plural, value_name
from ablations.data import DataInfo
from ablations.planning.claims import claim_lines
from ablations.planning.layout import layout_lines, num_seeds_paired
from ablations.planning.plan import Plan
from ablations.store.leases import STEPS_FILE
from ufo.norms import NORMS
from ufo.sizes import SIZES

TIMING_S = 10.0
"""Seconds after which no further kind of cell is timed for a plan."""

NUM_FILES, DISK_BLOCK = 8, 4096
"""Number of files of a cell, and block size of a disk in bytes."""

DETECTION_BYTES = 170
"""Bytes of an object found in a photograph of COCO, with its mask: 650 (8 images, 106 objects), compressed to 26 % as
the 38,777 objects of results/shapes are; half for small images."""

BOX_BYTES = 34
"""Bytes of an object found without its mask: those of a cell of results/shapes, compressed without their masks."""


def describe_plan(plan: Plan) -> list[str]:
    """Describe a plan in lines: what will be run, and warnings."""
    study, infos = plan.study, plan.infos.values()
    counts = [f"{plan.count(state)} {state}" for state in ("done", "stale", "failed", "missing") if plan.count(state)]
    lines = [f"study {study.name} in {plan.store.folder}", *filter(None, [" ".join(study.question.split())])]
    if study.search is not None and study.is_tuning:
        lines += _search_lines(study)
    what = plural(len(plan.cells), "trial" if study.is_tuning else "cell")
    lines += [f"{what}: {', '.join(counts)}; {len(plan.todo)} to run on {_devices_text(plan)}"]
    if plan.stored.is_begun and study.history != plan.store.read_study().history:
        lines.append(study.history[-1])
    if plan.store.exists and not plan.stored.is_begun:
        lines.append("no cell of this study has a result yet, so its question is replaced")
        if study.claims and plan.stored.has_curves_of(plan.cells):
            lines.append(
                "but an interrupted cell has curves: the claims it was run under are kept, others are post hoc"
            )
    if study.claims and plan.stored.has_orphaned_report:
        lines.append(
            f"{plan.store.folder} has tables of cells that are gone; the claims are not marked, though they may have "
            "been made with these in view"
        )
    lines += [*plan.request.notes, *layout_lines(study)]
    if plan.taken:
        lines.append(f"taken from the stored study: {_axes_text(plan.taken)}")
    lines += plan.starts
    if plan.todo:
        lines += [_cost_line(plan), *_disk_warning(plan)]
    lines += [f"{info.name}: {info.placement}{_decoding_text(plan, info)}" for info in infos if info.placement]
    if plan.count("stale") and plan.request.rerun is None:
        lines.append("stale cells are from another version of the numerics; --rerun stale runs them again")
    if count := _num_without_steps(plan):
        lines.append(f"finished without --probe-steps: {plural(count, 'cell')}; --rerun all runs them again")
    lines += [f"{info.name}: {note}" for info in infos for note in info.notes] + _limited_lines(plan)
    num_seeds = num_seeds_paired(study)
    for what, number in _num_comparisons(study).items() if not study.is_tuning else ():
        if number and not can_decide(num_seeds, number):
            lines.append(
                f"{plural(num_seeds, 'seed')} cannot reach significance in {plural(number, what)}, "
                f"whatever the results: give at least {plural(seeds_needed(number), 'seed')}"
            )
    lines += claim_lines(study)
    grey = {info.fingerprint for info in infos if info.image_shape[2] == 1}
    recoloured = [c for c in plan.cells if c.augmentation.policy != "none" or c.augmentation.color_jitter]
    if any(cell.images.data_fingerprint in grey for cell in recoloured):
        lines.append("the policy's Color and colour jitter's saturation have no effect on images of one channel")
    return [*lines, *substitutions(study, plan.cells), *unshared(study), *other_differences(study)]


def _num_without_steps(plan: Plan) -> int:
    """Return the number of finished cells that lack the probes of single steps and are not run again."""
    if not plan.engine.probe_steps:
        return 0
    kept = {cell.id for cell in plan.cells} - {cell.id for cell in plan.todo}
    records = [record for cell, record in plan.stored.records.items() if cell in kept and record.has_result]
    return sum(not (record.folder / STEPS_FILE).is_file() for record in records)


def _search_lines(study: Study) -> list[str]:
    """Describe the search of a tuning, with a warning if its points are uneven."""
    assert study.search is not None
    num_trials = len(study.axes["seed"])
    how = f"scrambled Sobol points, seed {study.search.seed}, the same for every arm"
    lines = [f"{plural(num_trials, 'trial')} of every arm in {study.search}, scored on validation"]
    if study.search.sampler == "tpe":
        how = f"first {how}; then by TPE from each arm's own results, so that the arms' points differ"
    elif num_trials & (num_trials - 1):
        lines.append(f"{num_trials} is not a power of two: a Sobol sequence covers a range evenly with 8, 16, 32, ...")
    return [f"{lines[0]}: {how}", *lines[1:]]


def _devices_text(plan: Plan) -> str:
    each = ", ".join(map(str, plan.devices))
    if plan.engine.name != "local":
        where = {"ray": "a Ray cluster", "slurm": "Slurm"}[plan.engine.name]
        return f"{plan.devices[0].type} on {where}, as many at once as it has room for"
    if plan.devices[0].type == "cuda" and plan.engine.jobs_per_gpu is None:
        return f"{each}, as many at once as fit"
    return f"{each}, {plan.num_jobs} at once"


def _decoding_text(plan: Plan, info: DataInfo) -> str:
    if not info.streamed:
        return ""
    return f"; {plural(plan.num_workers, 'worker')} for each cell" if plan.num_workers else "; decoded in each cell"


def _cost_line(plan: Plan) -> str:
    seconds, how = _cell_seconds(plan)
    disk = f"{_disk_mib(plan):.1f} MiB of disk{' without weights' * plan.engine.save_weights}"
    if not seconds:
        return f"{disk}; unknown time: {how}"
    each = duration(min(seconds)), duration(max(seconds))
    total_s = max(max(seconds), sum(seconds) / plan.num_jobs * len(plan.todo) / len(seconds))
    a_cell = each[0] if each[0] == each[1] else f"{each[0]} to {each[1]}"
    if plan.engine.name != "local":
        return f"{a_cell} a cell on this machine ({how}), and {disk}"
    return f"about {duration(total_s)} in all, {a_cell} a cell ({how}), and {disk}"


def _cell_seconds(plan: Plan) -> tuple[list[float], str]:
    """Return the seconds of the cells to run, as far as known, and their source or why there are none."""
    from ablations.planning.estimate import num_steps, time_steps_apart

    finished: dict[tuple[Any, ...], list[float]] = {}
    for record in plan.stored.records.values():
        if record.outcome["outcome"] == "ok" and (info := plan.infos.get(record.config.images.data_fingerprint)):
            per_step_s = record.outcome["seconds"] / max(1, num_steps(record.config, info))
            finished.setdefault(_step_kind(record.config), []).append(per_step_s)
    kinds: dict[tuple[Any, ...], list[CellConfig]] = {}
    for cell in plan.todo:
        kinds.setdefault(_step_kind(cell), []).append(cell)
    seconds: list[float] = []
    num_timed, why, started = 0, "", time.perf_counter()
    for kind, cells in kinds.items():
        info = plan.infos[cells[0].images.data_fingerprint]
        if kind in finished:
            seconds += [statistics.median(finished[kind]) * num_steps(cell, info) for cell in cells]
        elif plan.devices[0].type == "cuda" and not torch.cuda.device_count():
            why = "this machine has no GPU to time a step on"
        elif time.perf_counter() - started < TIMING_S:
            try:
                times = time_steps_apart(
                    _without_plugin(cells[0]), info, device=plan.devices[0], workers=plan.num_workers
                )
            except Exception as error:  # the cells will record it
                why = f"a step of {cells[0].net.model} fails: {error}"
                continue
            seconds += [times.cell_seconds(cell, info) for cell in cells]
            num_timed += 1
    source = "from the finished cells" if not num_timed else "from a few steps of the first"
    if num_timed and any(cell.run.compile for cell in plan.todo):
        source += ", uncompiled"
    num_untimed = len(plan.todo) - len(seconds)
    untimed = f", {plural(num_untimed, 'other cell')} assumed alike" if num_untimed else ""
    return seconds, source + untimed if seconds else why


def _limited_lines(plan: Plan) -> list[str]:
    """Name the number of images that are evaluated, if it is limited."""
    limited = {
        (cell.images.data_fingerprint, cell.images.eval_limit): None
        for cell in plan.cells
        if cell.images.eval_limit is not None
    }
    lines = []
    for fingerprint, limit in limited:
        info = plan.infos[fingerprint]
        evaluated = info.num_evaluated(limit)
        counts = f"{evaluated['val']:,} of {info.num_val:,} validation"
        if not plan.study.is_tuning:
            counts += f" and {evaluated['test']:,} of {info.num_test:,} test"
        lines.append(f"{info.name}: eval_limit={limit}: every cell is evaluated on the same {counts} images")
    return lines


def _without_plugin(cell: CellConfig) -> CellConfig:
    """Return a cell without its plug-in's normaliser, which must not run in this process."""
    own = not NORMS[cell.net.norm].is_plugin
    return cell if own else cell.model_copy(update={"norm": "xnorm"})


def _step_kind(cell: CellConfig) -> tuple[Any, ...]:
    """Return the values that determine the time of a step; the normaliser is ignored."""
    return tuple(cell[field.name] for field in FIELDS.values() if field.traits.costs_time)


def _disk_warning(plan: Plan) -> list[str]:
    above = plan.store.nearest_folder
    free_mib = shutil.disk_usage(above).free / 2**20
    return [f"only {free_mib:.1f} MiB are free in {above}"] if free_mib < _disk_mib(plan) else []


def _disk_mib(plan: Plan) -> float:
    return sum(_disk_bytes(cell, plan.infos[cell.images.data_fingerprint]) for cell in plan.todo) / 2**20


def _disk_bytes(cell: CellConfig, info: DataInfo) -> int:
    """Estimate the disk space of a cell's folder, in bytes.

    It has a byte for each test image, or its detections; rows of each epoch; records; half a block lost by each file.
    """
    depth = 0 if is_foreign(cell.net.model) else apply_change(cell).net.depth or SIZES[cell.net.model].depth
    found = cell.detection.most_found * (DETECTION_BYTES if cell.detection.masks else BOX_BYTES)
    tested = info.num_evaluated(cell.images.eval_limit)["test"] * (found if cell.task == "detect" else 1)
    return tested + cell.optimisation.epochs * (150 + 200 * depth) + 8192 + NUM_FILES * DISK_BLOCK // 2


def _axes_text(axes: dict[str, list[Any]]) -> str:
    """Format axes in short form.

    >>> _axes_text({"norm": ["xnorm", "l2"], "seed": [0, 1, 5]})
    'norm=xnorm,l2; 3 seeds'
    """
    return "; ".join(
        plural(len(values), "seed") if field == "seed" else f"{field}={','.join(map(value_name, values))}"
        for field, values in axes.items()
    )


def _num_comparisons(study: Study) -> dict[str, int]:
    """Count the comparisons of each family of the tables: those of the main table, and contrasts."""
    same = Counter(map(tuple, study.arms_by_condition.values()))
    return {
        "comparison": sum(n * (len(arms) - 1) for arms, n in same.items() if study.ref in arms),
        "contrast": sum(n * len(contrasts_of(study.compare, arms)) for arms, n in same.items()),
    }
