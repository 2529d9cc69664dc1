"""Tells a waiting person what happens: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO


class Progress(Protocol):
    """Receives what the harness is doing.

    Called with the same `step` again and again while that step lasts (`detail` changes), and once with
    `done=True`.
    """

    def __call__(self, step: str, detail: str = "", *, done: bool = False) -> None:
        """Show `step`; `detail` says how far it has come."""


def silent(step: str, detail: str = "", *, done: bool = False) -> None:
    """Say nothing."""


class PrintedProgress:
    """Prints steps with their elapsed seconds.

    On a terminal the current step is one line that is rewritten in place. Elsewhere (a log, CI) a step prints
    a line when it starts, at most one line each `plain_interval_seconds` while it lasts, and one when it is
    done.
    """

    def __init__(self, stream: TextIO | None = None, *, plain_interval_seconds: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._interval_seconds = plain_interval_seconds
        self._step: str | None = None
        self._started = 0.0
        self._last_plain = 0.0

    def __call__(self, step: str, detail: str = "", *, done: bool = False) -> None:
        """Show `step`, see `Progress`."""
        now = time.monotonic()
        new = step != self._step
        if new:
            self._finish_line()
            self._step, self._started, self._last_plain = step, now, now
        text = f"{step}: {detail}" if detail else step
        line = f"{text} ({now - self._started:.0f} s)"
        if self._live:
            # "\r" goes to the start of the line, "\x1b[K" erases what a longer previous text left behind.
            self._stream.write(f"\r{line}\x1b[K")
        elif new or done or now - self._last_plain >= self._interval_seconds:
            self._last_plain = now
            self._stream.write(f"{text}\n" if new and not done else f"{line}\n")
        self._stream.flush()
        if done:
            self._finish_line()

    def _finish_line(self) -> None:
        if self._live and self._step is not None:
            self._stream.write("\n")
            self._stream.flush()
        self._step = None
