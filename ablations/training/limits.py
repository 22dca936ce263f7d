"""What a machine cannot give: memory beyond a cell's limit, and room on the disk."""

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
"""What those say who find no memory, in lower case."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of an OSError."""

LEAST_FREE_BYTES = 2**20
"""A write that fails without an error number, as NumPy's and torch's do, with less than this free, lacked room."""


def is_oom(error: Exception) -> bool:
    """Tell whether an exception says that there is no memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and is_oom_message(str(error))


def is_oom_message(text: str) -> bool:
    """Tell whether a text does.

    >>> is_oom_message("terminate called after throwing an instance of 'std::bad_alloc'")
    True
    """
    return any(words in text.lower() for words in OOM_WORDS)


def is_disk_full(error: Exception, folder: Path) -> bool:
    """Tell whether an exception came from a write that found no room.

    Args:
        error: the exception.
        folder: on the disk in question.
    """
    cause: BaseException | None = error
    while cause is not None:  # torch's writer hides the system's error behind its own
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            return True
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and error.errno is not None:
        return False
    return (
        isinstance(error, (OSError, RuntimeError, SafetensorError))
        and shutil.disk_usage(folder).free < LEAST_FREE_BYTES
    )


def limit_memory(device: torch.device, limit_mib: float) -> None:
    """Make this process's allocations beyond a limit fail: of a GPU's memory, or of what it adds to its own by now."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_mib * 2**20 / total), device)
    elif sys.platform == "linux":
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")]
        now = int(line.split()[1]) * 2**10
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = now + int(limit_mib * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if most < 0 else min(wanted, most), most))  # -1: none
