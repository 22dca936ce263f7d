"""Limits of a machine: memory of a cell, and space on the disk."""

from __future__ import annotations

import errno
import resource
import shutil
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError

OOM_WORDS = (
    *("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc", "memoryerror"),
    *("cublas_status_alloc_failed", "cudnn_status_alloc_failed", "can't start new thread"),
)
"""Texts of errors that report a lack of memory, in lower case."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk."""

MIN_FREE_BYTES = 2**20
"""Free space below which a failed write without an error number, as NumPy's and torch's, counts as a full disk."""


def is_oom(error: Exception) -> bool:
    """Return whether an exception reports a lack of memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and is_oom_message(str(error))


def is_oom_message(text: str) -> bool:
    """Return whether a text reports a lack of memory.

    >>> is_oom_message("terminate called after throwing an instance of 'std::bad_alloc'")
    True
    """
    return any(words in text.lower() for words in OOM_WORDS)


def is_disk_full(error: Exception, folder: Path) -> bool:
    """Return whether an exception comes from a write to a full disk.

    Args:
        error: exception of the write.
        folder: folder on the disk.
    """
    cause: BaseException | None = error
    while cause is not None:  # torch's writer hides the system's error behind its own
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            return True
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and error.errno is not None:
        return False
    return (
        isinstance(error, (OSError, RuntimeError, SafetensorError)) and shutil.disk_usage(folder).free < MIN_FREE_BYTES
    )


def limit_memory(device: torch.device, limit_mib: float) -> None:
    """Make allocations beyond a limit fail: of GPU memory, or of main memory added to the process's current use.

    On a GPU a later call replaces the limit, which counts what torch's allocator holds, not the context. The first call
    starts CUDA.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)  # starts CUDA, on this GPU only
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_mib * 2**20 / total), device)
    elif sys.platform == "linux":
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")]
        now = int(line.split()[1]) * 2**10
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = now + int(limit_mib * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))  # -1: no limit
