"""Loopback ports that no other cluster of this user takes, and that no dying server still answers on."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import time
from pathlib import Path
from typing import IO

from longtail_e2e.errors import HarnessError

LOOPBACK = "127.0.0.1"
# Below 32768, where Linux starts to hand out ports to outgoing connections: a port of that range can be
# taken by any client of the machine between our choice and the server's bind.
FIRST_PORT, LAST_PORT = 20_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers written in Go set SO_REUSEADDR: connections in TIME_WAIT do not hinder them, a listener
        # does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            # Only listen() finds out about a listener that has set SO_REUSEADDR itself.
            probe.listen(1)
        except OSError:
            return False
    return True


def wait_until_free(port: int, *, timeout_seconds: float = 30.0) -> None:
    """Return once nobody listens on `port`: a dying API server still answers /readyz.

    Raises:
        HarnessError: somebody still listens after `timeout_seconds`.
    """
    deadline = time.monotonic() + timeout_seconds
    while not is_free(port):
        if time.monotonic() > deadline:
            raise HarnessError(f"port {port} of {LOOPBACK} is still taken after {timeout_seconds:.0f} s")
        time.sleep(0.05)


class PortReservation:
    """Hands out free loopback ports; each stays reserved against other clusters of this user until `release`.

    The reservation is a locked file per port, so clusters of several processes (pytest workers, a demo beside
    the tests) never choose the same port even before their servers listen. The lock vanishes with its
    process.
    """

    def __init__(self) -> None:
        self._directory = Path(tempfile.gettempdir()) / f"longtail-ports-{os.getuid()}"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._locks: dict[int, IO[str]] = {}

    def take(self) -> int:
        """Reserve one free port.

        Raises:
            HarnessError: no port of the range is free.
        """
        candidates = range(FIRST_PORT, LAST_PORT)
        for port in random.SystemRandom().sample(candidates, len(candidates)):
            if port in self._locks:
                continue
            lock = (self._directory / str(port)).open("w")
            if _locked(lock) and is_free(port):
                self._locks[port] = lock
                return port
            lock.close()
        raise HarnessError(f"no port between {FIRST_PORT} and {LAST_PORT} of {LOOPBACK} is free")

    def release(self) -> None:
        """Give all ports back."""
        # The lock files stay: unlinking one that another process has just opened would let two hold "the"
        # lock.
        while self._locks:
            self._locks.popitem()[1].close()


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
