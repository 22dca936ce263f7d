"""The connection to a Ray cluster, or a cluster of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from ablations.config import RunStopped

CONNECT_S = 10.0
"""Longest time until an address answers, in seconds."""


def connect(ray: Any, address: str | None) -> None:
    """Connect to the cluster at an address; without one to the cluster of this machine, which is started if need be.

    Raises:
        RunStopped: there is no cluster at the address.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = address or os.environ.get("RAY_ADDRESS")
    if address in (None, "auto") and (here := _running_here()) is not None:
        address = here
    try:
        if address in (None, "auto"):
            ray.init("local", include_dashboard=False, **options)
            return
        if not _answers(address):
            raise RunStopped(f"no Ray cluster answers at {address} (--ray-address)")
        ray.init(address, **options)
    except ConnectionError as error:
        reason = (str(error).splitlines() or [""])[0]
        raise RunStopped(f"the Ray cluster at {address} (--ray-address) refuses the connection: {reason}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)  # Ray has its own for SIGTERM


def _running_here() -> str | None:
    """Return the address of the cluster that `ray start` has left running on this machine, if it answers."""
    with contextlib.suppress(OSError):
        address = (Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster").read_text().strip()
        if _answers(address):
            return address
    return None


def _answers(address: str) -> bool:
    """Tell whether something listens at an address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with contextlib.suppress(OSError, ValueError), socket.create_connection((host, int(port)), CONNECT_S):
        return True
    return False
