"""Changes of the output lengths: found soon, measured against what was before, and not where there are none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.demand import drift, drift_cost
from longtail.demand.buckets import BUCKETS, EDGES
from longtail.demand.capacity import BOUNDS, ReplicaCapacity
from longtail.demand.drift import DriftState
from longtail.demand.survival import Survival

from .fleets import START, TICK, Requests, fold, poisson, stream

LIMIT = 32768.0
CHANGE = 2400.0
hazards = st.lists(st.floats(1e-7, 0.05), min_size=BUCKETS, max_size=BUCKETS)


def joined(*parts: Requests) -> Requests:
    starts = np.concatenate([part.starts for part in parts])
    order = np.argsort(starts)
    return Requests(starts=starts[order], tokens=np.concatenate([part.tokens for part in parts])[order])


def told(said):
    """The changes of lengths that a service was told of: first tick of each."""
    found, last = [], None
    for tick, demand in enumerate(said):
        change = demand.lengths.change
        if change is not None and change.since != last:
            found.append((tick * TICK, change))
        last = None if change is None else change.since
    return found


@settings(deadline=None, max_examples=60)
@given(hazard=hazards, factor=st.floats(0.3, 3.0))
def test_lengths_times_a_factor_are_reached_as_often_as_the_lengths_before(hazard, factor):
    before = Survival.of(hazard=np.array([hazard]), limit=np.array([1e9]))
    after = Survival.of(hazard=np.array([hazard]) @ drift.scaled(factor), limit=np.array([1e9]))
    edges = EDGES[None, :-1]
    np.testing.assert_allclose(
        after.cumulative_hazard(edges.astype(np.float32)),
        before.cumulative_hazard((edges / factor).astype(np.float32)),
        rtol=1e-3,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("factor", "soonest", "latest"),
    [
        pytest.param(2.0, 300, 720, id="twice-as-long"),
        pytest.param(3.0, 300, 600, id="three-times-as-long"),
        pytest.param(0.5, 300, 720, id="half-as-long"),
    ],
)
def test_a_change_is_found_within_minutes_with_its_factor_and_its_beginning(factor, soonest, latest):
    before = poisson(2.0, CHANGE, mean_tokens=600, seed=1)
    requests = joined(before, poisson(2.0, CHANGE + 2700, mean_tokens=600 * factor, seed=2, since=CHANGE))
    said, _ = fold(stream(requests, 340))
    ((at, first),) = told(said)
    assert soonest <= at - CHANGE <= latest
    assert abs(first.since - START - CHANGE) <= 120
    assert first.before_tokens == pytest.approx(600, rel=0.08)
    last = said[-1].lengths.change
    assert last.factor == pytest.approx(factor, rel=0.1)
    assert last.now_tokens == pytest.approx(said[-1].lengths.mean_tokens, rel=0.02)
    assert np.sign(last.replicas) == np.sign(factor - 1)


@pytest.mark.parametrize("after", [pytest.param(6.0, id="three-times"), pytest.param(0.7, id="a-third")])
def test_a_change_of_the_load_is_none_of_the_lengths(after):
    requests = joined(poisson(2.0, CHANGE, seed=3), poisson(after, CHANGE + 1800, seed=4, since=CHANGE))
    said, _ = fold(stream(requests, 280))
    assert told(said) == []
    assert said[-1].lengths.watched


def test_a_second_change_on_top_of_the_first_is_not_lost():
    parts = [poisson(2.0, CHANGE, mean_tokens=400, seed=5)]
    for step, mean in enumerate((800, 1600)):
        begin = CHANGE + 1500 * step
        parts.append(poisson(2.0, begin + (1500, 5400)[step], mean_tokens=mean, seed=6 + step, since=begin))
    said, _ = fold(stream(joined(*parts), 620))
    # The second comes while the first settles: it is a part of it.
    ((_, first),) = told(said)
    last = said[-1].lengths.change
    assert last.since == first.since
    assert last.before_tokens == pytest.approx(400, rel=0.1)
    assert last.factor == pytest.approx(4.0, rel=0.15)


def test_what_is_seen_of_few_answers_is_no_reference():
    said, _ = fold(stream(poisson(0.02, 1800, seed=8), 120))
    assert not said[-1].lengths.watched
    assert said[-1].lengths.change is None


def survivals(means) -> Survival:
    hazard = np.repeat(1 / np.array(means, dtype=float)[:, None], BUCKETS, axis=1)
    return Survival.of(hazard=hazard, limit=np.full(len(means), LIMIT))


def news(means, *, before=1000.0, found=0.0) -> DriftState:
    """Services whose lengths changed from a mean of ``before`` to ``means``."""
    count = len(means)
    return replace(
        DriftState.fresh(count),
        factor=np.array(means) / before,
        before_mean=np.full(count, before),
        before_half_square=np.full(count, before * before),
        found=np.full(count, found),
        requests=np.full(count, 1e4),
    )


def quiet_tick(state: DriftState, means, now: float) -> DriftState:
    nothing = np.zeros((len(means), BUCKETS))
    after, found = drift.watch(
        state,
        ended=nothing,
        exposed=nothing,
        settled=survivals(means),
        learned=np.ones(len(means), dtype=bool),
        cut=np.zeros(len(means), dtype=bool),
        now=now,
        elapsed_seconds=TICK,
    )
    assert not len(found.services)
    return after


@pytest.mark.parametrize(
    ("mean", "age", "left"),
    [
        pytest.param(2000.0, 3600.0, 2.0, id="an-hour-old"),
        pytest.param(2600.0, 3600.0, 2.6, id="grown-since"),
        pytest.param(2000.0, drift.SHOWN_SECONDS + 1, 0.0, id="six-hours-old"),
        pytest.param(1050.0, 3600.0, 0.0, id="crept-back"),
        pytest.param(1050.0, 600.0, 1.05, id="still-settling"),
    ],
)
def test_news_of_a_change_ends_when_it_is_old_or_undone(mean, age, left):
    after = quiet_tick(news([2000.0]), [mean], age)
    assert after.factor[0] == pytest.approx(left, rel=1e-3)


def test_unseen_ticks_are_no_evidence():
    state = replace(DriftState.fresh(2), requests=np.full(2, 1e4), evidence=np.array([[4.0, 0.0], [4.0, 0.0]]))
    ended, exposed = np.zeros((2, 2, BUCKETS))
    ended[:, 10], exposed[:, 10] = 1.0, 9000.0
    after, _ = drift.watch(
        state,
        ended=ended,
        exposed=exposed,
        settled=survivals([1000.0, 1000.0]),
        learned=np.array([True, False]),
        cut=np.array([False, False]),
        now=5000.0,
        elapsed_seconds=TICK,
    )
    assert after.evidence[0, 0] > 4.0
    assert after.evidence[1, 0] == 4.0
    assert after.requests.tolist() == [10_001.0, 10_000.0]


@pytest.mark.parametrize(
    ("learned", "services"), [pytest.param(True, [0], id="seen"), pytest.param(False, [], id="unseen")]
)
def test_evidence_that_has_lasted_is_found_when_something_is_seen(learned, services):
    state = replace(
        DriftState.fresh(1),
        requests=np.array([1e4]),
        reference=survivals([1000.0]).hazard.astype(np.float32),
        evidence=np.array([[drift.THRESHOLD + 5, 0.0]]),
        ended=np.full((1, 2, BUCKETS), 5, dtype=np.float32),
        exposed=np.full((1, 2, BUCKETS), 2e4, dtype=np.float32),
    )
    _, found = drift.watch(
        state,
        ended=np.zeros((1, BUCKETS)),
        exposed=np.zeros((1, BUCKETS)),
        settled=survivals([1000.0]),
        learned=np.array([learned]),
        cut=np.array([False]),
        now=5000.0,
        elapsed_seconds=TICK,
    )
    assert found.services.tolist() == services


ticks = st.lists(
    st.tuples(st.integers(0, BUCKETS - 2), st.floats(0, 300), st.floats(0, 1e6), st.booleans()), min_size=1, max_size=60
)


@settings(deadline=None, max_examples=60)
@given(first=ticks, second=ticks, mean=st.floats(50, 5000))
def test_whatever_is_seen_the_state_stays_sane_and_services_do_not_see_each_other(first, second, mean):
    count = min(len(first), len(second))

    def run(columns):
        state, now = DriftState.fresh(len(columns)), 1e9
        settled = survivals([mean] * len(columns))
        for tick in range(count):
            now += TICK
            ended, exposed = np.zeros((2, len(columns), BUCKETS))
            for row, column in enumerate(columns):
                bucket, endings, tokens, _ = column[tick]
                ended[row, bucket], exposed[row, : bucket + 1] = endings, tokens
            learned = np.array([column[tick][3] for column in columns])
            before = state
            state, found = drift.watch(
                state,
                ended=ended,
                exposed=exposed,
                settled=settled,
                learned=learned,
                cut=np.zeros(len(columns), dtype=bool),
                now=now,
                elapsed_seconds=TICK,
            )
            assert (state.evidence >= 0).all()
            assert ((state.since <= now) & (state.since >= before.since)).all()
            assert (state.ended[state.evidence == 0][:, 0] >= 0).all()
            assert (state.dispersion >= 1).all()
            assert (state.factor >= 0).all()
            assert learned[found.services].all()
        return state

    together = run([first, second])
    for row, column in enumerate((first, second)):
        alone = run([column])
        for name in DriftState.__dataclass_fields__:
            np.testing.assert_allclose(getattr(together, name)[row], getattr(alone, name)[0], rtol=1e-6)


def capacity(bound: str, *, slots: float, kv_tokens: float) -> ReplicaCapacity:
    return ReplicaCapacity(
        slots=np.array([slots]),
        kv_tokens=np.array([kv_tokens]),
        kv_known=np.array([kv_tokens > 0]),
        bound=np.array([BOUNDS.index(bound)]),
    )


@pytest.mark.parametrize(
    ("replica", "replicas"),
    [
        # 2 requests/s x 0.05 s x 1,000 tokens more = 100 slots.
        pytest.param(capacity("Spec", slots=20, kv_tokens=0), 5.0, id="by-slots"),
        # Exponential lengths: J = m^2. In cache 2 x 0.05 x (2000 x 100 + 2000^2 - 1000 x 100 - 1000^2) = 310,000 tokens.
        pytest.param(capacity("Spec", slots=1e6, kv_tokens=31_000), 10.0, id="by-the-cache"),
        # 200 slots now; each held 2,100 tokens of cache and holds 1,100 before: 20 slots then were 38.2.
        pytest.param(capacity("KVCache", slots=20, kv_tokens=0), 10 - 100 / (20 * 2100 / 1100), id="slots-by-cache"),
    ],
)
def test_a_change_costs_what_littles_law_says(replica, replicas):
    state = news([2000.0])
    (cost,) = drift_cost.changes(
        state,
        settled=survivals([2000.0]),
        replica=replica,
        prompt_tokens=np.array([100.0]),
        seconds_per_token=np.array([0.05]),
        requests_per_second=np.array([2.0]),
    ).replicas
    assert cost == pytest.approx(replicas, rel=1e-3)
