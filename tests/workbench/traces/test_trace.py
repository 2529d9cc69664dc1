import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from longtail.errors import TraceError
from longtail.workbench.traces import Trace


def trace_of(arrivals, outputs=None, **more):
    count = len(arrivals)
    return Trace(
        name="t",
        arrival_seconds=np.asarray(arrivals, float),
        input_tokens=np.ones(count, int),
        output_tokens=np.full(count, 10) if outputs is None else np.asarray(outputs),
        **more,
    )


def test_arrays_cannot_be_written_to_and_the_callers_still_can():
    mine = np.array([0.0, 1.0])
    trace = trace_of(mine)
    with pytest.raises(ValueError, match="read-only"):
        trace.arrival_seconds[0] = 5.0
    mine[0] = 0.5  # the caller's own array is not frozen behind its back


@pytest.mark.parametrize(
    ("arrivals", "outputs", "says"),
    [
        pytest.param([1.0, 0.0], [1, 1], "request 1, column arrival_seconds", id="unsorted"),
        pytest.param([0.0, 1.0], [1, -1], "request 1, column output_tokens", id="negative"),
        pytest.param([0.0, np.nan], [1, 1], "request 1, column arrival_seconds", id="NaN"),
        pytest.param([0.0], [1, 1], "has 2 values", id="other length"),
    ],
)
def test_a_trace_cannot_be_made_of_bad_arrays(arrivals, outputs, says):
    with pytest.raises(TraceError, match=says):
        trace_of(arrivals, outputs)


def test_a_window_starts_at_zero_and_excludes_its_end():
    part = trace_of([0, 10, 20, 30]).window(10, 30)
    assert part.arrival_seconds.tolist() == [0.0, 10.0]


def test_a_window_keeps_reasoning_and_client_beside_their_requests():
    trace = trace_of([0, 10, 20], [9, 8, 7], reasoning_tokens=np.array([1, 2, 3]), client=np.array([4, 5, 6]))
    part = trace.window(10, 30)
    assert part.reasoning_tokens.tolist() == [2, 3]
    assert part.client.tolist() == [5, 6]
    assert part.with_output_tokens(np.array([1, 1])).reasoning_tokens is None


def test_repeating_shorter_than_the_trace_is_refused():
    with pytest.raises(ValueError, match="period_seconds"):
        trace_of([0, 10]).repeated(2, 5.0)


sorted_arrivals = hnp.arrays(float, st.integers(0, 40), elements=st.floats(0, 1e5)).map(np.sort)


@given(sorted_arrivals, st.integers(1, 4))
def test_repeating_keeps_every_request_every_time(arrivals, times):
    trace = trace_of(arrivals)
    period = trace.span_seconds + 1.0
    repeated = trace.repeated(times, period)
    assert len(repeated) == times * len(trace)
    for turn in range(times):
        again = repeated.window(turn * period, (turn + 1) * period)
        np.testing.assert_allclose(again.arrival_seconds, trace.arrival_seconds, atol=1e-6)


@given(sorted_arrivals, st.floats(0, 1), st.integers(0, 99))
def test_thinning_is_seeded_and_keeps_a_part_in_order(arrivals, share, seed):
    trace = trace_of(arrivals, np.arange(len(arrivals)))
    thin, again = trace.thinned(share, seed=seed), trace.thinned(share, seed=seed)
    assert thin.output_tokens.tolist() == again.output_tokens.tolist()
    assert set(thin.output_tokens.tolist()) <= set(range(len(arrivals)))
    assert (np.diff(thin.output_tokens) > 0).all()


def test_thinning_keeps_about_its_share():
    thin = trace_of(np.arange(20_000.0)).thinned(0.1, seed=1)
    assert abs(len(thin) - 2000) < 4 * np.sqrt(20_000 * 0.1 * 0.9)
