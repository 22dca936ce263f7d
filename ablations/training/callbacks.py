"""Lightning callbacks of a cell: history, divergence guard and probes."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ablations.training.parallel import over_processes
from ufo.attention import ClassAttention, UFOAttention, scaled
from ufo.scale import attention_layers, rms

LOG = logging.getLogger(__name__)

EXPLODED = 10.0
"""Ratio of an epoch's mean training loss to the chance level above which a cell has exploded."""

CHECK_EVERY = 100
"""Number of steps between two checks of the loss: each waits for the device."""

PROBE_COLUMNS = ("epoch", "layer", "probe", "value")


class Diverged(Exception):
    """Training diverged: a finding about the arm.

    Args:
        kind: ``nan`` or ``exploded``.
        detail: description in one line.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class History(pl.Callback):
    """One row per epoch: ``metrics.csv`` without times, so that it can be compared byte for byte; ``timing.csv``.

    For an epoch resumed midway, ``timing.csv`` has the time since then.

    Args:
        folder: folder of the two files, which are rewritten after each epoch.

    Attributes:
        train_s: the cell's share of the seconds of an epoch's training, if it shares them; None: it has its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train_s: float | None = None
        self.rows: list[dict[str, Any]] = []
        self.timing: list[dict[str, Any]] = []
        self._started = self._validated = 0.0
        self._val_s = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for a checkpoint."""
        return {"rows": self.rows, "timing": self.timing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows of a checkpoint, and write them."""
        self.rows, self.timing = state_dict["rows"], state_dict["timing"]
        if self.rows:
            self._write()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, also for an epoch resumed midway."""
        self._started = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the validation clock."""
        self._validated = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the validation clock."""
        self._val_s = time.perf_counter() - self._validated

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the epoch's rows."""
        number, means = trainer.current_epoch + 1, pl_module.epoch_metrics()
        lr_after = _as_float(trainer.optimizers[0].param_groups[0]["lr"])  # of the next step
        self.rows.append({"epoch": number, "lr_after": lr_after, **means, "batches": pl_module.epoch_hashes[-1]})
        LOG.info("epoch %d: %s", number, ", ".join(f"{name} {value:.4g}" for name, value in means.items()))
        total_s = time.perf_counter() - self._started
        train_s = total_s - self._val_s if self.train_s is None else self.train_s
        self.timing.append({"epoch": number, "train_s": train_s, "val_s": self._val_s})
        self._write()

    def _write(self) -> None:
        write_rows(self.folder / "metrics.csv", self.rows)
        write_rows(self.folder / "timing.csv", self.timing)


class DivergenceGuard(pl.Callback):
    """Guard that raises `Diverged` if the loss is not finite, or has exploded after the warm-up.

    Args:
        chance: training loss at chance level.
        losses: names of the epoch's metrics that must be finite.
        warmup_epochs: number of epochs in which a large loss is accepted.
    """

    def __init__(self, *, chance: float, losses: Sequence[str], warmup_epochs: int) -> None:
        self.limit = EXPLODED * chance
        self.losses = losses
        self.warmup_epochs = warmup_epochs

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the loss periodically, so that a diverged cell does not finish a long epoch."""
        if trainer.global_step % CHECK_EVERY:
            return
        if not torch.isfinite(over_processes(outputs["loss"], trainer.world_size)):
            raise Diverged("nan", f"the training loss is not finite at step {trainer.global_step}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Check the epoch's metrics."""
        number, means = trainer.current_epoch + 1, pl_module.epoch_metrics()
        for name in self.losses:
            if not math.isfinite(means.get(name, 0.0)):
                raise Diverged("nan", f"{name} is not finite in epoch {number}")
        loss = means["train_loss"]
        if number > self.warmup_epochs and loss > self.limit:
            raise Diverged("exploded", f"train_loss {loss:.4g} in epoch {number}, above {self.limit:.4g}")


class Probes(pl.Callback):
    """Probes per attention layer and epoch: output RMS, gradient norm, and mean of each normaliser parameter.

    The RMS is that of the normaliser's output, times the fixed gain of a matched scale, on the first validation batch;
    the gradient is that of the epoch's last step, before clipping. ``probes.csv`` is tidy: epoch, layer, probe, value;
    a net without such layers has no rows. It is rewritten after each epoch in the trainer's ``log_dir``.

    Attributes:
        rows: rows of ``probes.csv``.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._rms: dict[str, Tensor] = {}
        self._grad_norm: dict[str, Tensor] = {}
        self._means: dict[str, dict[str, Tensor]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for a checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows of a checkpoint."""
        self.rows = state_dict["rows"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows of a checkpoint."""
        if self.rows:
            self._write(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Clear the last validation's values, so that an epoch without validation writes no rows."""
        self._means = {}

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        """Record the gradient norms of the epoch's last step."""
        if trainer.is_last_batch:
            self._grad_norm = grad_norms(pl_module.net)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Register a hook for the first batch, and record the parameters' means."""
        record_rms(pl_module.net, self._rms.__setitem__)
        for layer, attention in attention_layers(pl_module.net).items():
            norm, gain = attention.norm, attention.matched_gain
            self._means[layer] = {f"mean_{name}": p.detach().mean() for name, p in norm.named_parameters()}
            if gain is not None:
                self._means[layer]["matched_gain"] = gain.clone()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's rows."""
        for layer, means in self._means.items():
            values = {"output_rms": self._rms[layer], "grad_norm": self._grad_norm[layer], **means}
            self.rows += [
                {"epoch": trainer.current_epoch + 1, "layer": layer, "probe": probe, "value": value.item()}
                for probe, value in values.items()
            ]
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        folder = trainer.log_dir  # read in every process, since they agree on it
        if folder is not None and trainer.is_global_zero:
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_rows(Path(folder) / "probes.csv", self.rows, PROBE_COLUMNS)


def record_rms(net: nn.Module, keep: Callable[[str, Tensor], None]) -> list[RemovableHandle]:
    """Record the RMS of only the next output of each attention layer's normaliser, times its fixed gain.

    Args:
        net: net that is not compiled.
        keep: function that receives the name of a layer and its RMS, a scalar.

    Returns:
        Handles of the hooks, each of which removes itself after the layer's forward pass.
    """
    return [_record_rms(attention, partial(keep, layer)) for layer, attention in attention_layers(net).items()]


def grad_norms(net: nn.Module) -> dict[str, Tensor]:
    """Return the norm of the gradients of each attention layer's parameters, a scalar, by the layer's name."""
    return {
        layer: nn.utils.get_total_norm([p.grad for p in attention.parameters() if p.grad is not None])
        for layer, attention in attention_layers(net).items()
    }


def _record_rms(attention: UFOAttention | ClassAttention, keep: Callable[[Tensor], None]) -> RemovableHandle:
    gain = attention.matched_gain

    def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        keep(rms(scaled(output.detach(), gain)))
        handle.remove()

    handle = attention.norm.register_forward_hook(record)
    return handle


def _as_float(value: float | Tensor) -> float:
    """Return a number; of a float32 tensor the shortest decimal that it rounds from."""
    return value if isinstance(value, float) else float(str(value.cpu().numpy()))


def write_rows(path: Path, rows: list[dict[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV with numbers in full, atomically, since others read the file during training.

    Args:
        path: path of the file.
        rows: rows with the same keys.
        columns: columns of the header; None: keys of the first row, which must exist.
    """
    scratch = path.with_suffix(".partial")
    with scratch.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns or rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    scratch.replace(path)
