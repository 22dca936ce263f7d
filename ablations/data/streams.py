"""Independent random streams from a seed, by key instead of order of use.

A stream depends only on (seed, its name, epoch and, for drop path, the branch), so an epoch can be replayed by itself,
and the draws of one part do not affect another. The global generators are seeded only inside `forked_library`.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch

from ufo.init import keyed_generator, keyed_seed

Stream = Literal["order", "augment", "mixup", "erasing", "drop_path", "library"]

SPLIT_SEED = 0
"""Seed of the validation cut and of subsets of train, the same for every cell."""


def epoch_generator(seed: int, stream: Stream, epoch: int, *part: str) -> torch.Generator:
    """Return the CPU generator of a stream, or of a part of it, in an epoch (from 0).

    >>> order = [torch.randperm(5, generator=epoch_generator(0, "order", 2)).tolist() for _ in range(2)]
    >>> order[0] == order[1]
    True
    """
    return keyed_generator(seed, stream, epoch, *part)


def reseed_library(seed: int, epoch: int, *step: int) -> None:
    """Seed the global generators for an epoch, or a step of it, inside `forked_library` only.

    For library code that accepts no generator.
    """
    _seed_globals(keyed_seed(seed, "library", epoch, *step))


@contextlib.contextmanager
def forked_library(seed: int, *part: str) -> Iterator[None]:
    """Run library code in a keyed fork of the global generators, and restore them afterwards."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # plug-ins may draw from it
    with torch.random.fork_rng(devices=_cuda_devices()):
        _seed_globals(keyed_seed(seed, "library", *part))
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002


def library_state() -> dict[str, Any]:
    """Return the state of the global generators, in types that a checkpoint may hold."""
    numpy_name, numpy_key, *numpy_rest = np.random.get_state()  # noqa: NPY002
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device) for device in _cuda_devices()],
        "numpy": [numpy_name, torch.from_numpy(np.asarray(numpy_key).astype(np.int64)), *numpy_rest],
        "python": [version, list(internal), gauss],
    }


def restore_library(state: dict[str, Any]) -> None:
    """Restore the state of the global generators, inside `forked_library` only, or at its end."""
    torch.set_rng_state(state["torch"])
    of_gpus = state["cuda"]  # of this process's GPU, or, from an earlier version, of all GPUs
    for device in _cuda_devices() if of_gpus else []:
        torch.cuda.set_rng_state(of_gpus[min(device, len(of_gpus) - 1)], device)
    numpy_name, numpy_key, *numpy_rest = state["numpy"]
    np.random.set_state((numpy_name, numpy_key.numpy().astype(np.uint32), *numpy_rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


@contextlib.contextmanager
def forked_sample(seed: int, stream: Stream, epoch: int, position: int) -> Iterator[None]:
    """Run library code in a fork of torch's global CPU generator, keyed by a sample.

    It takes some 10 microseconds, a hundredth of `forked_library`.

    Args:
        seed: seed of the cell.
        stream: stream that the fork is a part of.
        epoch: epoch, from 0.
        position: position of the sample in the epoch, from 0.
    """
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(keyed_seed(seed, stream, epoch, position))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def _cuda_devices() -> list[int]:
    """Return the GPU of this process, if CUDA has started in it: no other is touched, and CUDA is not started."""
    return [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def _seed_globals(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
