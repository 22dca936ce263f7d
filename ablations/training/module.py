"""What the LightningModules of all tasks have in common: weights, draws of an epoch, optimiser, what watches them."""

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
from ablations.training.optimizer import build_optimizer, build_schedule
from ufo.scale import UnmatchableError, attention_layers

LOG = logging.getLogger(__name__)

MOST_GRAPHS = 1000
"""Compiled nets that a process keeps, one for each arm and shape; torch's own limit, 8, is a mistake's alarm."""


class CellModule(pl.LightningModule, ABC):
    """A net, and how a cell trains and judges it. Whatever drives it calls its hooks, as Lightning's Trainer does.

    What an epoch draws is keyed by (seed, epoch), and a checkpoint in the middle of an epoch holds where the draws are,
    so that a training that is gone on with gives the same numbers. Library code that draws from the global generators
    finds them keyed alike; at the end of a fit or a test they are put back where they were.

    Args:
        config: the cell: recipe, seed, and what its net is.
        net: with its first weights.
        chance_loss: training loss of a net that guesses, nats.

    Attributes:
        losses: names of the epoch's means that must be numbers.
        epoch_hashes: of what the steps of each epoch see; empty text where the batches are not this package's.
    """

    losses: ClassVar[tuple[str, ...]]

    def __init__(self, config: CellConfig, net: nn.Module, *, chance_loss: float) -> None:
        super().__init__()
        self.config, self.net, self.chance_loss = config, net, chance_loss
        self.epoch_hashes: list[str] = []
        self._val_means: dict[str, float] = {}
        self._drawn: int | None = None
        self._resumed: dict[str, Any] | None = None
        self._is_begun = False
        self._outside: dict[str, Any] | None = None
        self._train_net: list[nn.Module] = []  # a list, so that compiled weights are not listed twice
        if config.net.scale == "matched":
            for attention in attention_layers(net).values():
                attention.matched_gain = torch.ones(())  # so that it has a place in checkpoints and averages

    def forward(self, *inputs: Any) -> Any:
        """Call the net."""
        return self.net(*inputs)

    @property
    def train_net(self) -> nn.Module:
        """The net that training steps call, compiled where the cell says so; evaluation is not, for probes to listen.

        One graph for one shape, or an error: numbers must not depend on what the process has compiled before.
        """
        if not self.config.run.compile:
            return self.net
        if not self._train_net:
            self._train_net.append(compiled(self.net))
        return self._train_net[0]

    # Optimisation

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW, and the schedule of its learning rate, stepped after every step.

        Raises:
            MisconfigurationException: a trainer that goes on longer than the schedule, or knows no number of batches.
        """
        config, trainer, optim = self.config, self.trainer, self.config.optimisation
        if trainer.max_epochs is None or not 0 <= trainer.max_epochs <= optim.epochs:
            raise MisconfigurationException(
                f"the learning rate is laid out for {optim.epochs} epochs: Trainer(max_epochs={optim.epochs}), "
                f"not {trainer.max_epochs}"
            )
        steps = self._steps_per_epoch()
        # A fused optimiser would undo the scaling of float16 by itself, after the gradients were clipped.
        fused = trainer.precision != "16-mixed" and trainer.strategy.root_device.type != "mps"
        optimizer = build_optimizer(self.net, lr=optim.lr, weight_decay=optim.weight_decay, fused=fused)
        schedule = build_schedule(
            optimizer,
            num_steps=optim.epochs * steps,
            num_warmup_steps=optim.warmup_epochs * steps + optim.warmup_steps,
            min_share=optim.min_lr_share,
            warmup_share=optim.warmup_lr_share,
            decay_steps=_decay_steps(config, steps),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm as the cell says.

        Raises:
            MisconfigurationException: the trainer would clip too.
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
        """Return the moving average of the weights where there is one, the probes, and the divergence guard."""
        optim = self.config.optimisation
        average = [MovingAverage(optim.ema_decay)] if optim.ema_decay else []
        guard = DivergenceGuard(chance=self.chance_loss, losses=self.losses, warmup_epochs=optim.warmup_epochs)
        return [*average, Probes(), guard]

    # The course of a fit

    def setup(self, stage: str) -> None:
        """Forget what a checkpoint held that was loaded for something else; one to go on from comes after this."""
        if stage == "fit":
            self._resumed, self._drawn, self.epoch_hashes = None, None, []

    def on_fit_start(self) -> None:
        """Match the attention outputs' scale to xnorm's where the cell says so, unless a checkpoint has brought it.

        Raises:
            Diverged: an output that no gain can change because it is no number.
            UnmatchableError: an output that is zero throughout.
        """
        self._outside = library_state()
        if self.config.net.scale == "matched" and not self._is_begun:
            self.match_scale()
        self._is_begun = True

    def on_fit_end(self) -> None:
        """Put the global generators back."""
        self._give_back()

    def on_train_start(self) -> None:
        """Put the loader where it was, also one that came without its data module."""
        train = self.trainer.train_dataloader
        if self._resumed is not None and isinstance(train, EpochBatches):
            train.load_state_dict(self._resumed["loader"])

    def on_train_epoch_start(self) -> None:
        """Draw what the epoch needs, and start its means anew."""
        self._resumed = None  # of an epoch before
        self._draw(self.trainer.current_epoch)
        self.epoch_hashes.append(self._hash())
        self._val_means = {}
        self.reset_train_metrics()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Draw the epoch where a training is gone on with, which does not always call its beginning."""
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
        """Log the epoch's means."""
        self._log(self.train_metrics())

    def on_validation_epoch_start(self) -> None:
        """Start validation's means anew."""
        self.reset_val_metrics()

    def on_validation_epoch_end(self) -> None:
        """Log what validation comes to."""
        if not self.trainer.sanity_checking:
            self._val_means = self.val_metrics()
            self._log(self._val_means)

    def on_test_start(self) -> None:
        """Start the test's measures anew; key the global generators, also where no epoch was trained before."""
        self._outside = library_state()
        reseed_library(self.config.seed, self.config.optimisation.epochs)
        self.reset_test_metrics()

    def on_test_epoch_end(self) -> None:
        """Log what the test comes to."""
        self._log(self.test_metrics())

    def on_test_end(self) -> None:
        """Put the global generators back."""
        self._give_back()

    def epoch_metrics(self) -> dict[str, float]:
        """Return the means of the epoch that has just ended, and what validation came to where it was looked at."""
        return self.train_metrics() | self._val_means

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the draws are, and the loader."""
        train = self.trainer.train_dataloader
        checkpoint["draws"] = {
            "epoch": self._drawn,
            "epoch_hashes": list(self.epoch_hashes),
            "library": library_state(),
            "loader": train.state_dict() if isinstance(train, EpochBatches) else {},
            **self._draws_state(),
        }

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Take where the draws were; they are put there before the next step."""
        self._is_begun = True
        if (draws := checkpoint.get("draws")) is not None:
            self.epoch_hashes = list(draws["epoch_hashes"])
            self._resumed, self._drawn = draws, None

    # What a task adds

    @abstractmethod
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss, a scalar, of the epoch's batch number ``batch_idx``."""

    @abstractmethod
    def train_metrics(self) -> dict[str, float]:
        """Return the means of the epoch's training."""

    @abstractmethod
    def val_metrics(self) -> dict[str, float]:
        """Return what validation comes to."""

    @abstractmethod
    def test_metrics(self) -> dict[str, float]:
        """Return what the test comes to."""

    @abstractmethod
    def reset_train_metrics(self) -> None:
        """Start the epoch's means anew."""

    @abstractmethod
    def reset_val_metrics(self) -> None:
        """Start validation's measures anew."""

    @abstractmethod
    def reset_test_metrics(self) -> None:
        """Start the test's measures anew."""

    @abstractmethod
    def write_test(self, folder: Path) -> None:
        """Write what the test saw into a cell's folder."""

    @abstractmethod
    def no_learning(self, rows: list[dict[str, Any]]) -> str:
        """Say what in the rows of metrics.csv shows that it has learned nothing; empty where it has learned."""

    @abstractmethod
    def validated(self, last: dict[str, Any]) -> dict[str, float]:
        """Return what the last row of metrics.csv says of validation, as the record has it."""

    @abstractmethod
    def _match_to_xnorm(self, batch: Any) -> dict[str, float]:
        """Match the scale of the attention outputs on a batch; return each layer's gain."""

    def match_scale(self) -> None:
        """Match the scale of the attention outputs to xnorm's, on the first batch of training.

        Raises:
            Diverged: an output that no gain can change because it is no number.
            UnmatchableError: an output that is zero throughout.
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
        """Return where the draws are that go on from step to step."""
        return {}

    def _restore_draws(self, state: dict[str, Any]) -> None:
        """Put the draws where they were."""
        restore_library(state["library"])

    def _hash(self) -> str:
        """Hash what the epoch's steps see."""
        train = self.trainer.train_dataloader
        return train.hash if isinstance(train, EpochBatches) else ""

    def _steps_per_epoch(self) -> int:
        trainer = self.trainer
        if not math.isfinite(trainer.estimated_stepping_batches):  # which has the trainer ask for the batches
            raise MisconfigurationException(
                "the learning rate is laid out by steps: the training batches need a length"
            )
        return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)

    def _log(self, metrics: dict[str, float]) -> None:
        # Every process has the means of all already.
        self.log_dict(metrics, sync_dist=self.trainer.world_size > 1)

    def _give_back(self) -> None:
        if self._outside is not None:
            restore_library(self._outside)
            self._outside = None


def compiled(net: nn.Module) -> nn.Module:
    """Compile a net, or take the code of an equal one that this process has compiled before."""
    torch.compiler.config.recompile_limit = torch.compiler.config.accumulated_recompile_limit = MOST_GRAPHS
    module: nn.Module = torch.compile(net, fullgraph=True, dynamic=False)  # type: ignore[assignment]
    return module


def as_config(config: CellConfig | Mapping[str, Any]) -> CellConfig:
    """Return a cell, also where a checkpoint holds it as its fields."""
    return config if isinstance(config, CellConfig) else CellConfig(**config)


def _decay_steps(config: CellConfig, num_batches: int) -> list[int] | None:
    """Return the steps from which the learning rate is lower; None: it follows a cosine."""
    if config.optimisation.schedule == COSINE:
        return None
    return [int(epoch) * num_batches for epoch in config.optimisation.schedule.split(JOINT)]
