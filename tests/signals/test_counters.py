"""Counters between two looks: exact, never negative, and never a history read as an event."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand.observation import MISSING, Quality
from longtail.signals.samples import Point

from .points import Ticks, histogram, pod, point, service, vllm


def test_the_first_look_has_no_increase_because_the_past_is_unknown() -> None:
    seen = Ticks(service(pod("a"))).see(vllm("a", running=1, generated=5000))
    assert seen.generated_tokens == MISSING
    assert seen.interval_seconds == 0.0


def test_between_two_looks_the_increase_is_the_difference() -> None:
    ticks = Ticks(service(pod("a"), pod("b")))
    ticks.see(vllm("a", running=1, generated=5000), vllm("b", running=1, generated=100))
    seen = ticks.see(vllm("a", running=1, generated=5400), vllm("b", running=1, generated=150))
    assert seen.generated_tokens.value == 450.0
    assert seen.generated_tokens.quality is Quality.FRESH
    assert seen.interval_seconds == 15.0


def test_a_restarted_pod_is_not_a_drop() -> None:
    ticks = Ticks(service(pod("a"), pod("b")))
    ticks.see(vllm("a", running=1, generated=5000), vllm("b", running=1, generated=100))
    seen = ticks.see(vllm("a", running=1, generated=30), vllm("b", running=1, generated=150))
    assert seen.generated_tokens.value == 80.0


def test_a_restart_shows_in_all_counters_of_the_process_even_those_that_have_caught_up() -> None:
    ticks = Ticks(service(pod("a")))
    ticks.see(vllm("a", running=1, generated=100, finished_tokens=90))
    seen = ticks.see(vllm("a", running=1, generated=150, finished_tokens=10))
    assert seen.generated_tokens.value == 150.0


def test_one_rank_that_restarts_leaves_the_others_counters_alone() -> None:
    """Summed first, (1000 + 900) to (1010 + 5) would read as a reset with 1015 new tokens; 15 were written."""
    ticks = Ticks(service(pod("a")))
    ticks.see(vllm("a", running=1, generated=1000), vllm("a", engine="1", generated=900))
    seen = ticks.see(vllm("a", running=1, generated=1010), vllm("a", engine="1", generated=5))
    assert seen.generated_tokens.value == 15.0


def test_a_vanished_pod_takes_nothing_away() -> None:
    ticks = Ticks(service(pod("a"), pod("b")))
    ticks.see(vllm("a", running=1, generated=5000), vllm("b", running=1, generated=100))
    ticks.services = [service(pod("b"))]
    seen = ticks.see(vllm("b", running=1, generated=150))
    assert seen.generated_tokens.value == 50.0


def test_a_pod_that_began_since_the_last_look_counts_from_zero() -> None:
    ticks = Ticks(service(pod("a")))
    ticks.see(vllm("a", running=1, generated=100))
    ticks.services = [service(pod("a"), pod("new", created_at=800.0, ready_at=1020.0))]
    seen = ticks.see(vllm("a", running=1, generated=110), vllm("new", running=1, generated=7))
    assert seen.generated_tokens.value == 17.0
    assert seen.generated_tokens.quality is Quality.FRESH


def test_a_pod_that_was_ready_a_scrape_before_the_last_look_counts_from_zero_too() -> None:
    """Ready at 1005, looked at at 1015 before its first scrape, scraped at 1020."""
    ticks = Ticks(service(pod("a"), pod("new", created_at=800.0, ready_at=1005.0)))
    ticks.see(vllm("a", running=1, generated=100))
    seen = ticks.see(vllm("a", running=1, generated=110), vllm("new", running=1, generated=7))
    assert seen.generated_tokens.value == 17.0


def test_an_old_pod_seen_for_the_first_time_has_a_history_that_is_not_an_event() -> None:
    ticks = Ticks(service(pod("a")))
    ticks.see(vllm("a", running=1, generated=100))
    ticks.services = [service(pod("a"), pod("adopted"))]
    seen = ticks.see(vllm("a", running=1, generated=110), vllm("adopted", running=1, generated=9_000_000))
    assert seen.generated_tokens.value == 10.0
    assert seen.generated_tokens.quality is Quality.PARTIAL


def test_a_pod_back_from_a_gap_is_not_a_burst() -> None:
    ticks = Ticks(service(pod("a"), pod("b")))
    both = vllm("a", running=1, generated=100)
    ticks.see(both, vllm("b", running=1, generated=100))
    ticks.see(both)
    seen = ticks.see(both, vllm("b", running=1, generated=90_000))
    assert seen.generated_tokens.value == 0.0
    assert seen.generated_tokens.quality is Quality.PARTIAL


def test_an_outage_is_one_long_interval() -> None:
    ticks = Ticks(service(pod("a")))
    ticks.see(vllm("a", running=1, generated=100))
    for _ in range(20):
        assert ticks.outage().generated_tokens == MISSING
    seen = ticks.see(vllm("a", running=1, generated=700))
    assert (seen.generated_tokens.value, seen.interval_seconds) == (600.0, 315.0)


def test_one_query_that_failed_starts_its_counters_anew_and_leaves_the_interval_alone() -> None:
    ticks = Ticks(service(pod("a")))
    lengths = histogram("vllm/output_length", "a", {"100.0": 1, "+Inf": 2}, engine="0")
    ticks.see(vllm("a", running=1, generated=100), lengths)
    during = ticks.see(vllm("a", running=1, generated=200), lengths, failed=["counters"])
    assert during.generated_tokens == MISSING
    assert during.finished_output_tokens is not None
    after = ticks.see(vllm("a", running=1, generated=300), lengths)
    assert after.generated_tokens == MISSING
    assert after.interval_seconds == 15.0
    assert ticks.see(vllm("a", running=1, generated=350), lengths).generated_tokens.value == 50.0


def test_the_same_time_asked_twice_is_no_interval() -> None:
    ticks = Ticks(service(pod("a")))
    ticks.see(vllm("a", running=1, generated=100))
    assert ticks.see(vllm("a", running=1, generated=200), seconds=0.0).generated_tokens == MISSING


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0], ids=["nan", "infinity", "negative"])
def test_a_malformed_counter_is_unknown_for_two_looks_and_never_a_jump(bad: float) -> None:
    ticks = Ticks(service(pod("a")))
    ticks.see(vllm("a", running=1, generated=9000))
    assert ticks.see(vllm("a", running=1, generated=bad)).generated_tokens == MISSING
    assert ticks.see(vllm("a", running=1, generated=9100)).generated_tokens == MISSING
    assert ticks.see(vllm("a", running=1, generated=9150)).generated_tokens.value == 50.0


def _sglang(*more: tuple[str, float]) -> list[Point]:
    return [
        point("sglang/sample_age", "a", 3.0),
        point("sglang/running", "a", 1.0),
        *(point(f"sglang/{series}", "a", value) for series, value in more),
    ]


def test_requests_that_were_given_up_are_read_from_each_engine() -> None:
    ticks = Ticks(service(pod("a"), pod("b")))
    ticks.see(
        vllm("a", running=1, aborted=7), [point("sglang/running", "b", 1.0), point("sglang/sample_age", "b", 3.0)]
    )
    given_up = [
        point("sglang/running", "b", 1.0),
        point("sglang/sample_age", "b", 3.0),
        point("sglang/aborted", "b", 2.0),
    ]
    assert ticks.see(vllm("a", running=1, aborted=12), given_up).aborted_requests.value == 7.0


def test_a_counter_that_sglang_has_not_created_yet_is_zero() -> None:
    ticks = Ticks(service(pod("a")))
    ticks.see(_sglang())
    assert ticks.see(_sglang()).arrivals.value == 0.0


def test_a_counter_that_appears_on_a_pod_seen_before_counts_in_full() -> None:
    ticks = Ticks(service(pod("a")))
    ticks.see(_sglang())
    assert ticks.see(_sglang(("arrivals", 4.0))).arrivals.value == 4.0


def test_a_counter_hidden_by_a_partial_answer_does_not_appear_in_full_later() -> None:
    ticks = Ticks(service(pod("a")))
    ticks.see(_sglang(("arrivals", 4000.0)))
    assert ticks.see(_sglang(), partial=True).arrivals == MISSING
    assert ticks.see(_sglang(("arrivals", 4001.0))).arrivals == MISSING


def test_buckets_are_increases_and_not_cumulative() -> None:
    ticks = Ticks(service(pod("a")))
    ticks.see(vllm("a", running=1), histogram("vllm/output_length", "a", {"100.0": 1, "200.0": 4, "+Inf": 4}))
    seen = ticks.see(vllm("a", running=1), histogram("vllm/output_length", "a", {"100.0": 3, "200.0": 9, "+Inf": 10}))
    assert seen.finished_output_tokens.upper_bounds == (100.0, 200.0, math.inf)
    assert seen.finished_output_tokens.counts == (2.0, 3.0, 1.0)


def test_a_restart_is_a_restart_of_the_whole_histogram() -> None:
    """Bucket by bucket, 2 -> 3 would count 1 and 10 -> 5 would count 5: two events above 100 that never were."""
    ticks = Ticks(service(pod("a")))
    ticks.see(vllm("a", running=1), histogram("vllm/output_length", "a", {"100.0": 2, "+Inf": 10}))
    seen = ticks.see(vllm("a", running=1), histogram("vllm/output_length", "a", {"100.0": 3, "+Inf": 5}))
    assert seen.finished_output_tokens.counts == (3.0, 2.0)


def test_pods_with_different_bounds_are_added_where_they_agree() -> None:
    ticks = Ticks(service(pod("a"), pod("b")))
    empty_a = histogram("vllm/output_length", "a", {"100.0": 0, "200.0": 0, "+Inf": 0})
    empty_b = histogram("vllm/output_length", "b", {"100.0": 0, "+Inf": 0})
    ticks.see(vllm("a", running=1), vllm("b", running=1), empty_a, empty_b)
    seen = ticks.see(
        vllm("a", running=1),
        vllm("b", running=1),
        histogram("vllm/output_length", "a", {"100.0": 1, "200.0": 3, "+Inf": 4}),
        histogram("vllm/output_length", "b", {"100.0": 2, "+Inf": 7}),
    )
    assert seen.finished_output_tokens.upper_bounds == (100.0, math.inf)
    assert seen.finished_output_tokens.counts == (3.0, 8.0)


_history = st.lists(
    st.one_of(st.floats(0, 1e6), st.just("restart"), st.just("gap"), st.just("outage")),
    min_size=2,
    max_size=12,
)


@given(histories=st.lists(_history, min_size=1, max_size=3))
def test_whatever_pods_do_the_increases_never_exceed_what_was_written(histories: list[list[object]]) -> None:
    """Each pod writes, restarts, or is not scraped. No increase is negative, and their sum invents nothing."""
    names = [f"pod-{number}" for number in range(len(histories))]
    ticks = Ticks(service(*(pod(name) for name in names)))
    raw = dict.fromkeys(names, 0.0)
    written = counted = 0.0
    ticks.see(*(vllm(name, running=1, generated=0.0) for name in names))
    for step in range(max(map(len, histories))):
        groups = []
        outage = False
        for name, history in zip(names, histories, strict=True):
            event = history[step] if step < len(history) else 0.0
            outage = outage or event == "outage"
            if event == "restart":
                raw[name] = 0.0
            elif isinstance(event, float):
                raw[name] += event
                written += event
            if event != "gap":
                groups.append(vllm(name, running=1, generated=raw[name]))
        seen = ticks.outage() if outage else ticks.see(*groups)
        if seen.generated_tokens.value is not None:
            assert seen.generated_tokens.value >= 0.0
            counted += seen.generated_tokens.value
    assert counted <= written * (1 + 1e-9) + 1e-6
