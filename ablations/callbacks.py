"""What watches a cell as it trains: its history, its divergence, its probes."""

from __future__ import annotations

import csv
import logging
import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ablations.tasks.classify import Classifier
from ufo.norms import AttentionNorm

LOG = logging.getLogger(__name__)

EXPLODED = 10.0
"""An epoch's mean training loss, as a multiple of ln(classes), above which a cell has exploded."""

NO_LEARNING = 0.95
"""Validation cross-entropy, as a share of ln(classes), that a cell must go below to count as learning."""

CHECK_EVERY = 100
"""Steps between two looks at the loss: each waits for the device."""


class Diverged(Exception):
    """Training has ended by the arm's own doing.

    Args:
        kind: ``nan`` or ``exploded``.
        detail: one line with what was seen.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class History(pl.Callback):
    """One row for each epoch: ``metrics.csv`` without times, so that it can be compared byte for byte; ``timing.csv``.

    Args:
        folder: where the two files are written, anew after each epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.timing: list[dict[str, Any]] = []
        self._started = self._validated = 0.0
        self._val_s = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for a checkpoint."""
        return {"rows": self.rows, "timing": self.timing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows of a checkpoint, and write them."""
        self.rows, self.timing = state_dict["rows"], state_dict["timing"]
        self._write()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start validation's clock."""
        self._validated = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop validation's clock."""
        self._val_s = time.perf_counter() - self._validated

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's row."""
        assert isinstance(pl_module, Classifier)
        epoch = trainer.current_epoch + 1
        # The schedule has stepped past the last batch: what stands in the optimiser is the next step's rate.
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        means = pl_module.epoch_metrics()
        self.rows.append({"epoch": epoch, "lr_after": lr, **means, "batches": pl_module.train_batches.hash})
        LOG.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.4g}" for name, value in means.items()))
        total_s = time.perf_counter() - self._started
        self.timing.append({"epoch": epoch, "train_s": total_s - self._val_s, "val_s": self._val_s})
        self._write()

    def _write(self) -> None:
        write_rows(self.folder / "metrics.csv", self.rows)
        write_rows(self.folder / "timing.csv", self.timing)


class DivergenceGuard(pl.Callback):
    """Ends a cell whose loss is no number, or has exploded after its warm-up.

    Args:
        num_classes: of the data set.
        warmup_epochs: before their end a large loss is not judged.
    """

    def __init__(self, *, num_classes: int, warmup_epochs: int) -> None:
        self.limit = EXPLODED * math.log(num_classes)
        self.warmup_epochs = warmup_epochs

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss now and then, so that a long epoch is not finished for nothing."""
        if (batch_idx + 1) % CHECK_EVERY == 0 and not torch.isfinite(outputs["loss"]):
            raise Diverged("nan", f"the training loss is no number at step {trainer.global_step}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge the epoch's means."""
        assert isinstance(pl_module, Classifier)
        epoch, means = trainer.current_epoch + 1, pl_module.epoch_metrics()
        for name in ("train_loss", "val_loss"):
            if not math.isfinite(means[name]):
                raise Diverged("nan", f"{name} is no number in epoch {epoch}")
        if epoch > self.warmup_epochs and means["train_loss"] > self.limit:
            raise Diverged("exploded", f"train_loss {means['train_loss']:.4g} in epoch {epoch}, above {self.limit:.4g}")


def has_not_learned(rows: list[dict[str, Any]], *, num_classes: int, warmup_epochs: int) -> bool:
    """Tell whether validation cross-entropy stayed at chance in every epoch after the warm-up; False if there is none.

    >>> has_not_learned([{"epoch": 1, "val_loss": 2.3}, {"epoch": 2, "val_loss": 2.2}], num_classes=10, warmup_epochs=1)
    True
    """
    judged = [row["val_loss"] for row in rows if row["epoch"] > warmup_epochs]
    return bool(judged) and min(judged) >= NO_LEARNING * math.log(num_classes)


class Probes(pl.Callback):
    """For each attention layer and epoch: RMS of its output, norm of its gradient, mean of each normaliser parameter.

    The RMS is that of the normaliser's output on the first validation batch; the gradient, before clipping, is the
    epoch's last. ``probes.csv`` is tidy: epoch, layer, probe, value.

    Args:
        folder: where the file is written, anew after each epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self._rms: dict[str, Tensor] = {}
        self._grad_norm: dict[str, Tensor] = {}
        self._handles: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for a checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows of a checkpoint, and write them."""
        self.rows = state_dict["rows"]
        write_rows(self.folder / "probes.csv", self.rows)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure the gradient in the epoch's last step."""
        if trainer.is_last_batch:
            for layer, attention in _attention_layers(pl_module).items():
                grads = [p.grad for p in attention.parameters() if p.grad is not None]
                self._grad_norm[layer] = nn.utils.get_total_norm(grads)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Listen to the first batch."""
        if batch_idx == 0:
            for layer, attention in _attention_layers(pl_module).items():
                norm = next(module for module in attention.modules() if isinstance(module, AttentionNorm))
                self._handles.append(norm.register_forward_hook(self._listener(layer)))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop listening."""
        while self._handles:
            self._handles.pop().remove()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's rows."""
        epoch = trainer.current_epoch + 1
        for layer, attention in _attention_layers(pl_module).items():
            values = {"output_rms": self._rms[layer], "grad_norm": self._grad_norm[layer]}
            norm = next(module for module in attention.modules() if isinstance(module, AttentionNorm))
            values |= {f"mean_{name}": parameter.detach().mean() for name, parameter in norm.named_parameters()}
            self.rows += [
                {"epoch": epoch, "layer": layer, "probe": probe, "value": value.item()}
                for probe, value in values.items()
            ]
        write_rows(self.folder / "probes.csv", self.rows)

    def _listener(self, layer: str) -> Any:
        def listen(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._rms[layer] = output.detach().float().square().mean().sqrt()

        return listen


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV, every number in full; whole or not at all, since others read them as the cell goes on."""
    scratch = path.with_suffix(".partial")
    with scratch.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    scratch.replace(path)


def _attention_layers(pl_module: pl.LightningModule) -> dict[str, nn.Module]:
    """Return the modules that hold a normaliser directly, by their name in the net."""
    assert isinstance(pl_module, Classifier)
    return {
        name: module
        for name, module in pl_module.net.named_modules()
        if any(isinstance(child, AttentionNorm) for child in module.children())
    }
