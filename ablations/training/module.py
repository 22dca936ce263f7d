"""Base of all tasks' LightningModules: weights, draws of an epoch, optimiser, callbacks."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from ablations.config import CellConfig
from ablations.config.types import COSINE, JOINT
from ablations.data import EpochBatches
from ablations.data.streams import library_state, reseed_library, restore_library
from ablations.training.average import MovingAverage
from ablations.training.callbacks import Diverged, DivergenceGuard, Probes
from ablations.training.compiled import compiled
from ablations.training.half import unscales_fused
from ablations.training.optimizer import build_optimizer, lr_share
from ufo.scale import UnmatchableError, attention_layers

LOG = logging.getLogger(__name__)


class CellModule(pl.LightningModule, ABC):
    """Net with its training and evaluation in a cell, driven through its hooks, as by Lightning's Trainer.

    An epoch's draws are keyed by (seed, epoch), and a checkpoint within an epoch holds their state, so that a resumed
    training gives the same numbers. The global generators are keyed alike for library code, and restored at the end of
    a fit or a test.

    Args:
        config: configuration of the cell.
        net: net with its initial weights.
        chance_loss: training loss at chance level, in nats.

    Attributes:
        losses: names of the epoch's metrics that must be finite.
        epoch_hashes: hash of each epoch's batches and draws; empty text if the batches are not this package's.
    """

    losses: ClassVar[tuple[str, ...]]

    def __init__(self, config: CellConfig, net: nn.Module, *, chance_loss: float) -> None:
        super().__init__()
        self.config, self.net, self.chance_loss = config, net, chance_loss
        self.epoch_hashes: list[str] = []
        self._val_means: dict[str, float] = {}
        self._drawn: int | None = None
        self._resumed: dict[str, Any] | None = None
        self._is_started = False
        self._outer_state: dict[str, Any] | None = None
        self._train_net: list[nn.Module] = []  # a list, so that compiled weights are not registered twice
        if config.net.scale == "matched":
            for attention in attention_layers(net).values():
                attention.matched_gain = torch.ones(())  # so that checkpoints and averages include it

    def forward(self, *inputs: Any) -> Any:
        """Call the net."""
        return self.net(*inputs)

    @property
    def train_net(self) -> nn.Module:
        """Net that training steps call, compiled if the cell says so; evaluation is not compiled, for probes' hooks.

        One graph per shape, or an error: numbers must not depend on earlier compilations in the process.
        """
        if not self.config.run.compile:
            return self.net
        if not self._train_net:
            self._train_net.append(compiled(self.net))
        return self._train_net[0]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW and its learning-rate schedule, stepped after every step.

        Raises:
            MisconfigurationException: trainer that exceeds the schedule, or batches of unknown number.
        """
        trainer, optim = self.trainer, self.config.optimisation
        if trainer.max_epochs is None or not 0 <= trainer.max_epochs <= optim.epochs:
            raise MisconfigurationException(
                f"the learning rate is laid out for {optim.epochs} epochs: Trainer(max_epochs={optim.epochs}), "
                f"not {trainer.max_epochs}"
            )
        steps = self._steps_per_epoch()
        strategy: Any = trainer.strategy
        plugin = getattr(strategy, "precision_plugin", None) or strategy.precision  # of a Trainer, or a Fabric
        fused = unscales_fused(plugin) and strategy.root_device.type != "mps"
        # A captured step reads its learning rate from the device.
        lr = torch.tensor(optim.lr, device=self.device) if self.config.run.cuda_graph else optim.lr
        optimizer = build_optimizer(self.net, lr=lr, weight_decay=optim.weight_decay, fused=fused)
        is_cosine = optim.schedule == COSINE
        decay_steps = None if is_cosine else [int(epoch) * steps for epoch in optim.schedule.split(JOINT)]
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: lr_share(
                step,
                num_steps=optim.epochs * steps,
                num_warmup_steps=optim.warmup_epochs * steps + optim.warmup_steps,
                min_share=optim.min_lr_share,
                warmup_share=optim.warmup_lr_share,
                decay_steps=decay_steps,
            ),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradient norm at the cell's limit.

        Raises:
            MisconfigurationException: trainer that clips too.
        """
        largest = self.config.optimisation.grad_clip
        if gradient_clip_val is not None:
            raise MisconfigurationException(
                f"the cell clips gradients itself (grad_clip={largest:g}): leave out gradient_clip_val"
            )
        if largest:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, largest)

    def configure_callbacks(self) -> list[pl.Callback]:
        """Return the moving average of the weights, if the cell has one, the probes and the divergence guard."""
        optim = self.config.optimisation
        average = [MovingAverage(optim.ema_decay)] if optim.ema_decay else []
        guard = DivergenceGuard(chance=self.chance_loss, losses=self.losses, warmup_epochs=optim.warmup_epochs)
        return [*average, Probes(), guard]

    def setup(self, stage: str) -> None:
        """Clear the state of a checkpoint loaded for another purpose; one to resume from is loaded after this."""
        if stage == "fit":
            self._resumed, self._drawn, self.epoch_hashes = None, None, []

    def on_fit_start(self) -> None:
        """Match the attention outputs' scale to xnorm's if the cell says so, unless a checkpoint restored it.

        Raises:
            Diverged: output that is not finite, which no gain can change.
            UnmatchableError: output that is all zeros.
        """
        self._outer_state = library_state()
        if self.config.net.scale == "matched" and not self._is_started:
            self.match_scale()
        self._is_started = True

    def on_fit_end(self) -> None:
        """Restore the global generators."""
        self._restore_outer()

    def on_train_start(self) -> None:
        """Restore the position of the loader, also of one without a data module."""
        train = self.trainer.train_dataloader
        if self._resumed is not None and isinstance(train, EpochBatches):
            train.load_state_dict(self._resumed["loader"])

    def on_train_epoch_start(self) -> None:
        """Draw the epoch, and reset its metrics."""
        self._resumed = None  # of an earlier epoch
        self._draw(self.trainer.current_epoch)
        self.epoch_hashes.append(self._hash())
        self._val_means = {}
        self.reset_train_metrics()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Draw a resumed epoch, whose start hook is not always called."""
        epoch, resumed = self.trainer.current_epoch, self._resumed
        if self._drawn == epoch:
            return
        if resumed is None or resumed["epoch"] != epoch:
            CellModule.on_train_epoch_start(self)
            return
        self._draw(epoch)
        self._restore_draws(resumed)
        self._resumed = None

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        self._log(self.train_metrics())

    def on_validation_epoch_start(self) -> None:
        """Reset the validation metrics."""
        self.reset_val_metrics()

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        if not self.trainer.sanity_checking:
            self._val_means = self.val_metrics()
            self._log(self._val_means)

    def on_test_start(self) -> None:
        """Reset the test metrics, and key the global generators, even if no epoch was trained before."""
        self._outer_state = library_state()
        reseed_library(self.config.seed, self.config.optimisation.epochs)
        self.reset_test_metrics()

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log(self.test_metrics())

    def on_test_end(self) -> None:
        """Restore the global generators."""
        self._restore_outer()

    def epoch_metrics(self) -> dict[str, float]:
        """Return the training metrics of the epoch that just ended, and validation's if it ran."""
        return self.train_metrics() | self._val_means

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the draws and of the loader."""
        train = self.trainer.train_dataloader
        checkpoint["draws"] = {
            "epoch": self._drawn,
            "epoch_hashes": list(self.epoch_hashes),
            "library": library_state(),
            "loader": train.state_dict() if isinstance(train, EpochBatches) else {},
            **self._draws_state(),
        }

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the state of the draws, which is restored before the next step."""
        self._is_started = True
        if (draws := checkpoint.get("draws")) is not None:
            self.epoch_hashes = list(draws["epoch_hashes"])
            self._resumed, self._drawn = draws, None

    @abstractmethod
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss, a scalar, of the epoch's batch at index ``batch_idx``."""

    @abstractmethod
    def train_metrics(self) -> dict[str, float]:
        """Return the epoch's training metrics."""

    @abstractmethod
    def val_metrics(self) -> dict[str, float]:
        """Return the validation metrics."""

    @abstractmethod
    def test_metrics(self) -> dict[str, float]:
        """Return the test metrics."""

    @abstractmethod
    def reset_train_metrics(self) -> None:
        """Reset the epoch's training metrics."""

    @abstractmethod
    def reset_val_metrics(self) -> None:
        """Reset the validation metrics."""

    @abstractmethod
    def reset_test_metrics(self) -> None:
        """Reset the test metrics."""

    @abstractmethod
    def write_test(self, folder: Path) -> None:
        """Write the test results to a cell's folder."""

    @abstractmethod
    def no_learning(self, rows: list[dict[str, Any]]) -> str:
        """Return how the rows of metrics.csv show that nothing was learned; empty if the cell has learned."""

    @abstractmethod
    def validated(self, last: dict[str, Any]) -> dict[str, float]:
        """Return the validation metrics of the last row of metrics.csv, as in the cell's record."""

    @abstractmethod
    def _match_to_xnorm(self, batch: Any) -> dict[str, float]:
        """Match the scale of the attention outputs on a batch; return the gain of each layer."""

    def match_scale(self) -> None:
        """Match the scale of the attention outputs to xnorm's, on the first batch of training.

        Raises:
            Diverged: output that is not finite, which no gain can change.
            UnmatchableError: output that is all zeros.
        """
        train: Any = self.trainer.train_dataloader
        batch = train.first() if isinstance(train, EpochBatches) else next(iter(train))
        for attention in attention_layers(self.net).values():
            attention.matched_gain = None
        try:
            gains = self._match_to_xnorm(batch)
        except UnmatchableError as error:
            if math.isfinite(error.rms):
                raise
            raise Diverged("nan", str(error)) from None
        LOG.info("gains of matched scale: %s", ", ".join(f"{layer} {gain:.4g}" for layer, gain in gains.items()))

    def _draw(self, epoch: int) -> None:
        """Draw an epoch (from 0)."""
        self._drawn = epoch

    def _draws_state(self) -> dict[str, Any]:
        """Return the state of the draws that continue from step to step."""
        return {}

    def _restore_draws(self, state: dict[str, Any]) -> None:
        """Restore the state of the draws."""
        restore_library(state["library"])

    def _hash(self) -> str:
        """Hash the epoch's batches and draws."""
        train = self.trainer.train_dataloader
        return train.hash if isinstance(train, EpochBatches) else ""

    def _steps_per_epoch(self) -> int:
        trainer = self.trainer
        if not math.isfinite(trainer.estimated_stepping_batches):  # makes the trainer count the batches
            raise MisconfigurationException(
                "the learning-rate schedule needs the number of steps: the training batches need a length"
            )
        return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)

    def _log(self, metrics: dict[str, float]) -> None:
        # The metrics are already those of all processes.
        self.log_dict(metrics, sync_dist=self.trainer.world_size > 1)

    def _restore_outer(self) -> None:
        if self._outer_state is not None:
            restore_library(self._outer_state)
            self._outer_state = None


def as_config(config: CellConfig | Mapping[str, Any]) -> CellConfig:
    """Return a cell's configuration, also from its fields, as in a checkpoint."""
    return config if isinstance(config, CellConfig) else CellConfig(**config)
