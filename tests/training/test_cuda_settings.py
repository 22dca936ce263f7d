"""The settings of CUDA around a cell: torch keeps them without a GPU too."""

from __future__ import annotations

import os
from typing import get_args

import pytest
import torch
from lightning_fabric.connector import _PRECISION_INPUT_STR
from torch.backends import cudnn

from ablations.config.groups import Run
from ablations.config.make import make_config
from ablations.config.recipes import defaults
from ablations.training.cuda_settings import CUBLAS_WORKSPACE, cuda_settings
from ablations.training.parallel import placement

GPU = torch.device("cuda", 1)
OPERATIONS = ("matmul", "conv", "rnn")


@pytest.fixture(autouse=True)
def workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS_WORKSPACE, "")
    monkeypatch.delenv(CUBLAS_WORKSPACE)


def precisions() -> set[str]:
    """Return what torch's kernels, and both its interfaces, take for the precision of float32."""
    kernels = {torch._C._get_fp32_precision_getter("cuda", name) for name in OPERATIONS}
    old = {
        "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32",
        "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
        "tf32" if cudnn.allow_tf32 else "ieee",
    }
    return kernels | old | {torch.backends.cuda.matmul.fp32_precision, cudnn.fp32_precision}


def flags() -> tuple[object, ...]:
    return (
        torch.get_float32_matmul_precision(),
        cudnn.allow_tf32,
        cudnn.conv.fp32_precision,
        cudnn.fp32_precision,
        cudnn.benchmark,
        cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.mark.parametrize(
    ("precision", "expected"), [("32-true", "ieee"), ("tf32", "tf32"), ("bf16-mixed", "ieee"), ("16-mixed", "ieee")]
)
def test_float32_has_the_precision_asked_for_whoever_reads_it(precision, expected):
    before = flags()
    with cuda_settings(Run(precision=precision), GPU, mps=False) as settings:
        assert precisions() == {expected}
        assert settings["float32_matmul"] == settings["float32_convolution"] == expected
    assert flags() == before


@pytest.mark.parametrize("precision", get_args(Run.model_fields["precision"].annotation))
def test_the_trainers_know_every_precision(precision):
    base = defaults(image_side=8, flips=False) | {"data": "d", "data_fingerprint": "", "norm": "xnorm", "seed": 0}
    chosen = placement(make_config(base | {"precision": precision}), torch.device("cpu"))
    known = chosen.get("precision", chosen["plugins"][0].precision if precision == "16-mixed" else None)
    assert known in get_args(_PRECISION_INPUT_STR)
    assert known == {"tf32": "32-true"}.get(precision, precision)


def test_tf32_cells_after_one_another_do_not_affect_each_other():
    for precision, expected in (("tf32", "tf32"), ("32-true", "ieee"), ("tf32", "tf32")):
        with cuda_settings(Run(precision=precision), GPU, mps=False):
            assert precisions() == {expected}


def test_determinism_and_the_timing_of_cudnn_are_as_asked_for_and_end_with_the_cell():
    before = flags()
    with cuda_settings(Run(deterministic=True, cudnn_benchmark=True), GPU, mps=True) as settings:
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert (cudnn.deterministic, cudnn.benchmark) == (True, True)
        assert not torch.utils.deterministic.fill_uninitialized_memory
        assert os.environ[CUBLAS_WORKSPACE] == ":4096:8"
    assert flags() == before
    assert settings == {
        "float32_matmul": "ieee",
        "float32_convolution": "ieee",
        "cudnn_benchmark": True,
        "deterministic": True,
        "cublas_workspace": ":4096:8",
        "mps": True,
        "cuda_graph": False,
    }


def test_the_users_workspace_of_cublas_is_kept_and_recorded(monkeypatch):
    monkeypatch.setenv(CUBLAS_WORKSPACE, ":16:8")
    with cuda_settings(Run(), GPU, mps=False) as settings:
        assert settings["cublas_workspace"] == ":16:8"


def test_settings_are_restored_after_an_error():
    before = flags()
    with pytest.raises(ZeroDivisionError), cuda_settings(Run(precision="tf32", deterministic=True), GPU, mps=False):
        1 / 0  # noqa: B018
    assert flags() == before


def test_a_cpu_has_no_such_settings():
    before = flags()
    with cuda_settings(Run(precision="tf32", deterministic=True), torch.device("cpu"), mps=False) as settings:
        assert settings is None
        assert flags() == before
        assert CUBLAS_WORKSPACE not in os.environ
