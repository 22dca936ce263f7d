"""A training step as one CUDA graph: a replay launches all of its kernels at once.

A small net's step is a thousand short kernels, and the process takes longer to launch them than the GPU to run them.
A graph is captured once for a cell. It reads everything that differs from step to step from tensors at fixed addresses:
the draws of the epoch, the index of the batch, the learning rate and the share of a moving average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

WARM_UP_STEPS = 3
"""Steps before the capture, in which libraries choose kernels and allocate workspaces (as in torch's notes on CUDA)."""


class CapturedStep:
    """Runs a step: at first and on demand kernel by kernel, then by replaying its graph, always on one stream.

    On a device without graphs, such as a CPU, each step runs kernel by kernel.

    Args:
        step: step that takes the index of its batch as a tensor (1,), and returns the loss.
        device: device of the step.
        generators: function that returns the generators that the step draws from; called at the capture.
    """

    def __init__(
        self,
        step: Callable[[Tensor], Tensor],
        *,
        device: torch.device,
        generators: Callable[[], Sequence[torch.Generator]],
    ) -> None:
        self._step, self._generators = step, generators
        self._index = torch.zeros(1, dtype=torch.int64, device=device)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._loss: Tensor
        self._num_run = 0

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Run a block, such as an epoch, on the stream of the steps, and wait for it at the end."""
        if self._stream is None:
            yield
            return
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def __call__(self, index: int, *, replay: bool = True) -> Tensor:
        """Run the step of a batch, and return its loss, which the next step overwrites.

        Args:
            index: index of the batch in the epoch.
            replay: whether the graph may be used; otherwise the step runs kernel by kernel, so that gradients can be
                read before they are clipped.
        """
        self._index.fill_(index)
        if self._stream is None or not replay or self._num_run < WARM_UP_STEPS:
            self._num_run += 1
            return self._step(self._index)
        if self._graph is None:
            self._capture()
        assert self._graph is not None
        self._graph.replay()
        return self._loss

    def _capture(self) -> None:
        """Capture the step, which runs nothing."""
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators():
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self._stream):
            self._loss = self._step(self._index)
        self._graph = graph
