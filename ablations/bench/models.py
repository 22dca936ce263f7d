"""Whole nets beside each other, by turns: inference, training steps and their memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

import ufo
from ablations.bench.measure import count_multiply_adds, peak_bytes, time_calls
from ablations.recipes import build_optimizer
from ablations.study import UsageError
from ablations.study.timm import is_timm
from ablations.tasks.timm_net import check_timm_name, make_timm_net
from ablations.threads import cpu_threads
from ufo.norms import NORMS
from ufo.sizes import SIZES

NUM_CLASSES = 1000

BASE_PX, BASE_BATCH = 224, 8
"""A batch has as many pixels at every size: 8 images of 224 px, or one larger one."""


class ModelRow(NamedTuple):
    """A measurement: seconds or peak bytes of a batch in ``inference`` or a ``training`` step, or a net's own size."""

    model: str
    px: int
    images: int
    quantity: str
    round: int
    value: float


@dataclass(frozen=True, kw_only=True)
class ModelBench:
    """What is measured, and how.

    Args:
        models: names of UFO-ViT's sizes, or of timm's with their prefix; the first is compared with the others.
        norms: normalisers that each UFO-ViT is measured with.
        sizes: pixels of the side of square images.
        batch: images; None: as many as have the pixels of `BASE_BATCH` images of `BASE_PX`, one at least.
        rounds: how often each time is measured, after a first round that is not counted.
        compiled: whether nets go through torch.compile.
        precision: ``32-true`` or ``bf16-mixed``.
        num_threads: of a CPU.
        device: where.
        training: whether training steps are measured too.
    """

    models: Sequence[str]
    norms: Sequence[str]
    sizes: Sequence[int]
    batch: int | None
    rounds: int
    compiled: bool
    precision: str
    num_threads: int
    device: torch.device
    training: bool

    def images(self, px: int) -> int:
        """Return the images of a batch at a size."""
        return self.batch or max(1, round(BASE_BATCH * (BASE_PX / px) ** 2))


def bench_models(bench: ModelBench, *, on_row: Callable[[ModelRow], None]) -> list[ModelRow]:
    """Measure every net at every size, each once in a round, in an order that is turned round from round to round.

    Args:
        bench: what.
        on_row: is told each measurement.

    Raises:
        UsageError: a model that there is not, or that does not take such images.
    """
    for model in bench.models:
        if is_timm(model):
            check_timm_name(model)
        else:
            SIZES[model]
    for norm in bench.norms:
        NORMS[norm]
    rows: list[ModelRow] = []
    with cpu_threads(bench.num_threads):
        for px in bench.sizes:
            for row in _measure(bench, px):
                on_row(row)
                rows.append(row)
    return rows


def describe_models(rows: list[ModelRow]) -> list[str]:
    """Say for each size and kind of step how fast each net is, in medians, and how the first one compares.

    >>> rows = [ModelRow(m, 224, 8, "inference_s", 1, s) for m, s in (("ours", 0.2), ("other", 0.3))]
    >>> for line in describe_models(rows):
    ...     print(line)
    224 px, 8 images, inference: ours 40.0 images/s
      other 26.7 images/s: ours is 1.50 times [1.50, 1.50] as fast
    """
    lines = []
    first = rows[0].model
    for px, images in dict.fromkeys((row.px, row.images) for row in rows):
        for step in ("inference", "training"):
            seconds = {model: _values(rows, px, model, f"{step}_s") for model in _models(rows)}
            if not seconds[first]:
                continue
            head = f"{px} px, {images} image{'s' * (images > 1)}, {step}: "
            lines.append(head + _rate(rows, px, first, step, images))
            for model in _models(rows)[1:]:
                ratios = [theirs / ours for theirs, ours in zip(seconds[model], seconds[first], strict=True)]
                lines.append(
                    f"  {_rate(rows, px, model, step, images)}: {first} is {statistics.median(ratios):.2f} times "
                    f"[{min(ratios):.2f}, {max(ratios):.2f}] as fast"
                )
    return lines


def _measure(bench: ModelBench, px: int) -> Iterator[ModelRow]:
    images = torch.randn(bench.images(px), 3, px, px, generator=torch.Generator().manual_seed(0)).to(bench.device)
    contenders = [_Contender(name, net, bench, images) for name, net in _build(bench, px)]
    for contender in contenders:
        yield from contender.sizes()
    for number in range(bench.rounds + 1):
        for contender in contenders if number % 2 else reversed(contenders):
            yield from (row for row in contender.times(number) if number)


def _build(bench: ModelBench, px: int) -> list[tuple[str, nn.Module]]:
    """Build every net at a size, by the name that it has in the rows."""
    nets: list[tuple[str, nn.Module]] = []
    size = {"img_size": (px, px), "num_classes": NUM_CLASSES}
    for model in bench.models:
        try:
            if is_timm(model):
                nets.append((model, make_timm_net(model, in_chans=3, drop_path=0.0, seed=0, **size)))  # type: ignore[arg-type]
                continue
            for norm in bench.norms:
                name = model if len(bench.norms) == 1 else f"{model} {norm}"
                nets.append((name, ufo.build(model, norm=norm, **size)))  # type: ignore[arg-type]
        except ValueError as error:
            raise UsageError(f"{model} at {px} px: {error}") from error
    return nets


class _Contender:
    """A net with its optimiser, on the device."""

    def __init__(self, name: str, net: nn.Module, bench: ModelBench, images: torch.Tensor) -> None:
        self.name, self.bench, self.images = name, bench, images
        self.net = net.to(bench.device)
        self.optimizer = build_optimizer(net, lr=1e-9, weight_decay=0.0, fused=True)
        self.call: Callable[[torch.Tensor], torch.Tensor] = torch.compile(net) if bench.compiled else net
        self.labels = torch.zeros(len(images), dtype=torch.long, device=bench.device)

    def sizes(self) -> list[ModelRow]:
        """Return parameters, multiply-adds of an image and peaks of memory, the weights' own left aside."""
        num_parameters = sum(parameter.numel() for parameter in self.net.parameters())
        self.net.eval()
        rows = [
            self._row("parameters", 0, num_parameters),
            self._row("multiply_adds", 0, count_multiply_adds(self.net, self.images[:1])),
            self._row("inference_peak_bytes", 0, peak_bytes(self._infer, self.bench.device)),
        ]
        if self.bench.training:
            self.net.train()
            self._train()  # makes the optimiser's moments, which stay
            self.optimizer.zero_grad()  # what is released in the call would have to be allocated in it
            rows.append(self._row("training_peak_bytes", 0, peak_bytes(self._train, self.bench.device)))
        return rows

    def times(self, number: int) -> list[ModelRow]:
        """Return the seconds of a batch."""
        self.net.eval()
        rows = [self._row("inference_s", number, time_calls(self._infer, 1, self.bench.device))]
        if self.bench.training:
            self.net.train()
            rows.append(self._row("training_s", number, time_calls(self._train, 1, self.bench.device)))
        return rows

    def _infer(self) -> None:
        with torch.no_grad(), self._autocast():
            self.call(self.images)

    def _train(self) -> None:
        self.optimizer.zero_grad()
        with self._autocast():
            loss = F.cross_entropy(self.call(self.images), self.labels)
        torch.autograd.backward(loss)
        self.optimizer.step()

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(
            self.bench.device.type, dtype=torch.bfloat16, enabled=self.bench.precision == "bf16-mixed"
        )

    def _row(self, quantity: str, number: int, value: float) -> ModelRow:
        return ModelRow(self.name, self.images.shape[-1], len(self.images), quantity, number, value)


def _models(rows: list[ModelRow]) -> list[str]:
    return list(dict.fromkeys(row.model for row in rows))


def _values(rows: list[ModelRow], px: int, model: str, quantity: str) -> list[float]:
    return [row.value for row in rows if (row.px, row.model, row.quantity) == (px, model, quantity)]


def _rate(rows: list[ModelRow], px: int, model: str, step: str, images: int) -> str:
    rate = images / statistics.median(_values(rows, px, model, f"{step}_s"))
    peak = _values(rows, px, model, f"{step}_peak_bytes")
    return f"{model} {rate:.1f} images/s" + (f", {peak[0] / 2**20:,.0f} MiB" if peak else "")
