"""A plain PyTorch loop that trains a grid of cells, in one process and without a framework.

It trains the harness's cells on the CPU in float32, with the same weights, batches, drop paths, recipe and evaluations,
to measure the time of the computation itself. It has no divergence guard, no probes, and no files except its results.

    python -m ablations.bench.bare CELLS RESULTS [--threads N]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ufo
from ablations.config import CellConfig
from ablations.data import DataInfo, EvalBatches, Scale, Split, TrainBatches, find_source, load_splits, prepare
from ablations.data.load import make_augmentation
from ablations.data.streams import epoch_generator
from ablations.tasks.ufo_net import build_ufo_net
from ablations.training.optimizer import build_optimizer, lr_share

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Trained:
    """The result of a cell.

    Args:
        train_loss: mean training loss of each epoch, nats.
        val_loss: validation loss after each epoch, nats.
        val_accuracy_pct: validation accuracy after each epoch, per cent.
        epoch_s: seconds of each epoch, including validation.
        test_loss: test loss at the end, nats.
        test_accuracy_pct: test accuracy at the end, per cent.
        seconds: seconds from the start of building the net to the end of the test.
    """

    train_loss: list[float]
    val_loss: list[float]
    val_accuracy_pct: list[float]
    epoch_s: list[float]
    test_loss: float
    test_accuracy_pct: float
    seconds: float


def train_bare(config: CellConfig, info: DataInfo, *, splits: dict[str, Split]) -> Trained:
    """Train and test a cell with torch's current number of threads.

    Args:
        config: configuration of the cell.
        info: its data set.
        splits: splits ``train``, ``val`` and ``test`` on the CPU, with the cell's ``train_limit`` applied.

    Raises:
        ValueError: the cell is not in float32, is compiled, or uses a feature that only the harness has.
    """
    run, augmentation, optim = config.run, config.augmentation, config.optimisation
    if run.precision != "32-true" or run.compile:
        raise ValueError(f"the bare loop trains in 32-true, uncompiled, not {run.precision}, {run.compile=}")
    if augmentation.mixup or augmentation.cutmix or augmentation.erasing or optim.ema_decay:
        raise ValueError("the bare loop supports no mixup, CutMix, erasing or moving averages")
    started = time.perf_counter()
    scale = Scale(info.mean, info.std, device=CPU)
    train = TrainBatches(
        splits["train"],
        scale=scale,
        batch_size=optim.batch_size,
        augmentation=make_augmentation(config),
        seed=config.seed,
        repeats=augmentation.repeats,
    )
    val, test = (EvalBatches(splits[name], scale=scale) for name in ("val", "test"))
    shape = info.image_shape
    net = build_ufo_net(config, img_size=shape[:2], in_chans=shape[2], num_classes=len(info.classes))
    optimizer = build_optimizer(net, lr=optim.lr, weight_decay=optim.weight_decay, fused=True)
    epochs = []
    for epoch in range(optim.epochs):
        clock = time.perf_counter()
        train_loss = _train_epoch(net, optimizer, train, config=config, epoch=epoch)
        epochs.append((train_loss, *_evaluate(net, val), time.perf_counter() - clock))
    train_losses, val_losses, val_accuracies_pct, epochs_s = map(list, zip(*epochs, strict=True))
    tested = _evaluate(net, test)
    return Trained(train_losses, val_losses, val_accuracies_pct, epochs_s, *tested, time.perf_counter() - started)


def _train_epoch(
    net: ufo.UFOViT, optimizer: torch.optim.Optimizer, train: TrainBatches, *, config: CellConfig, epoch: int
) -> float:
    net.train()
    train.set_epoch(epoch)
    keep = _draw_keep(net, train, config=config, epoch=epoch)
    parameters = list(net.parameters())
    loss_sum = torch.zeros(())
    for index, (images, labels) in enumerate(train):
        lr = config.optimisation.lr * lr_share(
            epoch * len(train) + index,
            num_steps=config.optimisation.epochs * len(train),
            num_warmup_steps=config.optimisation.warmup_epochs * len(train),
            min_share=config.optimisation.min_lr_share,
            warmup_share=config.optimisation.warmup_lr_share,
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        logits = net(images, None if keep is None else keep[index])
        loss = F.cross_entropy(logits, labels, label_smoothing=config.optimisation.label_smoothing)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if config.optimisation.grad_clip:
            nn.utils.clip_grad_norm_(parameters, config.optimisation.grad_clip)
        optimizer.step()
        loss_sum += loss.detach()
    return loss_sum.item() / len(train)


@torch.inference_mode()
def _evaluate(net: ufo.UFOViT, batches: EvalBatches) -> tuple[float, float]:
    """Return mean loss in nats and accuracy in per cent."""
    net.eval()
    loss_sum, num_correct = torch.zeros(()), torch.zeros((), dtype=torch.long)
    for images, labels in batches:
        logits = net(images)
        loss_sum += F.cross_entropy(logits, labels, reduction="sum")
        num_correct += (logits.argmax(dim=1) == labels).sum()
    num_images = len(batches.split)
    return loss_sum.item() / num_images, 100 * num_correct.item() / num_images


def _draw_keep(net: ufo.UFOViT, train: TrainBatches, *, config: CellConfig, epoch: int) -> Tensor | None:
    if not config.net.drop_path:
        return None
    shape = (len(train), train.batch_size)
    generators = (epoch_generator(config.seed, "drop_path", epoch, name) for name in net.branches)
    draws = [torch.rand(shape, generator=generator) for generator in generators]
    return torch.stack(draws, dim=1) >= config.net.drop_path  # (steps, branches, B)


def write_cells(path: Path, cells: Iterable[CellConfig]) -> None:
    """Write cells to a JSON file for `main`."""
    path.write_text(json.dumps([cell.model_dump(mode="json") for cell in cells], indent=1))


def main() -> None:
    """Train the digits cells of a file one after another, and write their results."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("cells", type=Path, help="JSON: a list of cells")
    parser.add_argument("results", type=Path, help="JSON: a list of results, in the order of the cells")
    parser.add_argument("--threads", type=int, help="number of torch threads; torch's default: all cores")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    cells = [CellConfig(**fields) for fields in json.loads(arguments.cells.read_text())]
    # The data root is not used: digits come with scikit-learn.
    info = prepare(find_source("digits", data_root=Path(), download=False, image_size=None))
    splits = load_splits(info, train_limit=None, device=CPU)
    trained = [asdict(train_bare(cell, info, splits=splits)) for cell in cells]
    arguments.results.write_text(json.dumps(trained, indent=1))


if __name__ == "__main__":
    main()
