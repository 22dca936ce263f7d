"""Probes of a cell at single training steps, which show when and where a training begins to fail."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ablations.store.leases import STEPS_FILE
from ablations.training.callbacks import grad_norms, record_rms, write_rows

COLUMNS = ("step", "layer", "probe", "value")


class StepProbes(pl.Callback):
    """Training loss, and output RMS and gradient norm per attention layer, at some steps.

    RMS and gradient norm are those of `ablations.training.callbacks.Probes`, on the batch of the step. ``steps.csv`` is
    tidy: step, layer, probe, value; the loss has no layer. It is rewritten after each of the steps, so that a cell that
    diverges later has the rows until then. The net must not be compiled, stacked or captured in a graph.

    Args:
        folder: folder of the file.
        steps: numbers of the steps, from 1, over all epochs.

    Attributes:
        rows: rows of ``steps.csv``.
    """

    def __init__(self, folder: Path, steps: Collection[int]) -> None:
        self.folder, self.steps = folder, frozenset(steps)
        self.rows: list[dict[str, Any]] = []
        self._step: int | None = None
        self._rms: dict[str, Tensor] = {}
        self._grad_norm: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for a checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows of a checkpoint."""
        self.rows = state_dict["rows"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows of a checkpoint, in place of those of an attempt without one."""
        self._write()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Register hooks if the step is recorded."""
        step = trainer.global_step + 1
        self._step = step if step in self.steps else None
        if self._step is None:
            return
        self._rms, self._grad_norm = {}, {}
        self._hooks = record_rms(pl_module.net, self._rms.__setitem__)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        """Record the gradient norms of the step, before clipping."""
        if self._step is not None:
            self._grad_norm = grad_norms(pl_module.net)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the rows of the step."""
        if self._step is None:
            return
        for hook in self._hooks:
            hook.remove()  # of a layer that the step left out
        self._add("", "loss", outputs["loss"])
        for layer, norm in self._grad_norm.items():
            if layer in self._rms:
                self._add(layer, "output_rms", self._rms[layer])
            self._add(layer, "grad_norm", norm)
        self._step = None
        self._write()

    def _add(self, layer: str, probe: str, value: Tensor) -> None:
        self.rows.append({"step": self._step, "layer": layer, "probe": probe, "value": value.item()})

    def _write(self) -> None:
        write_rows(self.folder / STEPS_FILE, self.rows, COLUMNS)
