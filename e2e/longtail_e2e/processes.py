"""Starts, watches and stops the processes of a cluster: each by its recorded process id, never by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from longtail_e2e.errors import NotYetError, ProcessError

_TETHER: Final = Path(__file__).with_name("tether.py")
_LOG_LINES_IN_ERROR: Final = 15

# The kernel sends the parent-death signal when the *thread* that forked ends, not when the whole parent
# does. All processes are therefore forked by one thread that lives as long as the interpreter.
_forker: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a process is started, so that it can be started again just so.

    `ready` is asked until it is true; it may raise OSError for "not yet" (a refused connection is one).
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 60.0
    stop_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One started process."""

    command: Command
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The process id; also in `pids/NAME.pid` of the group's directory."""
        return self.popen.pid

    def alive(self) -> bool:
        """Whether the process has not exited."""
        return self.popen.poll() is None

    def log_tail(self, lines: int = _LOG_LINES_IN_ERROR) -> str:
        """Return the last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class ProcessGroup:
    """The processes of one cluster, in order of their start.

    Logs are written to `directory/logs/NAME.log` (appended to on a restart). A process does not see the
    terminal's Ctrl-C: only the owner of the group does, and stops all in reverse order. Should the owner be
    killed, the kernel kills the processes (Linux).
    """

    def __init__(self, directory: Path) -> None:
        self._logs = directory / "logs"
        self._pids = directory / "pids"
        for folder in (self._logs, self._pids):
            folder.mkdir(parents=True, exist_ok=True)
        self._running: dict[str, Running] = {}
        self._history: list[tuple[str, int]] = []

    @property
    def history(self) -> list[tuple[str, int]]:
        """Name and process id of everything that was ever started here, stopped ones included."""
        return list(self._history)

    def __getitem__(self, name: str) -> Running:
        return self._running[name]

    def __contains__(self, name: object) -> bool:
        return name in self._running

    def log(self, name: str) -> Path:
        """Where `name` writes its output."""
        return self._logs / f"{name}.log"

    def start(self, command: Command) -> Running:
        """Start a process and return once it is ready.

        Raises:
            ProcessError: it exited, or was not ready in time; it is stopped by then.
        """
        if command.name in self._running:
            raise ProcessError(f"{command.name} runs already, as process {self._running[command.name].pid}")
        running = Running(command=command, popen=self._fork(command), log=self.log(command.name))
        self._running[command.name] = running
        self._history.append((command.name, running.pid))
        (self._pids / f"{command.name}.pid").write_text(f"{running.pid}\n")
        try:
            self._wait_until_ready(running)
        except BaseException:
            self.stop(command.name)
            raise
        return running

    def stop(self, name: str) -> Command | None:
        """Stop a process (SIGTERM, then SIGKILL); return how to start it again, None if it does not run."""
        running = self._running.get(name)
        if running is None:
            return None
        popen = running.popen
        # A paused process acts on SIGTERM only after SIGCONT. Both are no-ops on a process that has exited.
        popen.send_signal(signal.SIGTERM)
        popen.send_signal(signal.SIGCONT)
        try:
            popen.wait(running.command.stop_seconds)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
        except BaseException:
            # A second Ctrl-C: no more patience, but nothing is left behind either.
            popen.kill()
            popen.wait()
            raise
        finally:
            if popen.returncode is not None:
                del self._running[name]
                (self._pids / f"{name}.pid").unlink(missing_ok=True)
        return running.command

    def restart(self, name: str) -> Running:
        """Stop a process, start it again with the same arguments and return once it is ready."""
        command = self.stop(name)
        if command is None:
            raise ProcessError(f"{name} does not run")
        return self.start(command)

    def pause(self, name: str) -> None:
        """Freeze a process (SIGSTOP): its sockets still accept connections, nothing answers."""
        self._running[name].popen.send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a frozen process go on."""
        self._running[name].popen.send_signal(signal.SIGCONT)

    def stop_all(self) -> None:
        """Stop every process, the last started first; a restart does not change a process's place."""
        # An API server that was restarted, and is stopped before its clients, would cost each of them its goodbye.
        order = list(dict.fromkeys(name for name, _ in self._history))
        try:
            for name in reversed(order):
                self.stop(name)
        finally:
            # Reached with processes left only when stopping was interrupted.
            for running in list(self._running.values()):
                running.popen.kill()

    def _fork(self, command: Command) -> subprocess.Popen[bytes]:
        tethered = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *command.arguments]
        with self.log(command.name).open("ab") as log:
            return _forker.submit(
                subprocess.Popen,
                tethered,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **command.environment},
                process_group=0,  # out of the terminal's foreground group, where Ctrl-C goes
            ).result()

    def _wait_until_ready(self, running: Running) -> None:
        command = running.command

        def settled() -> bool:
            if not running.alive():
                raise ProcessError(
                    f"{command.name} exited with {running.popen.returncode}; the end of {running.log}:\n"
                    f"{running.log_tail()}"
                )
            return command.ready is None or command.ready()

        try:
            wait_until(settled, timeout_seconds=command.ready_seconds, what=f"{command.name} to be ready")
        except NotYetError as late:
            raise ProcessError(f"{late}; the end of {running.log}:\n{running.log_tail()}") from late


class Outage:
    """A component that is down until `start_again`; as a context manager, until the block ends."""

    def __init__(self, *, processes: ProcessGroup, command: Command) -> None:
        self._processes = processes
        self._command = command

    def start_again(self) -> None:
        """Start the component with the arguments it had, unless that was done before."""
        if self._command.name not in self._processes:
            self._processes.start(self._command)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.start_again()


def wait_until(
    condition: Callable[[], bool], *, timeout_seconds: float, what: str, interval_seconds: float = 0.05
) -> None:
    """Return once `condition()` is true; an OSError (a refused or cut connection) counts as "not yet".

    Raises:
        NotYetError: not true within `timeout_seconds`; says what was waited for and the last OSError.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        last: OSError | None = None
        try:
            if condition():
                return
        except OSError as error:
            last = error
        if time.monotonic() > deadline:
            raise NotYetError(f"waited {timeout_seconds:.0f} s for {what}" + (f": {last}" if last else ""))
        time.sleep(interval_seconds)


def is_alive(pid: int) -> bool:
    """Whether a process of this id exists and is not a zombie."""
    with contextlib.suppress(OSError):
        # The state follows the command's name, which stands in parentheses and may hold spaces and ")".
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in {"Z", "X"}
    return False
