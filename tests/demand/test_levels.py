"""Levels of thinking: what less of it would change, and what the lengths would be with all of it."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand.buckets import BUCKETS
from longtail.demand.model import DemandMemory, estimate
from longtail.demand.observation import Signal
from longtail.demand.parameters import CapacityOverride, ServiceParameters, Thinking
from longtail.demand.savings import saved
from longtail.demand.supply import Supply
from longtail.demand.survival import Survival

from .fleets import TICK, Requests, fold, poisson, stream

USUAL, MEDIUM, LOW = math.inf, 2000.0, 500.0
THINKING = Thinking(budgets_tokens=(USUAL, MEDIUM, LOW), answer_tokens=100.0)


def service(thinking: Thinking | None = THINKING, *, slots: int = 24, startup: float = 180.0) -> ServiceParameters:
    return ServiceParameters(
        capacity=CapacityOverride(max_concurrent_requests=slots, kv_cache_tokens=400_000),
        mean_output_tokens=1000.0,
        startup_seconds=startup,
        thinking=thinking,
    )


def cut(requests: Requests, tokens: float, *, since: float = -math.inf) -> Requests:
    """The same requests, where those that start from ``since`` on are at most so long."""
    return replace(
        requests, tokens=np.where(requests.starts >= since, np.minimum(requests.tokens, tokens), requests.tokens)
    )


def test_without_levels_nothing_is_said_of_them():
    said, _ = fold(stream(poisson(0.5, 1200), 60), parameters=service(None))
    assert said[-1].levels == ()


def test_where_the_usual_level_is_met_the_others_are_not_looked_at():
    said, _ = fold(stream(poisson(0.5, 1200), 60), parameters=service(), supply=Supply(ready_replicas=4))
    assert len(said[-1].levels) == 1
    assert said[-1].levels[0].short_ahead < 0


def test_the_long_run_need_of_a_level_is_that_of_lengths_cut_there():
    # 1 request/s of exponential lengths, mean 1000 tokens of 50 ms, on replicas of 24 slots, two of which are there.
    said, _ = fold(stream(poisson(1.0, 5400), 300), parameters=service(), supply=Supply(ready_replicas=1))
    usual, medium, low = said[-1].levels
    assert usual.mean_tokens == pytest.approx(1000, rel=0.05)
    assert medium.mean_tokens == pytest.approx(1000 * (1 - math.exp(-2.1)), rel=0.05)
    assert low.mean_tokens == pytest.approx(1000 * (1 - math.exp(-0.6)), rel=0.05)
    assert low.steady / usual.steady == pytest.approx(low.mean_tokens / usual.mean_tokens, rel=1e-6)


@given(rate=st.floats(0.1, 4.0), ready=st.integers(1, 4), seed=st.integers(0, 5))
def test_less_thinking_never_needs_more(rate, ready, seed):
    said, _ = fold(stream(poisson(rate, 900, seed=seed), 60), parameters=service(), supply=Supply(ready_replicas=ready))
    levels = said[-1].levels
    for more, less in itertools.pairwise(levels):
        assert less.steady <= more.steady + 1e-9
        assert less.short_then <= more.short_then + 1e-9
        assert less.short_ahead <= more.short_ahead + 1e-9
        assert less.mean_tokens <= more.mean_tokens + 1e-9


def test_a_budget_that_nobody_reaches_within_a_cold_start_helps_in_the_long_run_only():
    # 60 s of 50 ms are 1200 tokens: a budget of 2000 changes nothing by then.
    parameters = service(startup=60.0)
    said, _ = fold(stream(poisson(1.0, 3600), 200), parameters=parameters, supply=Supply(ready_replicas=1))
    usual, medium, low = said[-1].levels
    assert medium.short_then == pytest.approx(usual.short_then, abs=0.02)
    assert low.short_then < usual.short_then - 0.3
    assert medium.steady < 0.95 * usual.steady


def test_a_rise_is_short_before_anybody_waits():
    """Arrivals rise to the fivefold, answers take 200 s: what will be missing is seen while there is room for all."""
    calm = poisson(0.1, 7200, mean_tokens=4000.0)
    rise = poisson(0.5, 8400, since=7200, mean_tokens=4000.0, seed=2)
    both = Requests(starts=np.append(calm.starts, rise.starts), tokens=np.append(calm.tokens, rise.tokens))
    said, _ = fold(stream(both, 540), parameters=service(), supply=Supply(ready_replicas=2))
    before = next(d for d in said[480:] if d.levels and d.levels[0].short_ahead > 0)
    assert before.slots_now is not None
    assert before.slots_now < 48


def test_cut_answers_do_not_pass_for_the_usual_ones():
    whole = poisson(1.0, 9000)
    calm = stream(whole, 240)
    _, memory = fold(calm, parameters=service(), supply=Supply(ready_replicas=1))
    limited = cut(whole, 600.0, since=240 * TICK)
    reduced = replace(THINKING, level=2, in_force=True)
    said, memory = fold(
        stream(limited, 240, first=240), parameters=service(reduced), supply=Supply(ready_replicas=1), memory=memory
    )
    # Nobody is told that answers have become shorter: that is what was asked for.
    assert all(each.lengths.change is None for each in said)
    # As seen in the last hours, answers are shorter; as they would be, they are as before.
    assert said[-1].lengths.mean_tokens < 650
    assert said[-1].levels[0].mean_tokens == pytest.approx(1000, rel=0.08)
    assert said[-1].levels[2].mean_tokens == pytest.approx(451, rel=0.08)
    # The limit is lifted: for a while most that is seen is still cut, and passes for nothing.
    said, memory = fold(
        stream(cut(whole, 600.0), 40, first=480), parameters=service(), supply=Supply(ready_replicas=1), memory=memory
    )
    assert said[-1].levels[0].mean_tokens == pytest.approx(1000, rel=0.08)


def test_answers_that_are_no_longer_cut_have_not_become_longer():
    whole = poisson(1.0, 15_000)
    reduced = service(replace(THINKING, level=2, in_force=True))
    lifted = 300 * TICK
    tokens = np.where(whole.starts < lifted, np.minimum(whole.tokens, 600.0), whole.tokens)
    asked = stream(replace(whole, tokens=np.where(whole.starts < 200 * TICK, whole.tokens, tokens)), 800)
    memory, told = None, []
    for part, parameters in ((asked[:200], service()), (asked[200:300], reduced), (asked[300:], service())):
        said, memory = fold(part, parameters=parameters, supply=Supply(ready_replicas=1), memory=memory)
        told += [each.lengths.change for each in said]
    assert set(told) == {None}
    assert said[-1].lengths.watched
    assert said[-1].lengths.mean_tokens == pytest.approx(1000, rel=0.1)


def test_lengths_below_the_limit_are_followed_while_it_is_in_force():
    """While thinking is limited, clients come whose answers are short anyway."""
    whole = poisson(1.0, 3600)
    _, memory = fold(stream(whole, 240), parameters=service(), supply=Supply(ready_replicas=1))
    shorter = poisson(1.0, 9000, mean_tokens=200.0, seed=4, since=3600.0)
    said, _ = fold(
        stream(cut(shorter, 2100.0), 200, first=240),
        parameters=service(replace(THINKING, level=1, in_force=True)),
        supply=Supply(ready_replicas=1),
        memory=memory,
    )
    assert said[-1].levels[0].mean_tokens < 300


def test_the_answers_own_tokens_are_learned_where_the_gateway_tells_them_from_reasoning():
    observations = [replace(one, reasoning_share=Signal(0.8)) for one in stream(poisson(1.0, 5400), 300)]
    said, _ = fold(observations, parameters=service(), supply=Supply(ready_replicas=1))
    low = said[-1].levels[2]
    # 200 of 1000 tokens are the answer, so that a budget of 500 cuts at 700.
    assert low.mean_tokens == pytest.approx(1000 * (1 - math.exp(-0.7)), rel=0.06)


def test_a_fleet_gives_each_service_its_own_levels():
    streams = [stream(poisson(rate, 1200, seed=3), 60) for rate in (0.2, 1.0, 1.0)]
    two = Thinking(budgets_tokens=(4000.0, 1000.0), answer_tokens=100.0)
    parameters = [service(None), service(two), service()]
    memory, supplies = DemandMemory.empty(), [Supply(ready_replicas=1)] * 3
    for observations in zip(*streams, strict=True):
        demands, memory = estimate(
            keys=["a", "b", "c"],
            parameters=parameters,
            observations=observations,
            supplies=supplies,
            memory=memory,
            now=observations[0].at_seconds,
        )
    assert [len(demand.levels) for demand in demands] == [0, 2, 3]
    assert demands[1].levels[0].mean_tokens < demands[2].levels[0].mean_tokens


@given(
    st.dictionaries(st.sampled_from("abc"), st.floats(0.01, 100), min_size=1),
    st.lists(st.floats(1, 32_768), min_size=1, max_size=5),
    st.floats(10, 10_000),
)
def test_a_lower_limit_saves_more_and_more_of_long_answers_than_of_short_ones(stretches, limits, mean):
    usual = Survival.of(hazard=np.full((1, BUCKETS), 1 / mean), limit=np.array([32_768.0]))
    found = saved(usual, limits_tokens=np.array([32_768.0, *sorted(limits, reverse=True)]), stretches=stretches)
    assert found[0] == pytest.approx(dict.fromkeys(stretches, 0.0))
    for milder, lower in itertools.pairwise(found):
        for name, share in lower.items():
            assert milder[name] - 1e-9 <= share <= 1
    if all(stretch * 8 * mean < 32_768 for stretch in stretches.values()):
        by_length = sorted(stretches, key=stretches.__getitem__)
        for short, long in itertools.pairwise(by_length):
            assert found[-1][short] <= found[-1][long] + 1e-3


def test_the_levels_of_a_service_tell_what_each_class_saves():
    divided = replace(THINKING, stretches={"batch": 2.0, "chat": 0.5})
    said, _ = fold(stream(poisson(1.0, 5400), 300), parameters=service(divided), supply=Supply(ready_replicas=1))
    usual, _, low = said[-1].levels
    assert usual.saved == {"batch": 0.0, "chat": 0.0}
    # Exponential lengths of mean 2000 and 500, cut at 600.
    assert low.saved["batch"] == pytest.approx(math.exp(-0.3), abs=0.03)
    assert low.saved["chat"] == pytest.approx(math.exp(-1.2), abs=0.03)
