"""Count the operators of a computation, and refuse those that wait for a device or move data to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WITHOUT_KERNEL = {
    "view", "_unsafe_view", "reshape", "select", "slice", "permute", "expand", "transpose", "t", "unsqueeze", "squeeze",
    "detach", "alias", "as_strided", "unbind", "split", "chunk", "view_as_real", "empty", "empty_like", "new_empty",
    "empty_strided", "lift_fresh", "flatten", "unfold",
}  # fmt: skip
WAITS = {"_local_scalar_dense", "nonzero", "item", "masked_select", "is_nonzero", "equal", "unique", "bincount"}


class Launches(TorchDispatchMode):
    """Count operators that start a kernel, by name.

    Args:
        device: type of the device on which every tensor must be; None: any, and waiting is allowed.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.device = device

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert self.device is None or name not in WAITS, f"{name} waits for the device"
        result = func(*args, **(kwargs or {}))
        if self.device is not None:
            self._check(name, (args, kwargs, result))
        if name not in WITHOUT_KERNEL:
            self.counts[name] += 1
        return result

    def total(self) -> int:
        """Return the number of kernels."""
        return self.counts.total()

    def _check(self, name: str, tensors: Any) -> None:
        places = {leaf.device.type for leaf in tree_leaves(tensors) if isinstance(leaf, torch.Tensor)}
        assert places <= {self.device}, f"{name} has tensors on {sorted(places)}"
