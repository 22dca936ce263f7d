"""What the first steps of a cell say of its largest learning rate: curvature and probes, without a training.

A *setting* is a condition without its learning rate. For each arm and setting, one cell is built as the engine builds
it, at the smallest learning rate that was asked for, and takes its first steps. `ablations.bench.curvature` says how a
learning rate follows from the curvature.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ablations.bench.curvature import largest_lr
from ablations.bench.first_steps import NOT_MEASURED, FirstSteps, take_first_steps
from ablations.config import CellConfig, Study, UsageError
from ablations.config.study import point_name
from ablations.data import DataInfo
from ablations.planning.estimate import num_steps
from ablations.planning.plan import Plan
from ablations.store.frames import arm_columns

PROBES = ("output_rms", "grad_norm")


class Foreseen(NamedTuple):
    """Measurements of one cell, at its start and after its first steps.

    Eigenvalues are those of P^-1/2 H P^-1/2 on the first training batch; H is scaled by the mean share of a gradient
    that clipping leaves, since P is of clipped gradients. Blocks are those of self-attention; NaN without any.

    Args:
        setting: the condition without its learning rate.
        arm: name of the arm.
        arm_label: its label.
        arm_order: its place among the arms of the registry.
        seed: seed of the cell.
        steps: number of steps that it took; fewer than asked for if it diverged.
        lambda_start: largest eigenvalue at the start, with P of as many batches, without a step between them.
        lambda_after: largest eigenvalue after the steps, with P of the cell's own optimiser.
        lowest_start: estimate of the smallest eigenvalue at the start; negative in a direction of negative curvature.
        lowest_after: the same after the steps.
        converged: whether both largest eigenvalues converged.
        lr_start: learning rate that follows from `lambda_start`.
        lr_after: learning rate that follows from `lambda_after`.
        rms_first_start: RMS of the attention output in the first block at the start.
        rms_last_start: the same in the last block.
        rms_first_after: RMS in the first block after the steps.
        rms_last_after: the same in the last block.
        grad_first_start: norm of the gradient of the first block's attention at the start.
        grad_last_start: the same in the last block.
        grad_first_after: norm of the gradient in the first block after the steps.
        grad_last_after: the same in the last block.
    """

    setting: str
    arm: str
    arm_label: str
    arm_order: int
    seed: int
    steps: int
    lambda_start: float
    lambda_after: float
    lowest_start: float
    lowest_after: float
    converged: bool
    lr_start: float
    lr_after: float
    rms_first_start: float
    rms_last_start: float
    rms_first_after: float
    rms_last_after: float
    grad_first_start: float
    grad_last_start: float
    grad_first_after: float
    grad_last_after: float


class ProbeRow(NamedTuple):
    """A probe of an attention layer, on a training batch after `step` steps, before the next one."""

    setting: str
    arm: str
    arm_label: str
    arm_order: int
    seed: int
    step: int
    layer: str
    layer_order: int
    probe: str
    value: float


@dataclass(frozen=True)
class Subject:
    """A cell to be measured.

    Args:
        setting: the condition without its learning rate.
        arm: name of the arm.
        arm_label: its label.
        arm_order: its place among the arms of the registry.
        cell: configuration.
        info: data set.
    """

    setting: str
    arm: str
    arm_label: str
    arm_order: int
    cell: CellConfig
    info: DataInfo

    @property
    def name(self) -> str:
        """Arm, setting and seed, in words."""
        return f"{self.arm}{' at ' * bool(self.setting)}{self.setting}, seed {self.cell.seed}"

    @property
    def keys(self) -> tuple[str, str, str, int, int]:
        """Columns that its rows share."""
        return self.setting, self.arm, self.arm_label, self.arm_order, self.cell.seed


def subjects_of(plan: Plan, *, seeds: list[int], steps: int) -> list[Subject]:
    """Return the cell at the smallest learning rate of each setting and arm, for each seed.

    Args:
        plan: plan of a study.
        seeds: seeds to measure, which need not be the study's.
        steps: number of steps that each cell is to take.

    Raises:
        UsageError: a study of detectors or of learning rates as arms, or cells that end too early.
    """
    study = plan.study
    if study.task != "classify":
        raise UsageError(f"foresee measures classifiers, and this study has --task {study.task}")
    if study.compare == "lr":
        raise UsageError("foresee: the arms are learning rates; compare another field")
    smallest: dict[tuple[str, str], CellConfig] = {}
    for cell in plan.cells:
        key = setting_of(study, cell), study.arm_of(cell)
        if key not in smallest or cell.optimisation.lr < smallest[key].optimisation.lr:
            smallest[key] = cell
    arms, found = arm_columns(study), []
    settings = dict.fromkeys(setting for setting, _ in smallest)
    keys = ((setting, arm) for setting in settings for arm in study.arm_names if (setting, arm) in smallest)
    for setting, arm in keys:
        cell = smallest[setting, arm]
        info = plan.infos[cell.images.data_fingerprint]
        if (most := num_steps(cell, info) - 1) < steps:
            raise UsageError(f"--steps {steps}: the cells have {most + 1} steps; give at most {most}")
        columns = arms[arm]
        for seed in seeds:
            # One net at a time, step by step; neither changes a number.
            own = cell.model_copy(update={"seed": seed, "stack": 1, "compile": False, "cuda_graph": False})
            found.append(Subject(setting, arm, columns["arm_label"], columns["arm_order"], own, info))
    return found


def setting_of(study: Study, cell: CellConfig) -> str:
    """Return the name of a cell's condition without the learning rate; empty if there is only one."""
    return point_name(cell.model_dump(), [field for field in study.conditions if field != "lr"])


class NotMeasured(Exception):
    """A cell raises in its first steps, so that it has no measurements."""


def measure(subject: Subject, *, steps: int, device: torch.device) -> tuple[Foreseen, list[ProbeRow]]:
    """Take the first steps of a cell, and return its measurements and its probes at each step.

    Args:
        subject: cell.
        steps: number of steps, 1 or more.
        device: device of the net.

    Raises:
        NotMeasured: the cell raises; the message is the exception's.
        UsageError: its data cannot be read.
    """
    try:
        watch = take_first_steps(subject.cell, subject.info, steps=steps, device=device)
    except UsageError:
        raise
    except Exception as error:  # an arm may raise anything; its cells record it
        raise NotMeasured(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}") from error
    return _row(subject, watch), list(_probe_rows(subject, watch))


def _row(subject: Subject, watch: FirstSteps) -> Foreseen:
    start, after = (watch.curvatures.get(at, NOT_MEASURED) for at in (0, watch.steps))
    probes = (
        watch.values.get((at, probe, watch.blocks[place]), math.nan) if watch.blocks else math.nan
        for probe in PROBES
        for at in (0, watch.steps)
        for place in (0, -1)
    )
    return Foreseen(
        *subject.keys,
        watch.taken,
        start.highest,
        after.highest,
        start.lowest,
        after.lowest,
        start.converged and after.converged,
        *(largest_lr(each.highest, beta1=watch.beta1) for each in (start, after)),
        *probes,
    )


def _probe_rows(subject: Subject, watch: FirstSteps) -> Iterator[ProbeRow]:
    layers = {layer: place for place, layer in enumerate(dict.fromkeys(layer for _, _, layer in watch.values))}
    for (step, probe, layer), value in watch.values.items():
        yield ProbeRow(*subject.keys, step, layer, layers[layer], probe, value)
