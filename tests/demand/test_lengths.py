"""Lengths without the bias of finished requests only."""

import math

import numpy as np
import pytest

from longtail.demand import lengths
from longtail.demand.buckets import BUCKETS
from longtail.demand.lengths import LengthState
from longtail.demand.parameters import ServiceParameters
from longtail.demand.survival import Survival

from .fleets import Requests, fold, poisson, stream


def joined(*parts: Requests) -> Requests:
    starts = np.concatenate([part.starts for part in parts])
    order = np.argsort(starts)
    return Requests(starts=starts[order], tokens=np.concatenate([part.tokens for part in parts])[order])


@pytest.mark.parametrize(
    ("after", "naive"),
    [
        pytest.param(2.0, 0.0, id="steady"),
        pytest.param(6.0, -0.2, id="three-times-the-load"),
        pytest.param(0.66, 0.2, id="a-third-of-the-load"),
    ],
)
def test_a_step_of_the_load_does_not_move_the_lengths(after, naive):
    change, end = 2400.0, 2700.0
    before = poisson(2.0, change, mean_tokens=3000, seed=4)
    requests = joined(before, poisson(after, end, mean_tokens=3000, seed=5, since=change))
    said, _ = fold(
        stream(requests, 180), parameters=ServiceParameters(mean_output_tokens=3000, max_output_tokens=65536)
    )
    means = [demand.lengths.mean_tokens for demand in said[162:]]
    assert np.mean(means) == pytest.approx(3000, rel=0.07)  # 5,000 exponential lengths are good to 1.4 %, thrice
    ends = requests.starts + requests.tokens * requests.seconds_per_token
    finished = requests.tokens[(ends > change) & (ends < end)].mean()
    if naive:
        assert math.copysign(1, finished / 3000 - 1) == math.copysign(1, naive)
        assert abs(finished / 3000 - 1) > 0.1


def test_answers_cut_at_the_limit_are_not_taken_for_short_ones():
    requests = poisson(4.0, 2400, mean_tokens=4000, seed=3)
    cut = Requests(starts=requests.starts, tokens=np.minimum(requests.tokens, 2500.0))
    said, _ = fold(stream(cut, 160), parameters=ServiceParameters(mean_output_tokens=2000, max_output_tokens=2500))
    # A hazard of 1/4000 up to the cut: mean 4000 (1 - e^-0.625) = 1859, and more than half reach it.
    # The bucket of 2000 to 5000 ends in truth at 2500, which leaves the estimate 6 % low.
    assert said[-1].lengths.mean_tokens == pytest.approx(1859, rel=0.08)
    assert said[-1].lengths.p99_tokens == 2500


def test_forgetting_takes_evidence():
    known = np.full((2, BUCKETS), 50.0, dtype=np.float32)
    state = LengthState(known, 1000 * known, known, 1000 * known)
    quiet = np.zeros((2, BUCKETS))
    busy = quiet.copy()
    busy[1] = 1000.0
    after = lengths.learn(
        state,
        ended=busy,
        exposed=quiet,
        finished=busy.sum(axis=1),
        learned=np.array([True, True]),
        elapsed_seconds=600.0,
    )
    assert after.exposed[0, 5] == state.exposed[0, 5]  # nothing ended: nothing forgotten
    assert after.exposed[1, 5] < 0.95 * state.exposed[1, 5]


@pytest.mark.parametrize(
    ("limit", "share"),
    [pytest.param(32768.0, math.exp(-2), id="20000"), pytest.param(10_000.0, math.exp(-0.5), id="limit-on-an-edge")],
)
def test_tail_share_is_what_lies_beyond_the_last_bound(limit, share):
    table = Survival.of(hazard=np.full((1, BUCKETS), 1e-4), limit=np.array([limit]))
    assert lengths.tail_share(table)[0] == pytest.approx(share)
