import json

import numpy as np
import pytest
from click.testing import CliRunner

from longtail.cli.bench import bench
from longtail.demand.estimate import Capacity, Demand, Lengths, Startup
from longtail.demand.model import DemandMemory, estimate
from longtail.workbench.bench_cost import CostOptions, digest_of_model, measure_apart
from longtail.workbench.bench_demand import LENGTH_CHANGES, mean_length_errors
from longtail.workbench.forecasting import forecast
from longtail.workbench.scenarios import drawn_scenario
from longtail.workbench.scoring import score
from longtail.workbench.traces import arrivals, catalogue
from longtail.workbench.traces.lengths import PARAMETRIC_R1


def quiet(_doing, _share):
    pass


def scenario(name, per_second, seed, seconds=1800):
    rng = np.random.default_rng(seed)
    arrived = arrivals.poisson(arrivals.constant(seconds, per_second), rng)
    return drawn_scenario(name, arrived, PARAMETRIC_R1, rng, seconds=seconds)


def persistence(*, observations, memory, **_):
    """A model that says: as now."""
    capacity, lengths, startup = Capacity(24, None, "Spec"), Lengths(1, 1, 1, 0), Startup(180, 180)
    demands = [
        Demand(capacity, lengths, startup, *(seen.running_requests.value,) * 4, slots_forecast=seen.running_requests.value,
               slots_upper=seen.running_requests.value)
        for seen in observations
    ]  # fmt: skip
    return demands, memory


def test_persistence_as_the_model_equals_the_baseline_through_the_whole_way():
    scenarios = [scenario("a", 1.0, 1), scenario("b", 0.1, 2)]
    series = [one.series() for one in scenarios]
    said = forecast(scenarios, series, estimator=persistence, memory=None, attainment=0.95, progress=quiet)
    for index, one in enumerate(series):
        figures = score(
            one.demand,
            said.point[:, index],
            said.upper[:, index],
            horizon_ticks=12,
            warm_up_ticks=20,
            level=0.95,
        )
        assert figures.sqrt_rmse_ratio == 1.0


def test_services_of_one_fleet_do_not_see_each_other():
    scenarios = [scenario("busy", 3.0, 1), scenario("quiet", 0.02, 2)]
    series = [one.series() for one in scenarios]

    def run(chosen):
        return forecast(
            [scenarios[index] for index in chosen],
            [series[index] for index in chosen],
            estimator=estimate,
            memory=DemandMemory.empty(),
            attainment=0.95,
            progress=quiet,
        )

    together = run([0, 1])
    for index in (0, 1):
        alone = run([index])
        np.testing.assert_allclose(alone.point[:, 0], together.point[:, index], rtol=1e-4)
        np.testing.assert_allclose(alone.upper[:, 0], together.upper[:, index], rtol=1e-4)


def test_where_nothing_is_seen_the_model_still_answers():
    one = scenario("lossy", 1.0, 3)
    series = one.series()
    seen = np.random.default_rng(1).random(len(series.at_seconds)) < 0.7
    said = forecast(
        [one], [series], estimator=estimate, memory=DemandMemory.empty(), attainment=0.95, progress=quiet, seen=seen
    )
    assert np.isfinite(said.point[40:]).all()
    assert (said.upper[40:] >= said.point[40:]).all()


def test_mean_of_finished_requests_is_low_on_a_rise_and_high_on_a_fall():
    figures = mean_length_errors(PARAMETRIC_R1, seeds=1, progress=quiet)
    assert set(figures) == set(LENGTH_CHANGES)
    # 36 to 31 % low and 52 to 58 % high have been measured elsewhere on longer answers; here the sign and the size
    assert figures["x3"]["finished_only"] < -0.2
    assert figures["/3"]["finished_only"] > 0.3
    for change in LENGTH_CHANGES:
        assert figures[change]["error"] < 0.10


def test_cost_is_measured_in_a_process_of_its_own():
    cost = measure_apart(CostOptions(services=3, ticks=4, measured=2))
    assert cost.services == 3
    assert 0 < cost.tick_ms <= cost.slowest_tick_ms


def test_a_failed_measurement_says_why():
    with pytest.raises(RuntimeError, match=r"measuring .* failed"):
        measure_apart(CostOptions(services=0, ticks=1))


def test_the_digest_names_the_model():
    assert digest_of_model() == digest_of_model()
    assert len(digest_of_model()) == 12


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_without_traces_the_benchmark_says_that_it_was_skipped(tmp_path, monkeypatch, as_json):
    monkeypatch.setenv(catalogue.ENVIRONMENT_VARIABLE, str(tmp_path / "gone"))
    outcome = CliRunner().invoke(bench, ["demand", *(["--json"] if as_json else [])])
    assert outcome.exit_code == 0
    said = json.loads(outcome.stdout)["skipped"] if as_json else outcome.stdout
    assert "skipped: no real traces" in said
    assert catalogue.ENVIRONMENT_VARIABLE in said
