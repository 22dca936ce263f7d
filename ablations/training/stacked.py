"""Cells that differ only in their seeds, trained as one batched net: a step launches its kernels once for all of them.

The weights of all seeds are stacked, and each cell's net holds views of its own, so that validation, test, probes and
checkpoints are those of a single cell. Each seed has its own order, augmentation, weights, BatchNorm statistics,
clipping and moving average. Sums run in another order than in a single cell, so the last bits differ.

Dimension letters: S seeds, B batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ablations.data import Batch, TrainBatches
from ablations.data.draws import joined, pick
from ablations.data.modules import CellDataModule
from ablations.training.average import MovingAverage
from ablations.training.callbacks import Diverged, History
from ablations.training.captured import CapturedStep
from ablations.training.checkpoint import Checkpoints, answer_asked, divergence_in
from ablations.training.loop import LeanTrainer
from ablations.training.module import CellModule
from ablations.training.stacked_nets import StackedNets


class Stack:
    """Training of several cells as one net.

    Args:
        trainers: trainers of the cells.
        checkpoints: callbacks of the trainers that save checkpoints; the first decides when all are saved.

    Attributes:
        diverged: divergence of each cell that diverged, by its place.
    """

    def __init__(self, trainers: Sequence[LeanTrainer], checkpoints: Sequence[Checkpoints]) -> None:
        self.trainers, self.checkpoints = trainers, checkpoints
        self._histories = [each for trainer in trainers for each in trainer.own_callbacks if isinstance(each, History)]
        self.diverged: dict[int, Diverged] = {}
        self._captured: CapturedStep | None = None
        self._averages: dict[int, MovingAverage] = {}
        self._share: Tensor
        for each in checkpoints:
            each.num_sharing = len(checkpoints)

    def fit(
        self, modules: Sequence[CellModule], data: Sequence[CellDataModule], *, resumed: Sequence[dict[str, Any] | None]
    ) -> None:
        """Train the remaining epochs of every cell that does not diverge.

        Args:
            modules: modules with their initial weights.
            data: data modules of the cells.
            resumed: checkpoints of one step, to resume from; all None: start from scratch.
        """
        starts: dict[int, int] = {}

        def begin(place: int, trainer: LeanTrainer) -> None:
            starts[place] = trainer.begin(modules[place], data[place], resumed[place])
            if divergence := divergence_in(resumed[place]):
                self.checkpoints[place].diverged = divergence
                raise Diverged(*divergence)

        self._each(begin)
        if not self._live:
            return
        first = starts[self._live[0]]
        nets = StackedNets({place: modules[place] for place in self._live}, self.trainers)
        while self._live and self._leader.current_epoch < self._leader.max_epochs:
            self._each(lambda _, trainer: trainer.begin_epoch(first))  # noqa: B023  # called at once
            self._train_epoch(nets, first)
            first = 0
            self._each(lambda _, trainer: trainer.end_epoch())
            if self._live and self._saves.is_due_at_end(self._leader):  # type: ignore[arg-type]
                self._save()
            for place in self._live:
                self.trainers[place].current_epoch += 1
        self._each(lambda _, trainer: trainer.end())

    @property
    def _live(self) -> list[int]:
        """Places of the cells that have not diverged."""
        return [place for place in range(len(self.trainers)) if place not in self.diverged]

    @property
    def _leader(self) -> LeanTrainer:
        """Trainer of the first live cell, in whose place any other would do."""
        return self.trainers[self._live[0]]

    @property
    def _saves(self) -> Checkpoints:
        """Callback that decides when the checkpoints of all cells are saved."""
        return self.checkpoints[self._live[0]]

    def _each(self, call: Callable[[int, LeanTrainer], None]) -> None:
        """Call a function with place and trainer of every live cell; one that diverges in it ends."""
        for place in self._live:
            try:
                call(place, self.trainers[place])
            except Diverged as divergence:
                self.diverged[place] = divergence

    def _train_epoch(self, nets: StackedNets, first: int) -> None:
        started = time.perf_counter()
        if self._captured is None and self._leader.module.config.run.cuda_graph:
            self._captured = self._capture(nets)
        if self._captured is None:
            self._train_steps(nets, first)
        else:
            with self._captured.stream():
                self._train_steps(nets, first)
        if self._live and self._leader.device.type == "cuda":
            torch.cuda.synchronize(self._leader.device)
        for place in self._live:
            self._histories[place].train_s = (time.perf_counter() - started) / len(self.trainers)

    def _train_steps(self, nets: StackedNets, first: int) -> None:
        batches: Iterator[Any] = self._batches(nets) if self._captured is None else self._indices(nets)
        for index, batch in enumerate(batches, first):
            self._each(lambda _, trainer: trainer.begin_step(None, index))  # noqa: B023
            nets.set_lr(self._leader.optimizers[0].param_groups[0]["lr"])
            if self._captured is None:
                losses = nets.step(batch, index, live=self._live)
            else:
                self._set_share()
                losses = self._captured(index, replay=not self._leader.is_last_batch)  # probes read its gradients
            of_place = dict(zip(nets.modules, losses.unbind(), strict=True))

            def end(place: int, trainer: LeanTrainer) -> None:
                nets.steps[place].record_loss(of_place[place])  # noqa: B023
                trainer.end_step(of_place[place], None, index)  # noqa: B023

            self._each(end)
            if not self._live:
                return
            if self._saves.is_due_within(self._leader):  # type: ignore[arg-type]
                self._save()

    def _batches(self, nets: StackedNets) -> Iterator[Batch]:
        """Yield the batches of all cells in a row; images in memory are augmented together."""
        loaders = self._loaders(nets)
        if all(isinstance(loader, TrainBatches) for loader in loaders):
            yield from (self._batch(nets, index) for index in self._indices(nets))
            return
        for batches in zip(*loaders, strict=True):
            images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
            yield images, labels

    def _batch(self, nets: StackedNets, index: int | Tensor) -> Batch:
        loaders = self._loaders(nets)
        batch: Batch = loaders[0].make(joined([pick(loader.draws, index) for loader in loaders]))
        return batch

    def _indices(self, nets: StackedNets) -> Iterator[int]:
        for index, *_ in zip(*(loader.indices() for loader in self._loaders(nets)), strict=True):
            yield index

    def _loaders(self, nets: StackedNets) -> list[Any]:
        return [self.trainers[place].train_dataloader for place in nets.modules]

    def _capture(self, nets: StackedNets) -> CapturedStep:
        """Return the whole step, to be captured in a CUDA graph."""
        trainers = {place: self.trainers[place] for place in nets.modules}
        self._averages = {
            place: callback
            for place, trainer in trainers.items()
            for callback in trainer.callbacks
            if isinstance(callback, MovingAverage)
        }
        for average in self._averages.values():
            average.is_in_step = True
        self._share = torch.zeros((), device=self._leader.device)

        def step(index: Tensor) -> Tensor:
            losses = nets.step(self._batch(nets, index), index, live=self._live)
            for place, average in self._averages.items():
                average.blend(nets.modules[place], self._share)
            return losses

        def generators() -> list[torch.Generator]:
            return [each for one in nets.steps.values() for each in one.step_generators()]

        return CapturedStep(step, device=self._leader.device, generators=generators)

    def _set_share(self) -> None:
        if self._averages:
            average = next(iter(self._averages.values()))
            self._share.fill_(average.share(self._leader.global_step + 1))

    def _save(self) -> None:
        for place, divergence in self.diverged.items():
            if self.checkpoints[place].diverged is None:  # so that the others can resume without it
                self.checkpoints[place].diverged = (divergence.kind, str(divergence))
                self.checkpoints[place].save(self.trainers[place])  # type: ignore[arg-type]
        self._each(lambda place, trainer: self.checkpoints[place].save(trainer))  # type: ignore[arg-type]
        answer_asked()
