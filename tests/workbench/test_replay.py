import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand.observation import Quality
from longtail.workbench.replay import (
    FIRST_TOKEN_BOUNDS,
    WAIT_BOUNDS,
    Exposure,
    observe,
    sample,
    token_bounds,
)
from longtail.workbench.schedule import first_come_first_served, start_at_once
from longtail.workbench.traces import Trace

TICK = 15.0


@st.composite
def schedules(draw):
    rows = sorted(
        draw(
            st.lists(
                st.tuples(st.integers(0, 400), st.integers(0, 500), st.integers(0, 3000)),
                min_size=1,
                max_size=40,
            )
        )
    )
    arrival, prompt, output = (np.asarray(column) for column in zip(*rows, strict=True))
    trace = Trace("t", arrival / 3, prompt, output)
    pace = draw(st.sampled_from([0.02, 0.05, 0.1]))
    if draw(st.booleans()):
        return start_at_once(trace, seconds_per_token=pace)
    slots = draw(st.integers(1, 8))
    return first_come_first_served(trace, seconds_per_token=pace, slots=[(0, slots)])


def sampled(schedule, duration=300.0):
    return sample(schedule, duration_seconds=duration, max_model_len=2500)


@given(schedules())
def test_every_series_agrees_with_counting_request_by_request(schedule):
    series = sampled(schedule)
    trace = schedule.trace
    requests = list(
        zip(
            trace.arrival_seconds.tolist(),
            schedule.start_seconds.tolist(),
            schedule.finish_seconds.tolist(),
            trace.input_tokens.tolist(),
            trace.output_tokens.tolist(),
            strict=True,
        )
    )
    for index, at in enumerate(np.arange(0, 300 + TICK / 2, TICK)):
        running = waiting = arrived = first = 0
        written = in_flight = prompts = done_prompts = 0.0
        for arrival, start, finish, prompt, output in requests:
            arrived += arrival <= at
            waiting += arrival <= at < start
            first += start <= at
            running += start <= at < finish
            written += min(max(at - start, 0.0) / schedule.seconds_per_token, output)
            in_flight += (at - start) / schedule.seconds_per_token if start <= at < finish else 0.0
            prompts += prompt if start <= at < finish else 0
            done_prompts += prompt if finish <= at else 0
        assert series.at_seconds[index] == at
        assert series.arrived[index] == arrived
        assert series.first_tokens[index] == first
        assert series.running[index] == running
        assert series.waiting[index] == waiting
        assert series.demand[index] == running + waiting
        assert series.finished_prompt_tokens[index] == done_prompts
        assert series.attained_tokens[index] == pytest.approx(in_flight, abs=1e-4)
        assert series.generated_tokens[index] == pytest.approx(written, abs=1e-4)
        assert series.kv_used_tokens[index] == pytest.approx(prompts + in_flight, abs=1e-4)


@given(schedules())
def test_requests_are_conserved(schedule):
    series = sampled(schedule)
    finished = series.finished_output.sum(axis=1)
    np.testing.assert_array_equal(series.first_tokens - series.running, finished)
    np.testing.assert_array_equal(series.arrived, series.waiting + series.running + finished)
    np.testing.assert_array_equal(series.finished_wait.sum(axis=1), finished)
    np.testing.assert_array_equal(series.first_token_wait.sum(axis=1), series.first_tokens)


@given(schedules())
def test_at_the_end_every_token_is_written_and_every_request_counted(schedule):
    series = sampled(schedule, duration=30_000.0)
    assert series.demand[-1] == 0
    assert series.attained_tokens[-1] == 0
    assert series.kv_used_tokens[-1] == pytest.approx(0, abs=1e-4)
    assert series.generated_tokens[-1] == schedule.trace.output_tokens.sum()
    assert series.first_tokens[-1] == len(schedule.trace)


def one_after_another(outputs):
    count = len(outputs)
    trace = Trace("t", np.zeros(count), np.full(count, 7), np.asarray(outputs))
    return start_at_once(trace, seconds_per_token=0.01)


@pytest.mark.parametrize(
    ("output", "bucket"),
    [
        pytest.param(1, 1.0, id="one"),
        pytest.param(100, 100.0, id="a bound belongs to its bucket"),
        pytest.param(101, 200.0, id="one more does not"),
        pytest.param(2400, math.inf, id="beyond the last bound"),
    ],
)
def test_a_finished_request_falls_into_its_bucket(output, bucket):
    series = sampled(one_after_another([output]))
    counts = dict(zip(series.output_bounds, series.finished_output[-1].tolist(), strict=True))
    assert counts[bucket] == 1
    assert sum(counts.values()) == 1


def test_vllm_bounds_stop_at_the_longest_model_length():
    assert token_bounds(32_768)[-3:] == (10_000.0, 20_000.0, math.inf)
    assert token_bounds(131_072)[-2:] == (100_000.0, math.inf)
    for bounds in (token_bounds(32_768), WAIT_BOUNDS, FIRST_TOKEN_BOUNDS):
        assert (np.diff(bounds) > 0).all()


def test_the_first_sight_has_levels_but_no_increase():
    first, second = list(observe(sampled(one_after_another([2000])), Exposure(pods=2)))[:2]
    assert first.interval_seconds == 0
    assert first.running_requests.value == 1
    assert first.first_tokens.quality is Quality.MISSING
    assert first.finished_output_tokens is None
    assert second.interval_seconds == TICK
    assert second.generated_tokens.value == 1500
    assert second.at_seconds - first.at_seconds == TICK


def test_where_nothing_was_seen_everything_is_missing_and_the_next_interval_is_longer():
    series = sampled(one_after_another([500, 2000]))
    seen = np.array([True, True, False, False] + [True] * (len(series.at_seconds) - 4))
    observations = list(observe(series, Exposure(pods=1), seen=seen))
    assert observations[2].running_requests.value is None
    assert observations[2].finished_output_tokens is None
    assert observations[2].known_percent == 0
    assert observations[4].interval_seconds == 3 * TICK
    assert observations[4].finished_output_tokens.total == 1  # the long one; the short one finished before


@given(schedules(), st.lists(st.booleans(), min_size=21, max_size=21))
def test_increases_add_up_to_the_counters_whatever_was_lost_between(schedule, seen):
    seen = np.array([True, *seen[1:-1], True])
    series = sampled(schedule)
    observations = list(observe(series, Exposure(pods=3, door=True), seen=seen))
    assert len(observations) == len(series.at_seconds)
    for name, counter in (
        ("first_tokens", series.first_tokens),
        ("arrivals", series.arrived),
        ("generated_tokens", series.generated_tokens),
        ("prompt_tokens", series.finished_prompt_tokens),
    ):
        total = sum(getattr(one, name).value or 0.0 for one in observations)
        assert total == pytest.approx(counter[-1] - counter[0], abs=1e-3)
    finished = sum(one.finished_output_tokens.total for one in observations if one.finished_output_tokens)
    assert finished == series.finished_output[-1].sum() - series.finished_output[0].sum()


@given(schedules(), st.integers(1, 5))
def test_pods_add_up_to_their_service(schedule, pods):
    exposure = Exposure(pods=pods, kv_capacity_tokens_per_pod=1000.0, per_pod=True)
    for one in observe(sampled(schedule), exposure):
        assert len(one.pods) == pods
        assert one.kv_capacity_tokens.value == pods * 1000.0
        names = [
            "running_requests",
            "waiting_requests",
            "kv_used_tokens",
            "attained_tokens",
            "kv_capacity_tokens",
        ]
        for name in names:
            total = sum(getattr(pod, name).value for pod in one.pods)
            assert total == pytest.approx(getattr(one, name).value, abs=1e-3)


def test_waits_and_the_door_are_reported_only_where_asked():
    series = sampled(one_after_another([100]))
    silent = list(observe(series, Exposure(pods=1, waits=False)))[1]
    assert silent.queue_wait_seconds is None
    assert silent.first_token_seconds is None
    assert silent.arrivals.value is None
    open_door = list(observe(series, Exposure(pods=1, door=True)))[1]
    assert open_door.queue_wait_seconds.total == 1
    assert open_door.arrivals.value == 0
