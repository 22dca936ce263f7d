"""Normalisers that misbehave, as a plug-in of the tests: ``--plugin arms``."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ufo.norms import AttentionNorm, l2_context, l2_normalise, register


@register(name="turns_nan", label="turns NaN", formula="NaN from step 20 on", source="test", invariances=set())
class TurnsNaN(AttentionNorm):
    """Works for 20 calls in training, then gives NaN."""

    calls = 0

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.calls += self.training
        out = l2_normalise(q, dim=-1) @ l2_context(k, v, dim=-2)
        return out * float("nan") if self.calls > 20 else out


@register(name="raises", label="raises", formula="-", source="test", invariances=set())
class Raises(AttentionNorm):
    """Fails at once."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise RuntimeError("this arm is broken")


@register(name="lopsided", label="lopsided", formula="-", source="test", invariances=set())
class Lopsided(AttentionNorm):
    """Runs out of memory in the second process of a cell, and says so in its log."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if torch.distributed.get_rank() == 1:
            print("the second process has no more memory", flush=True)
            return q + torch.empty(2**50)
        return l2_normalise(q, dim=-1) @ l2_context(k, v, dim=-2)


@register(name="out_of_memory", label="out of memory", formula="-", source="test", invariances=set())
class OutOfMemory(AttentionNorm):
    """Asks for more memory than any machine has."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q + torch.empty(2**50)


@register(name="is_nan", label="is NaN", formula="NaN", source="test", invariances=set())
class IsNaN(AttentionNorm):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return v * float("nan")


@register(name="constant", label="constant", formula="0", source="test", invariances=set())
class Constant(AttentionNorm):
    """Lets nothing through."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return 0 * q * v.sum(dim=2, keepdim=True)


@register(
    name="no_cross", label="no cross", formula="-", source="test", cross=False, invariances={"q_scale", "v_channels"}
)
class NoCross(AttentionNorm):
    """Needs as many queries as keys."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.shape[2] != k.shape[2]:
            raise ValueError("as many queries as keys are needed")
        return l2_normalise(q, dim=-1) @ l2_context(k, v, dim=-2)


@register(name="hoards", label="hoards", formula="-", source="test", invariances=set())
class Hoards(AttentionNorm):
    """Takes 64 MiB more at each call, and writes to all of it."""

    kept: ClassVar[list[Tensor]] = []

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.kept.append(torch.ones(2**24))
        return q


@register(name="sleeps", label="sleeps", formula="-", source="test", invariances=set())
class Sleeps(AttentionNorm):
    """Never comes back."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        while True:
            time.sleep(1)


@register(name="leaves", label="leaves", formula="-", source="test", invariances=set())
class Leaves(AttentionNorm):
    """Ends the process."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        os._exit(1)


@register(name="segfaults", label="segfaults", formula="-", source="test", invariances=set())
class Segfaults(AttentionNorm):
    """Reads where nothing is."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctypes.string_at(0)
        return q


@register(name="prints", label="prints", formula="-", source="test", invariances=set())
class Prints(AttentionNorm):
    """Works, and says so."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        print(f"called with MPS in {os.environ.get('CUDA_MPS_PIPE_DIRECTORY')}")
        return l2_normalise(q, dim=-1) @ l2_context(k, v, dim=-2)


@register(name="crumbs", label="crumbs", formula="-", source="test", invariances=set())
class Crumbs(AttentionNorm):
    """Takes every last byte that it can get."""

    chain: Any = None  # a list would need room to grow

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        for size in (2**20, 2**12, 400):
            with contextlib.suppress(MemoryError):
                while True:
                    self.chain = (bytearray(size), self.chain)
        raise MemoryError


@register(name="dies", label="dies", formula="-", source="test", invariances=set())
class Dies(AttentionNorm):
    """Works; but kills its process in its second epoch of two steps where a file "die" is, which it removes."""

    calls = 0

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.calls += self.training
        if self.calls > 2 and (order := Path("die")).exists():
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return l2_normalise(q, dim=-1) @ l2_context(k, v, dim=-2)


@register(name="noisy", label="noisy", formula="-", source="test", invariances=set())
class Noisy(AttentionNorm):
    """Works, with noise from the global generators in evaluation too."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        noise = torch.rand(()).item() + random.random() + np.random.rand()  # noqa: NPY002
        return (1 + noise) * l2_normalise(q, dim=-1) @ l2_context(k, v, dim=-2)


@register(name="leaves_a_child", label="leaves a child", formula="-", source="test", invariances=set())
class LeavesAChild(AttentionNorm):
    """Ends its process, but not the one that it has started."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        child = os.fork()
        if not child:
            time.sleep(600)
        print("child", child, flush=True)
        os._exit(1)
