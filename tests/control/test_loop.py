"""The loop keeps its rate, never overlaps and never queues; in virtual time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.control.loop import next_start, run_at_fixed_rate


class Recorder:
    def __init__(self) -> None:
        self.lags: list[float] = []
        self.failures = 0

    def tick_lag(self, seconds: float) -> None:
        self.lags.append(seconds)

    def tick_failed(self) -> None:
        self.failures += 1


def starts(
    run_virtually, clock, *, durations, interval: float, until: float, hurry_at: float | None = None
) -> tuple[list[float], Recorder]:
    """Start times of runs that take so long, one after the other."""
    began, recorder, pending = [], Recorder(), iter(durations)

    async def run(_: float) -> None:
        began.append(clock.monotonic_seconds())
        await asyncio.sleep(next(pending, 0.0))

    async def main() -> None:
        hurry = asyncio.Event()
        if hurry_at is not None:
            asyncio.get_running_loop().call_at(hurry_at, hurry.set)
        try:
            async with asyncio.timeout(until):
                await run_at_fixed_rate(run, interval_seconds=interval, clock=clock, metrics=recorder, hurry=hurry)
        except TimeoutError:
            pass

    run_virtually(main())
    return began, recorder


def test_runs_start_on_the_grid_however_long_they_take(run_virtually, virtual_clock) -> None:
    began, recorder = starts(run_virtually, virtual_clock, durations=[1, 14, 3], interval=15, until=50)
    assert began == pytest.approx([0, 15, 30, 45])
    assert recorder.lags == pytest.approx([0, 0, 0, 0], abs=1e-6)


def test_a_hurry_starts_a_run_at_once_and_the_grid_with_it(run_virtually, virtual_clock) -> None:
    began, recorder = starts(run_virtually, virtual_clock, durations=[], interval=15, until=50, hurry_at=20)
    assert began == pytest.approx([0, 15, 20, 35])
    assert recorder.lags == pytest.approx([0, 0, 0, 0], abs=1e-6)


def test_a_hurry_during_a_run_is_not_lost(run_virtually, virtual_clock) -> None:
    began, _ = starts(run_virtually, virtual_clock, durations=[4], interval=15, until=20, hurry_at=2)
    assert began == pytest.approx([0, 4, 19])


def test_a_run_that_is_too_long_skips_the_starts_it_missed(run_virtually, virtual_clock) -> None:
    began, _ = starts(run_virtually, virtual_clock, durations=[37], interval=15, until=61)
    assert began == pytest.approx([0, 45, 60])


def test_a_run_that_fails_is_logged_and_the_next_one_comes(run_virtually, virtual_clock, caplog) -> None:
    recorder, count = Recorder(), 0

    async def run(_: float) -> None:
        nonlocal count
        count += 1
        raise RuntimeError("a bug")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(31):
                await run_at_fixed_rate(
                    run, interval_seconds=15, clock=virtual_clock, metrics=recorder, hurry=asyncio.Event()
                )

    run_virtually(main())
    assert (count, recorder.failures) == (3, 3)
    assert "a bug" in caplog.text


@given(previous=st.floats(0, 1e6), late=st.floats(0, 1e4), interval=st.floats(0.1, 300))
def test_the_next_start_is_in_the_future_and_at_most_one_interval_away(previous, late, interval) -> None:
    now = previous + late
    start = next_start(previous=previous, now=now, interval_seconds=interval)
    assert now - 1e-6 <= start <= now + interval + 1e-6
