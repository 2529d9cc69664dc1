"""Processes are stopped by their ids, in order, and never outlive the one who started them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from longtail_e2e.errors import NotYetError, ProcessError
from longtail_e2e.processes import Command, ProcessGroup, is_alive, wait_until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the harness uses Linux's parent-death signal and /proc"
)

DIES_ONLY_BY_SIGKILL = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)


def python(name: str, code: str, **further: Any) -> Command:
    return Command(name=name, arguments=[sys.executable, "-I", "-S", "-c", code], **further)


def test_a_process_runs_under_the_recorded_id_and_is_gone_after_stop(tmp_path: Path) -> None:
    group = ProcessGroup(tmp_path)
    running = group.start(python("sleeper", "import time; time.sleep(600)"))
    recorded = tmp_path / "pids" / "sleeper.pid"
    assert int(recorded.read_text()) == running.pid
    assert is_alive(running.pid)
    group.stop("sleeper")
    assert not is_alive(running.pid)
    assert not recorded.exists()
    assert group.history == [("sleeper", running.pid)]


def test_all_are_stopped_in_the_reverse_order_of_their_start(tmp_path: Path) -> None:
    group = ProcessGroup(tmp_path)
    ended = tmp_path / "ended"
    for name in ("first", "second", "third"):
        ready = tmp_path / name
        code = (
            "import pathlib, signal, sys, time\n"
            "def end(*_):\n"
            f"    open({str(ended)!r}, 'a').write('{name} ')\n"
            "    sys.exit()\n"
            "signal.signal(signal.SIGTERM, end)\n"
            f"pathlib.Path({str(ready)!r}).touch()\n"
            "time.sleep(600)\n"
        )
        group.start(python(name, code, ready=ready.exists))
    (tmp_path / "first").unlink()
    group.restart("first")
    ended.unlink()
    group.stop_all()
    assert ended.read_text().split() == ["third", "second", "first"]


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    group = ProcessGroup(tmp_path)
    log = group.log("deaf")
    running = group.start(
        python("deaf", DIES_ONLY_BY_SIGKILL, ready=lambda: "deaf" in log.read_text(), stop_seconds=0.2)
    )
    group.stop_all()
    assert running.popen.returncode == -signal.SIGKILL


def test_a_paused_process_can_be_stopped(tmp_path: Path) -> None:
    group = ProcessGroup(tmp_path)
    running = group.start(python("paused", "import time; time.sleep(600)"))
    group.pause("paused")
    group.stop("paused")
    assert running.popen.returncode == -signal.SIGTERM


def test_a_process_that_dies_at_once_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    group = ProcessGroup(tmp_path)
    with pytest.raises(ProcessError, match=r"(?s)broken exited with 3.*no such flag"):
        group.start(python("broken", "import sys; print('no such flag'); sys.exit(3)", ready=lambda: False))
    assert "broken" not in group


def test_a_process_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    group = ProcessGroup(tmp_path)
    with pytest.raises(ProcessError, match="waited 0 s for slow to be ready"):
        group.start(python("slow", "import time; time.sleep(600)", ready=lambda: False, ready_seconds=0.2))
    ((_, pid),) = group.history
    assert not is_alive(pid)


def test_a_process_is_killed_with_the_one_who_started_it(tmp_path: Path) -> None:
    owner_code = (
        "import pathlib, sys, time\n"
        "from longtail_e2e.processes import Command, ProcessGroup\n"
        f"group = ProcessGroup(pathlib.Path({str(tmp_path)!r}))\n"
        "command = Command(name='orphan', arguments=[sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)'])\n"
        # From a thread that ends: the child must die with its owner's process, not with the thread.
        "import threading\n"
        "thread = threading.Thread(target=group.start, args=(command,)); thread.start(); thread.join()\n"
        "print(group['orphan'].pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    package_root = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", owner_code],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": package_root},
    ) as owner:
        assert owner.stdout is not None
        orphan = int(owner.stdout.readline())
        assert is_alive(orphan)
        owner.kill()
        owner.wait()
    wait_until(lambda: not is_alive(orphan), timeout_seconds=10, what="the orphan to be killed")


def test_waiting_in_vain_says_for_what_and_the_last_error() -> None:
    def refused() -> bool:
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(NotYetError, match="waited 0 s for the moon: nobody there"):
        wait_until(refused, timeout_seconds=0.1, what="the moon")
