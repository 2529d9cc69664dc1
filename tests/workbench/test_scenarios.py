import numpy as np
import pytest

from longtail.workbench.scenarios import (
    Family,
    control_scenarios,
    reasoning_scenarios,
    stress_scenarios,
)
from longtail.workbench.traces import catalogue

DATA = catalogue.data_directory()
needs_traces = pytest.mark.skipif(DATA is None, reason="no real traces here: LONGTAIL_DATA names their directory")


@pytest.fixture(scope="module")
def stress():
    return {scenario.name: scenario for scenario in stress_scenarios(seconds=14 * 3600)}


def test_every_stress_is_drawn_the_same_again(stress):
    for again in stress_scenarios(seconds=14 * 3600):
        np.testing.assert_array_equal(again.trace.arrival_seconds, stress[again.name].trace.arrival_seconds)
        np.testing.assert_array_equal(again.trace.output_tokens, stress[again.name].trace.output_tokens)


def test_nothing_happens_in_the_six_hours_of_warm_up(stress):
    for name in ("steps", "bursts", "ramps", "outages", "length-shift"):
        early = stress[name].trace.window(0, 6 * 3600)
        assert len(early) / (6 * 3600) == pytest.approx(2.0, rel=0.05), name


def test_the_disturbances_are_there(stress):
    def rate(name, start, end):
        return len(stress[name].trace.window(start * 3600, end * 3600)) / (3600 * (end - start))

    assert rate("steps", 8, 11) == pytest.approx(6.0, rel=0.05)
    assert rate("steps", 11, 14) == pytest.approx(2.0, rel=0.05)
    assert rate("bursts", 7, 7 + 1 / 12) == pytest.approx(12.0, rel=0.1)
    assert rate("ramps", 8.25, 8.75) == pytest.approx(5.0, rel=0.1)
    assert rate("outages", 8, 8 + 1 / 3) == pytest.approx(0.0)
    third = (14 - 6) / 3
    longer = stress["length-shift"].trace.window((6 + third) * 3600, (6 + 2 * third) * 3600)
    assert longer.output_tokens.mean() == pytest.approx(2 * 1533, rel=0.06)


def test_the_pool_never_limits_demand(stress):
    for scenario in stress.values():
        series = scenario.series()
        exposure = scenario.exposure(series)
        parameters = scenario.parameters(attainment=0.95)
        assert series.waiting.max() == 0
        assert exposure.pods * parameters.capacity.max_concurrent_requests >= 2 * series.demand.max()
        assert exposure.pods * exposure.kv_capacity_tokens_per_pod >= 2 * series.kv_used_tokens.max()


@needs_traces
@pytest.mark.traces
def test_real_scenarios_last_a_day_and_reason_or_do_not():
    for scenario in (*reasoning_scenarios(DATA), *control_scenarios(DATA)):
        series = scenario.series()
        assert len(series.at_seconds) == 5761
        moments = series.at_seconds[1440:-12]
        known = scenario.schedule().known_share(moments, 180.0)
        assert scenario.trace.output_tokens.max() <= scenario.max_output_tokens
        if scenario.family is Family.REASONING:
            assert known > 0.2, scenario.name
        else:
            assert known < 0.01, scenario.name
