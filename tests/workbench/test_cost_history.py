"""Counters of operators out of ranges, window by window; and looks at engines where there are none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand.observation import Observation, Signal
from longtail.demand.parameters import CapacityOverride, ServiceParameters
from longtail.errors import MetricsUnavailable
from longtail.policy.accounting import NOTHING, Account
from longtail.policy.fleet import GpuShape, Limits, Mode, Pod, Service, ServiceKey
from longtail.signals.exchange import Answer
from longtail.signals.history import Segment
from longtail.workbench.backtest import Look
from longtail.workbench.cost_history import OperatorHistory, Windows, altogether, from_looks, summed

DAY = 86_400
START = 20_000 * DAY


@dataclass
class GivenRanges:
    """Answers by a word in the question, at every time that is asked for."""

    series: Mapping[str, list[tuple[dict[str, str], float]]]
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    async def query_range(self, promql: str, start_seconds: int, end_seconds: int, step_seconds: int) -> Answer:
        self.asked.append((promql, start_seconds, end_seconds))
        times = range(start_seconds, end_seconds + 1, step_seconds)
        found = next((series for word, series in self.series.items() if word in promql), [])
        return Answer([{"metric": labels, "values": [[at, str(value)] for at in times]} for labels, value in found])


def phase(name: str, value: float, *, gpu_class: str = "H100", service: str = "r1") -> tuple[dict[str, str], float]:
    return {"name": service, "gpu_class": gpu_class, "phase": name}, value


TWO_WINDOWS = Windows(START, START + 600, 300)


async def read(series, windows: Windows = TWO_WINDOWS):
    ranges = GivenRanges(series)
    return await OperatorHistory(ranges, namespace="inference", windows=windows).read(), ranges


async def test_counters_become_an_account_for_each_window() -> None:
    found, ranges = await read(
        {
            "gpu_seconds": [phase("serving", 200.0), phase("headroom", 100.0), phase("starting", 20.0)],
            "answered": [({"name": "r1"}, 5.0)],
            "output": [({"name": "r1"}, 1000.0)],
            "reasoning": [({"name": "r1"}, 800.0)],
            "idle": [({"name": "r1"}, 30.0)],
        }
    )
    one = Account(200.0, 100.0, 20.0, 0.0, 0.0, 0.0, 30.0, 300.0, 5.0, 320.0, 1000.0, 320.0, 800.0, 1000.0)
    assert found == {"r1": {START + 300: {"H100": one}, START + 600: {"H100": one}}}
    assert 'longtail_gpu_seconds_total{namespace="inference"}[300s]' in ranges.asked[0][0]


async def test_what_nobody_counted_is_not_zero() -> None:
    found, _ = await read({"gpu_seconds": [phase("serving", 200.0)]})
    one = found["r1"][START + 300]["H100"]
    assert (one.answered_over, one.output_over, one.watched, one.told_tokens) == (0, 0, 0, 0)
    assert one.gpu_hours_per_answer is None


async def test_the_product_of_two_classes_is_counted_once_over_both() -> None:
    found, _ = await read(
        {
            "gpu_seconds": [phase("serving", 200.0), phase("serving", 100.0, gpu_class="L40S")],
            "answered": [({"name": "r1"}, 6.0)],
        }
    )
    total = altogether(found["r1"][START + 300])
    assert (total.answered_requests, total.answered_over) == (6, 300)


async def test_days_are_asked_for_one_by_one() -> None:
    """A day that is over is the same question in every run."""
    _, ranges = await read({}, Windows(START - 3600, START + DAY + 3600, 3600))
    spans = [(start, end) for promql, start, end in ranges.asked if "gpu_seconds" in promql]
    assert spans == [(START - 0, START + DAY - 3600), (START + DAY, START + DAY + 3600)]


async def test_the_price_is_the_last_that_was_published() -> None:
    ranges = GivenRanges({"hourly": [({"gpu_class": "H100", "currency": "EUR"}, 2.5)]})
    history = OperatorHistory(ranges, namespace="inference", windows=Windows(START, START + 600, 300))
    assert await history.prices() == {"H100": ("EUR", 2.5)}


async def test_a_malformed_answer_is_an_answer_that_failed() -> None:
    class Nonsense(GivenRanges):
        async def query_range(self, *_: object) -> Answer:
            return Answer([{"metric": {}, "values": [["now", "much"]]}])

    history = OperatorHistory(Nonsense({}), namespace="inference", windows=Windows(START, START + 600, 300))
    with pytest.raises(MetricsUnavailable, match="malformed"):
        await history.read()


@given(known=st.sets(st.integers(1, 12)), length=st.sampled_from([60, 300, 3600]))
def test_gaps_and_known_windows_are_all_of_the_time_once(known: set[int], length: int) -> None:
    windows = Windows(START, START + 12 * length, length)
    ends = {START + number * length: None for number in known}
    gaps = windows.without(ends, step_seconds=60)
    assert sum(gap.end_seconds - gap.start_seconds for gap in gaps) == (12 - len(known)) * length
    assert all(before.end_seconds < after.start_seconds for before, after in pairwise(gaps))
    for end in ends:
        assert not any(gap.start_seconds < end <= gap.end_seconds for gap in gaps)


SERVICE = Service(
    key=ServiceKey("inference", "r1"),
    mode=Mode.ADVISE,
    parameters=ServiceParameters(capacity=CapacityOverride(max_concurrent_requests=8)),
    limits=Limits(max_replicas=4),
    target=None,
)


def look(at: float, running: float | None) -> Look:
    seen = {} if running is None else {"running_requests": Signal(running), "waiting_requests": Signal(0.0)}
    pod = Pod(name="p", created_at=0.0, ready_at=0.0, ready=True, restarted=True)
    return Look(Observation(at_seconds=at, ready_pods=1, reporting_pods=1, **seen), (pod,))


def test_looks_at_engines_tell_serving_and_headroom_and_begin_anew_after_a_gap() -> None:
    segments = [Segment(START, START + 120, 60), Segment(START + 7200, START + 7260, 60)]
    looks = [look(float(at), 2.0) for segment in segments for at in segment.times]
    found = from_looks(looks, segments, SERVICE, GpuShape("H100", 4))
    assert found.gpu_seconds == 4 * 180
    assert found.serving == 4 * 180 * 2 / 8
    assert found.headroom == 4 * 180 * 6 / 8


def test_a_time_that_nobody_saw_is_unknown_and_no_look_is_nothing() -> None:
    looks = [look(START, 2.0), look(START + 60.0, None)]
    found = from_looks(looks, [Segment(START, START + 60, 60)], SERVICE, GpuShape("H100", 1))
    assert (found.unknown, found.serving) == (60, 0)
    assert from_looks([], [], SERVICE, GpuShape("H100", 1)) == NOTHING


def test_windows_and_the_rest_add_up_by_class() -> None:
    one = Account(serving=10.0)
    assert summed({1: {"H100": one}, 2: {"L4": one, "H100": one}}, {"H100": one}) == {
        "H100": Account(serving=30.0),
        "L4": one,
    }
