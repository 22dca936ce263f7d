"""The settings that CUDA computes with: asked for by a cell's fields, set around the cell, and recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ablations.config.groups import Run

CUBLAS_WORKSPACE, REPRODUCIBLE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""Environment variable that cuBLAS reads when it starts, and a value with which its products are reproducible
(docs.nvidia.com/cuda/cublas, Results reproducibility). torch has no deterministic products without it."""


@contextmanager
def cuda_settings(run: Run, device: torch.device, *, mps: bool) -> Iterator[dict[str, Any] | None]:
    """Set what CUDA computes with in this block; no other device has such settings.

    float32 products and convolutions use IEEE float32, also those beside autocast, or TF32 if ``precision`` is
    ``tf32``. With ``deterministic``, an operation without a deterministic implementation raises: a warning would let
    it pass, and the fused kernels of attention are deterministic only if it is an error.

    Args:
        run: the cell's fields.
        device: device to train on.
        mps: whether the GPU is shared through NVIDIA's Multi-Process Service.

    Yields:
        The settings, for the record of the cell; None on another device than CUDA.
    """
    if device.type != "cuda":
        yield None
        return
    os.environ.setdefault(CUBLAS_WORKSPACE, REPRODUCIBLE)
    before = _Flags.now()
    _Flags(
        matmul="high" if run.precision == "tf32" else "highest",
        cudnn_tf32=run.precision == "tf32",
        cudnn_precision="tf32" if run.precision == "tf32" else "ieee",
        cudnn_benchmark=run.cudnn_benchmark,
        cudnn_deterministic=run.deterministic,
        deterministic=run.deterministic,
        warn_only=False,
        fill_memory=False,
    ).apply()
    try:
        yield {
            "float32_matmul": torch.backends.cuda.matmul.fp32_precision,
            "float32_convolution": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "cublas_workspace": os.environ[CUBLAS_WORKSPACE],
            "mps": mps,
            "cuda_graph": run.cuda_graph,
        }
    finally:
        before.apply()


@dataclass(frozen=True, kw_only=True)
class _Flags:
    """torch's flags for CUDA.

    The precision of float32 has an old and a new interface in torch, and a reader of one raises if only the other was
    set: Lightning and torch's compiler read the old one of products, the compiler also the new one. The old setters
    keep both in step, and ``cudnn.fp32_precision`` agrees with them.
    """

    matmul: str
    cudnn_tf32: bool
    cudnn_precision: str
    cudnn_benchmark: bool
    cudnn_deterministic: bool
    deterministic: bool
    warn_only: bool
    fill_memory: bool

    @classmethod
    def now(cls) -> _Flags:
        """Return the flags as they are."""
        cudnn = torch.backends.cudnn
        return cls(
            matmul=torch.get_float32_matmul_precision(),
            cudnn_tf32=cudnn.allow_tf32,
            cudnn_precision=cudnn.fp32_precision,
            cudnn_benchmark=cudnn.benchmark,
            cudnn_deterministic=cudnn.deterministic,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
            fill_memory=torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        )

    def apply(self) -> None:
        """Set the flags."""
        cudnn = torch.backends.cudnn
        torch.set_float32_matmul_precision(self.matmul)
        cudnn.fp32_precision = self.cudnn_precision  # before the old flag, which it would reset
        cudnn.allow_tf32 = self.cudnn_tf32
        cudnn.benchmark = self.cudnn_benchmark
        cudnn.deterministic = self.cudnn_deterministic
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = self.fill_memory  # type: ignore[attr-defined]
