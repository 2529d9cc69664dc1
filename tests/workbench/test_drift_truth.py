"""Hindsight, and the alarms that are judged by it."""

import numpy as np
import pytest

from longtail.workbench.drift_baseline import ratio_alarms
from longtail.workbench.drift_truth import Alarm, changes, is_true, worth
from longtail.workbench.schedule import start_at_once
from longtail.workbench.traces.trace import Trace

HOUR = 3600.0
AT = 4 * HOUR


def trace(*, factor: float, hours: float = 8, per_second: float = 0.5, seed: int = 1) -> Trace:
    """Exponential lengths that are ``factor`` times as long from the fourth hour on."""
    rng = np.random.default_rng(seed)
    arrived = np.sort(rng.uniform(0, hours * HOUR, int(hours * HOUR * per_second)))
    tokens = np.maximum(rng.exponential(1000.0, len(arrived)), 1.0) * np.where(arrived >= AT, factor, 1.0)
    return Trace(
        name="t",
        arrival_seconds=arrived,
        input_tokens=np.ones(len(arrived), np.int64),
        output_tokens=np.rint(tokens).astype(np.int64),
    )


@pytest.mark.parametrize(
    ("alarm", "expected"),
    [
        pytest.param(Alarm(AT + 300, longer=True), True, id="soon-after"),
        pytest.param(Alarm(AT + 300, longer=False), False, id="wrong-direction"),
        pytest.param(Alarm(AT - 2 * HOUR, longer=True), False, id="long-before"),
        pytest.param(Alarm(AT + 2 * HOUR, longer=True), False, id="long-after"),
    ],
)
def test_an_alarm_is_true_when_lengths_did_change_that_way_shortly_before(alarm: Alarm, expected: bool) -> None:
    assert is_true(alarm, trace(factor=2.0)) is expected


def test_no_alarm_is_true_where_lengths_do_not_change() -> None:
    steady = trace(factor=1.0, per_second=2.0)
    assert not any(is_true(Alarm(at, longer=True), steady) for at in np.arange(HOUR, 7 * HOUR, 600.0))


def test_too_few_requests_prove_nothing() -> None:
    assert not is_true(Alarm(AT + 300, longer=True), trace(factor=3.0, per_second=0.005))


@pytest.mark.parametrize("factor", [pytest.param(2.0, id="longer"), pytest.param(0.5, id="shorter")])
def test_hindsight_finds_the_one_change_and_its_moment(factor: float) -> None:
    (change,) = changes(trace(factor=factor), duration_seconds=8 * HOUR, least_factor=1.5)
    assert change.at_seconds == pytest.approx(AT, abs=300)
    assert change.factor == pytest.approx(factor, rel=0.15)


def test_alarms_are_worth_what_they_find_and_how_soon() -> None:
    alarms = [Alarm(2 * HOUR, longer=True), Alarm(AT + 420, longer=True), Alarm(AT + 900, longer=True)]
    said = worth(alarms, trace(factor=2.0), duration_seconds=8 * HOUR, least_factor=1.5)
    assert (said.alarms, said.false, said.changes, said.found) == (3, 1, 1, 1)
    assert said.delays_seconds[0] == pytest.approx(420, abs=300)


def test_the_ratio_of_means_sees_a_change_and_then_rests() -> None:
    schedule = start_at_once(trace(factor=3.0, per_second=2.0), seconds_per_token=0.02)
    alarms = ratio_alarms(schedule, np.arange(0, 8 * HOUR, 15.0))
    assert alarms[0].longer
    assert AT < alarms[0].at_seconds < AT + 900
    gaps = np.diff([alarm.at_seconds for alarm in alarms])
    assert (gaps >= 1800).all()
