"""What a plan comes to, in lines: cells, time, disk, and what to know before it is run."""

from __future__ import annotations

import shutil
import statistics
import time
from typing import Any

from ablations.analysis import can_decide, seeds_needed
from ablations.analysis.caveats import substitutions, unshared
from ablations.analysis.contrasts import contrasts_of
from ablations.config import CellConfig, Study
from ablations.config.cell import FIELDS
from ablations.config.change import apply_change
from ablations.config.claim import ordered_pairs
from ablations.config.nets import is_foreign
from ablations.config.values import duration, plural, value_name
from ablations.data import DataInfo
from ablations.planning.plan import Plan
from ufo.norms import NORMS
from ufo.sizes import SIZES

TIMING_S = 10.0
"""After this long no further kind of cell is timed for the plan."""

NUM_FILES, DISK_BLOCK = 8, 4096
"""Files of a cell, and the bytes in which a disk gives its room away."""

DETECTION_BYTES = 650
"""Of an object found in a photograph of COCO, its mask included (8 images, 106 objects); of small images half of it."""


def describe_plan(plan: Plan) -> list[str]:
    """Say in lines what will be run, and what to know before it is."""
    study, infos = plan.study, plan.infos.values()
    counts = [f"{plan.count(state)} {state}" for state in ("done", "stale", "failed", "missing") if plan.count(state)]
    lines = [f"study {study.name} in {plan.store.folder}", *filter(None, [study.question])]
    if study.search is not None and study.is_tuning:
        lines += _of_search(study)
    what = plural(len(plan.cells), "trial" if study.is_tuning else "cell")
    lines += [f"{what}: {', '.join(counts)}; {len(plan.todo)} to run on {_devices(plan)}"]
    if plan.is_begun and study.history != plan.store.read_study().history:
        lines.append(study.history[-1])
    if plan.store.exists and not plan.is_begun:
        lines.append("no cell of this study has been run yet, so its question is written anew")
    if plan.taken:
        lines.append(f"not asked for, so as the study has it: {_values(plan.taken)}")
    lines += plan.starts
    if plan.todo:
        lines += [_cost(plan), *_lack_of_room(plan)]
    lines += [f"{info.name}: {info.placement}{_decoding(plan, info)}" for info in infos if info.placement]
    if plan.count("stale") and plan.rerun is None:
        lines.append("stale cells come from another version of the numerics; --rerun stale runs them again")
    lines += [f"{info.name}: {note}" for info in infos for note in info.notes]
    num_seeds = len(study.axes["seed"])
    for what, number in _num_comparisons(study).items() if not study.is_tuning else ():
        if number and not can_decide(num_seeds, number):
            lines.append(
                f"{plural(num_seeds, 'seed')} cannot reach significance in {plural(number, what)}, "
                f"whatever the numbers: it takes {seeds_needed(number)}"
            )
    unasked = {arm: None for claim in study.claims for arm in claim.arms if arm not in study.arm_names}
    if unasked:
        lines.append(f"no arm of this study, so that claims about it stay undecided: {', '.join(unasked)}")
    grey = {info.fingerprint for info in infos if info.image_shape[2] == 1}
    if any(
        cell.images.data_fingerprint in grey and (cell.augmentation.policy != "none" or cell.augmentation.color_jitter)
        for cell in plan.cells
    ):
        lines.append("the policy's Color, and colour jitter's saturation, change nothing in images of one channel")
    return lines + substitutions(plan.cells) + unshared(study)


def _of_search(study: Study) -> list[str]:
    """Say what a tuning searches, and what of its points is worth knowing before."""
    assert study.search is not None
    num_trials = len(study.axes["seed"])
    how = f"scrambled Sobol points, seed {study.search.seed}, the same for every arm"
    lines = [f"{plural(num_trials, 'trial')} of every arm in {study.search}, scored on validation"]
    if study.search.sampler == "tpe":
        how = f"the first as {how}; then by TPE, from each arm's own results, so that the arms' points differ"
    elif num_trials & (num_trials - 1):
        lines.append(f"{num_trials} is no power of two: a Sobol sequence fills the range evenly with 8, 16, 32, ...")
    return [f"{lines[0]}: {how}", *lines[1:]]


def _devices(plan: Plan) -> str:
    each = ", ".join(map(str, plan.devices))
    if plan.devices[0].type == "cuda" and plan.engine.jobs_per_gpu is None:
        return f"{each}, as many side by side as fit"
    return f"{each}, {plan.num_jobs} side by side"


def _decoding(plan: Plan, info: DataInfo) -> str:
    if not info.streamed:
        return ""
    return f"; {plural(plan.num_workers, 'worker')} for each cell" if plan.num_workers else "; each cell decodes itself"


def _cost(plan: Plan) -> str:
    """Say how long the plan takes and how much disk."""
    seconds, how = _cell_seconds(plan)
    disk = f"{_disk_mib(plan):.1f} MiB of disk{', weights aside' * plan.engine.save_weights}"
    if not seconds:
        return f"{disk}; how long is not known: {how}"
    each = duration(min(seconds)), duration(max(seconds))
    total_s = max(max(seconds), sum(seconds) / plan.num_jobs * len(plan.todo) / len(seconds))
    a_cell = each[0] if each[0] == each[1] else f"{each[0]} to {each[1]}"
    return f"about {duration(total_s)} in all, {a_cell} a cell ({how}), and {disk}"


def _cell_seconds(plan: Plan) -> tuple[list[float], str]:
    """Return the seconds of the cells to run, as far as they are known, and how they are."""
    from ablations.planning.estimate import num_steps, time_steps

    finished: dict[tuple[Any, ...], list[float]] = {}
    for record in plan.records.values():
        if record.outcome["outcome"] == "ok" and (info := plan.infos.get(record.config.images.data_fingerprint)):
            per_step_s = record.outcome["seconds"] / max(1, num_steps(record.config, info))
            finished.setdefault(_step(record.config), []).append(per_step_s)
    kinds: dict[tuple[Any, ...], list[CellConfig]] = {}
    for cell in plan.todo:
        kinds.setdefault(_step(cell), []).append(cell)
    seconds: list[float] = []
    num_timed, why, started = 0, "", time.perf_counter()
    for kind, cells in kinds.items():
        info = plan.infos[cells[0].images.data_fingerprint]
        if kind in finished:
            seconds += [statistics.median(finished[kind]) * num_steps(cell, info) for cell in cells]
        elif time.perf_counter() - started < TIMING_S:
            try:
                times = time_steps(_with_own_norm(cells[0]), info, device=plan.devices[0], workers=plan.num_workers)
            except Exception as error:  # the cells themselves will record it
                why = f"a step of {cells[0].net.model} fails: {error}"
                continue
            seconds += [times.cell_seconds(cell, info) for cell in cells]
            num_timed += 1
    known = "from the finished cells" if not num_timed else "from a few steps of the first"
    if num_timed and any(cell.run.compile for cell in plan.todo):
        known += ", uncompiled"
    left_out = f", {len(plan.todo) - len(seconds)} cells taken to be like them" if len(seconds) < len(plan.todo) else ""
    return seconds, known + left_out if seconds else why


def _with_own_norm(cell: CellConfig) -> CellConfig:
    """Return a cell as it is, but for a plug-in's normaliser, which may do anything to the process that runs it."""
    own = NORMS[cell.net.norm].cls.__module__.startswith("ufo.")
    return cell if own else cell.model_copy(update={"norm": "xnorm"})


def _step(cell: CellConfig) -> tuple[Any, ...]:
    """Return what decides how long a step takes, the normaliser left aside."""
    return tuple(cell[field.name] for field in FIELDS.values() if field.traits.costs_time)


def _lack_of_room(plan: Plan) -> list[str]:
    """Say that the disk has less room than the cells need, where it has."""
    above = next(path for path in (plan.store.folder, *plan.store.folder.absolute().parents) if path.exists())
    free_mib = shutil.disk_usage(above).free / 2**20
    return [f"only {free_mib:.1f} MiB are free in {above}"] if free_mib < _disk_mib(plan) else []


def _disk_mib(plan: Plan) -> float:
    return sum(_disk_bytes(cell, plan.infos[cell.images.data_fingerprint]) for cell in plan.todo) / 2**20


def _disk_bytes(cell: CellConfig, info: DataInfo) -> int:
    """Bytes of a cell's folder, in blocks of a disk: a byte for each test image or what may be found in it, a row for
    each epoch, the records."""
    depth = 0 if is_foreign(cell.net.model) else apply_change(cell).net.depth or SIZES[cell.net.model].depth
    tested = info.num_test * (cell.detection.most_found * DETECTION_BYTES if cell.task == "detect" else 1)
    return tested + cell.optimisation.epochs * (150 + 200 * depth) + 8192 + NUM_FILES * DISK_BLOCK // 2


def _values(axes: dict[str, list[Any]]) -> str:
    """Write axes in short.

    >>> _values({"norm": ["xnorm", "l2"], "seed": [0, 1, 5]})
    'norm=xnorm,l2; 3 seeds'
    """
    return "; ".join(
        plural(len(values), "seed") if field == "seed" else f"{field}={','.join(map(value_name, values))}"
        for field, values in axes.items()
    )


def _num_comparisons(study: Study) -> dict[str, int]:
    """Count the comparisons of each family: of the main table, or of the claims where they are more; the contrasts."""
    num_claimed = len(ordered_pairs(study.claims, study.arm_names))
    num_contrasts = len(contrasts_of(study.compare, study.arm_names))
    families = {"comparison": max(len(study.arms) - 1, num_claimed), "contrast": num_contrasts}
    return {what: number * len(study.condition_names) for what, number in families.items()}
