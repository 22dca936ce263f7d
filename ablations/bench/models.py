"""Benchmark of nets, or backbones of detectors: time and memory of inference and training steps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

import ufo
from ablations.bench.measure import count_multiply_adds, peak_bytes, time_calls
from ablations.config import UsageError
from ablations.config.nets import is_foreign
from ablations.config.types import Task
from ablations.config.values import plural
from ablations.engine.threads import cpu_threads
from ablations.planning.asked import check_model
from ablations.tasks.timm_net import make_timm_net
from ablations.training.optimizer import build_optimizer
from ufo.norms import NORMS

NUM_CLASSES = 1000

FPN_DIM = 256
"""Width of a backbone's feature pyramid (XCiT's detectors, arXiv 2106.09681)."""

QUEUED = 5
"""Batches of a measurement on a GPU, which would else wait for the first kernel of each."""

BASE_PX = 224
"""Image size of `ModelBench.base_batch`."""


class ModelRow(NamedTuple):
    """A measurement: seconds or peak bytes of a batch in inference or training, or a size of the net.

    ``px`` is the side of a square image, or height x width.
    """

    model: str
    px: str
    images: int
    quantity: str
    round: int
    value: float


@dataclass(frozen=True, kw_only=True)
class ModelBench:
    """Settings of the benchmark.

    Args:
        models: names of UFO-ViT's sizes, or of timm's models with their prefix; the first is compared with the others.
        norms: normalisers for each UFO-ViT.
        sizes: image sizes (height, width), px.
        batch: number of images; None: by ``base_batch``.
        base_batch: number of images of `BASE_PX`; at other sizes a batch has as many pixels, and at least one image.
        rounds: number of time measurements, after one warm-up round.
        compiled: whether to compile the nets with torch.compile.
        precision: ``32-true`` or ``bf16-mixed``.
        num_threads: number of CPU threads.
        device: device to measure on.
        training: whether to measure training steps too.
        task: ``classify``, or ``detect`` for nets with the feature pyramid of `ufo.detection` and without heads.
    """

    models: Sequence[str]
    norms: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    batch: int | None
    rounds: int
    compiled: bool
    precision: str
    num_threads: int
    device: torch.device
    training: bool
    base_batch: int = 8
    task: Task = "classify"

    def images(self, size: tuple[int, int]) -> int:
        """Return the number of images per batch at a size."""
        return self.batch or max(1, round(self.base_batch * BASE_PX**2 / (size[0] * size[1])))


def bench_models(bench: ModelBench, *, on_row: Callable[[ModelRow], None]) -> list[ModelRow]:
    """Measure every net at every size, once in each round; the order reverses from round to round.

    Args:
        bench: settings of the benchmark.
        on_row: callback, called with each measurement.

    Raises:
        UnknownNameError: a model of UFO-ViT or a normaliser is unknown.
        UsageError: another model is unknown, or a model does not support an image size.
    """
    for model in bench.models:
        check_model(model, bench.task)
    for norm in bench.norms:
        NORMS[norm]
    rows: list[ModelRow] = []
    with cpu_threads(bench.num_threads):
        for size in bench.sizes:
            for row in _measure(bench, size):
                on_row(row)
                rows.append(row)
    return rows


def describe_models(rows: list[ModelRow]) -> list[str]:
    """Return lines with the median speed of each net at each size and step, and the first one's speed-up.

    >>> rows = [ModelRow(m, "224", 8, "inference_s", 1, s) for m, s in (("ours", 0.2), ("other", 0.3))]
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
            lines.append(f"{px} px, {plural(images, 'image')}, {step}: {_rate(rows, px, first, step, images)}")
            for model in _models(rows)[1:]:
                ratios = [theirs / ours for theirs, ours in zip(seconds[model], seconds[first], strict=True)]
                lines.append(
                    f"  {_rate(rows, px, model, step, images)}: {first} is {statistics.median(ratios):.2f} times "
                    f"[{min(ratios):.2f}, {max(ratios):.2f}] as fast"
                )
    return lines


def _measure(bench: ModelBench, size: tuple[int, int]) -> Iterator[ModelRow]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(bench.images(size), 3, *size, generator=generator).to(bench.device)
    contenders = [_Contender(name, net, bench, images) for name, net in _build(bench, size)]
    for contender in contenders:
        yield from contender.sizes()
    for number in range(bench.rounds + 1):
        for contender in contenders if number % 2 else reversed(contenders):
            yield from (row for row in contender.times(number) if number)


def _build(bench: ModelBench, size: tuple[int, int]) -> list[tuple[str, nn.Module]]:
    """Build every net at a size; return pairs of its name in the rows and the net."""
    nets: list[tuple[str, nn.Module]] = []
    for model in bench.models:
        norms = [""] if is_foreign(model) else bench.norms
        for norm in norms:
            try:
                net = _build_backbone(model, norm) if bench.task == "detect" else _build_classifier(model, norm, size)
            except ValueError as error:
                raise UsageError(f"{model} at {_px(size)} px: {error}") from error
            nets.append((model if len(norms) == 1 else f"{model} {norm}", net))
    return nets


def _build_classifier(model: str, norm: str, size: tuple[int, int]) -> nn.Module:
    if is_foreign(model):
        return make_timm_net(model, img_size=size, in_chans=3, num_classes=NUM_CLASSES, drop_path=0.0, seed=0)
    return ufo.build(model, norm=norm, img_size=size, num_classes=NUM_CLASSES)


def _build_backbone(model: str, norm: str) -> nn.Module:
    """Build a net with its pyramid; position embeddings have the model's default image size and are interpolated."""
    from ablations.tasks.detect.bodies import build_foreign_body
    from ufo.detection import PyramidBackbone, UFOBody

    if is_foreign(model):
        body = build_foreign_body(model, in_chans=3, drop_path=0.0, seed=0)
    else:
        body = UFOBody(ufo.build(model, norm=norm, class_attention=0, num_classes=0))
    return PyramidBackbone(body, fpn_dim=FPN_DIM, batch_norm="frozen", seed=0)


def _px(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]} x {size[1]}"


class _Contender:
    """A net and its optimiser, on the device."""

    def __init__(self, name: str, net: nn.Module, bench: ModelBench, images: torch.Tensor) -> None:
        self.name, self.bench, self.images = name, bench, images
        self.net = net.to(bench.device)
        self.optimizer = build_optimizer(net, lr=1e-9, weight_decay=0.0, fused=True)
        self.call: Callable[[torch.Tensor], Any] = torch.compile(net) if bench.compiled else net
        self.labels = torch.zeros(len(images), dtype=torch.long, device=bench.device)

    def sizes(self) -> list[ModelRow]:
        """Return the number of parameters, multiply-adds of an image, and peak memory without the weights."""
        num_parameters = sum(parameter.numel() for parameter in self.net.parameters())
        self.net.eval()
        self._infer()  # compiles, and allocates what libraries keep
        rows = [
            self._row("parameters", 0, num_parameters),
            self._row("multiply_adds", 0, count_multiply_adds(self.net, self.images[:1])),
            self._row("inference_peak_bytes", 0, peak_bytes(self._infer, self.bench.device)),
        ]
        if self.bench.training:
            self.net.train()
            self._train()  # allocates the optimiser's moments, which persist
            self.optimizer.zero_grad()  # else the call would release memory that it did not allocate
            rows.append(self._row("training_peak_bytes", 0, peak_bytes(self._train, self.bench.device)))
        return rows

    def times(self, number: int) -> list[ModelRow]:
        """Return the seconds of a batch in inference and training."""
        self.net.eval()
        rows = [self._row("inference_s", number, self._time(self._infer))]
        if self.bench.training:
            self.net.train()
            rows.append(self._row("training_s", number, self._time(self._train)))
        return rows

    def _time(self, step: Callable[[], None]) -> float:
        """Return the seconds of a batch: of one on a CPU, on a GPU of several that are queued one after another."""
        count = QUEUED if self.bench.device.type == "cuda" else 1
        return time_calls(step, count, self.bench.device) / count

    def _infer(self) -> None:
        with torch.no_grad(), self._autocast():
            self.call(self.images)

    def _train(self) -> None:
        self.optimizer.zero_grad()
        with self._autocast():
            outputs = self.call(self.images)
            if self.bench.task == "detect":  # a loss that depends on every feature map
                loss = torch.stack([x.float().mean() for x in outputs.values()]).sum()
            else:
                loss = F.cross_entropy(outputs, self.labels)
        torch.autograd.backward(loss)
        self.optimizer.step()

    def _autocast(self) -> AbstractContextManager[None]:
        half = self.bench.precision == "bf16-mixed"
        return torch.autocast(self.bench.device.type, dtype=torch.bfloat16, enabled=half)

    def _row(self, quantity: str, number: int, value: float) -> ModelRow:
        height, width = self.images.shape[2:]
        return ModelRow(self.name, _px((height, width)), len(self.images), quantity, number, value)


def _models(rows: list[ModelRow]) -> list[str]:
    return list(dict.fromkeys(row.model for row in rows))


def _values(rows: list[ModelRow], px: str, model: str, quantity: str) -> list[float]:
    return [row.value for row in rows if (row.px, row.model, row.quantity) == (px, model, quantity)]


def _rate(rows: list[ModelRow], px: str, model: str, step: str, images: int) -> str:
    rate = images / statistics.median(_values(rows, px, model, f"{step}_s"))
    peak = _values(rows, px, model, f"{step}_peak_bytes")
    return f"{model} {rate:.{1 if rate >= 10 else 3}f} images/s" + (f", {peak[0] / 2**20:,.0f} MiB" if peak else "")
