"""What the commands do with a plan: say what it comes to, run it, report. The command line only parses and prints."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.data import DataInfo
from ablations.plan import Plan
from ablations.provenance import import_plugin, source_hashes
from ablations.stats import can_decide, seeds_needed
from ablations.store import Store
from ablations.study import CellConfig, Study
from ablations.study.grid import arm_name
from ufo.attention import ClassAttention
from ufo.norms import NORMS
from ufo.sizes import SIZES

if TYPE_CHECKING:
    from ablations.report import Report


def describe_plan(plan: Plan) -> list[str]:
    """Say in lines what will be run, and what to know before it is."""
    study, infos = plan.study, plan.infos.values()
    counts = [f"{plan.count(state)} {state}" for state in ("done", "stale", "failed", "missing") if plan.count(state)]
    lines = [f"study {study.name} in {plan.store.folder}", *filter(None, [study.question])]
    lines += [
        f"{len(plan.cells)} cells: {', '.join(counts)}; {len(plan.todo)} to run on {plan.device}, "
        f"{plan.jobs} side by side"
    ]
    if plan.store.exists and study.history != plan.store.read_study().history:
        lines.append(study.history[-1])
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
        jobs=min(plan.jobs, len(plan.todo)),
        earlier=plan.records,
        on_done=on_done,
    )


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
    said = caveats(study) + _substitutions([record.config for record in store.records().values()])
    return write_report(store, sources=source_hashes(study.axes["norm"]), caveats=said, num_asked=num_asked)


def caveats(study: Study) -> list[str]:
    """Return the sentences that must stand wherever these arms' results are shown."""
    said = [NORMS[norm].caveat for norm in study.axes["norm"] if NORMS[norm].caveat]
    return list(dict.fromkeys(said))


def _cost(plan: Plan) -> str:
    """Say how long the plan takes and how much disk: cells of one model on one data set take about as long."""
    alike: dict[tuple[str, str], list[CellConfig]] = {}
    for cell in plan.todo:
        alike.setdefault((cell.data_fingerprint, cell.model), []).append(cell)
    parts, known_s, longest_s = [], 0.0, 0.0
    for (fingerprint, model), cells in alike.items():
        where = f" of {model} on {plan.infos[fingerprint].name}" if len(alike) > 1 else ""
        each_s, how = _seconds(plan, cells[0])
        parts.append(f"a cell{where} takes {how if each_s is None else f'{_duration(each_s)} ({how})'}")
        known_s += (each_s or 0.0) * len(cells)
        longest_s = max(longest_s, each_s or 0.0)
    disk_mib = sum(_disk_bytes(cell, plan.infos[cell.data_fingerprint]) for cell in plan.todo) / 2**20
    total = f"about {_duration(max(longest_s, known_s / plan.jobs))} in all, " if known_s else ""
    return f"{total}{disk_mib:.1f} MiB of disk; {'; '.join(parts)}"


def _seconds(plan: Plan, cell: CellConfig) -> tuple[float | None, str]:
    """Return a cell's seconds, None where they are not known, and how they are known."""
    from ablations.engine.estimate import estimate_seconds

    finished = [
        record.outcome["seconds"]
        for record in plan.records.values()
        if record.has_result
        and (record.config.data_fingerprint, record.config.model) == (cell.data_fingerprint, cell.model)
    ]
    if finished:
        return statistics.median(finished), "the median of the finished cells"
    arm = arm_name(getattr(cell, plan.study.compare))
    try:
        seconds = estimate_seconds(cell, plan.infos[cell.data_fingerprint], device=plan.device)
    except Exception as error:  # the cell itself will record it; the other arms must still run
        return None, f"a time that is not known, since a step of {arm} fails with {type(error).__name__}: {error}"
    return seconds, f"from a few steps of {arm}"


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
