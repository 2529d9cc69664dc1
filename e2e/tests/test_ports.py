"""Two clusters never get the same port."""

from __future__ import annotations

import socket

import pytest

from longtail_e2e import ports
from longtail_e2e.errors import HarnessError
from longtail_e2e.ports import LOOPBACK, PortReservation, is_free, wait_until_free


def test_a_reserved_port_is_not_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "FIRST_PORT", 31_000)
    monkeypatch.setattr(ports, "LAST_PORT", 32_000)
    one, other = PortReservation(), PortReservation()
    try:
        taken = [one.take() for _ in range(20)] + [other.take() for _ in range(20)]
        assert len(set(taken)) == 40
    finally:
        one.release()
        other.release()


def test_a_port_with_a_listener_is_not_free_until_it_has_gone() -> None:
    # Go's servers set SO_REUSEADDR on their listeners, so this one does too.
    with socket.create_server((LOOPBACK, 0), reuse_port=False) as listener:
        port = listener.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(HarnessError, match=f"port {port} of 127.0.0.1 is still taken"):
            wait_until_free(port, timeout_seconds=0.1)
    wait_until_free(port, timeout_seconds=5)
    assert is_free(port)
