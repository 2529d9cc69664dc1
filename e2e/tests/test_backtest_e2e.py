"""A simulated week in a real Prometheus, and what ``longtail backtest`` makes of it.

The week is written by remote write: one Deployment whose pods come and go, with vLLM's series as the engines would have
counted them. The command is run as a user runs it.
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

from longtail.api.resource import read_spec
from longtail.workbench.replay import FIRST_TOKEN_BOUNDS, WAIT_BOUNDS, Series, sample
from longtail.workbench.schedule import start_at_once
from longtail.workbench.traces import arrivals, lengths
from longtail.workbench.traces.trace import Floats, Mask, Trace
from longtail_e2e import Prometheus
from longtail_e2e.commands import longtail
from longtail_e2e.prometheus import past_prometheus
from longtail_e2e.remote_write import TimeSeries

pytestmark = pytest.mark.e2e

WEEK_SECONDS = 7 * 86_400
SCRAPE_SECONDS = 60
STEP_SECONDS = 60
NAMESPACE = "inference"
PODS = ("r1-7d9f8b6c5d-bcdfg", "r1-7d9f8b6c5d-hjklm", "r1-5c6d7f8b9d-npqrs")
"""The last was there for part of the last day."""
KV_TOKENS = 400_000
NO_LABELS: Mapping[str, str] = {}
HOLE = (6.75, 6.0 + 5 / 6)
"""Days from the start between which nothing was scraped."""


def simulated_week() -> Series:
    """A small service whose load swings from day to night, on engines with room enough."""
    rng = np.random.default_rng(7)
    arrived = arrivals.poisson(np.tile(arrivals.day_shape(86_400, 0.15), 7), rng)
    trace = Trace(
        name="week",
        arrival_seconds=arrived,
        input_tokens=lengths.PARAMETRIC_INPUT.sample(len(arrived), rng),
        output_tokens=lengths.PARAMETRIC_R1.sample(len(arrived), rng),
    )
    schedule = start_at_once(trace, seconds_per_token=0.05)
    return sample(schedule, duration_seconds=WEEK_SECONDS, max_model_len=40_960, tick_seconds=SCRAPE_SECONDS)


def written(series: Series, start: float) -> Iterator[TimeSeries]:
    """The week as it was scraped: work is spread over the pods that are there, counters begin with each pod."""
    day = series.at_seconds / 86_400
    scraped = ~((day >= HOLE[0]) & (day < HOLE[1]))
    there = np.array([np.ones(len(day)), np.ones(len(day)), (day >= 6.6) & (day < 6.9)])
    share = there / there.sum(axis=0)
    for pod, mine, alive in zip(PODS, share, there.astype(bool), strict=True):
        seen = alive & scraped
        at = start + series.at_seconds[seen]

        def one(
            name: str, values: Floats, labels: Mapping[str, str] = NO_LABELS, at: Floats = at, pod: str = pod
        ) -> TimeSeries:
            return TimeSeries(
                {"__name__": f"vllm:{name}", "namespace": NAMESPACE, "pod": pod, "engine": "0", **labels}, at, values
            )

        def gauge(level: Floats, mine: Floats = mine, seen: Mask = seen) -> Floats:
            shown: Floats = (level * mine)[seen]
            return shown

        def counter(total: Floats, mine: Floats = mine, alive: Mask = alive, seen: Mask = seen) -> Floats:
            growth = np.diff(total, prepend=total[0]) * mine * alive
            shown: Floats = np.cumsum(growth)[seen]
            return shown

        yield one("num_requests_running", gauge(series.running))
        yield one("num_requests_waiting", gauge(series.waiting))
        yield one("kv_cache_usage_perc", np.minimum(gauge(series.kv_used_tokens) / KV_TOKENS, 1.0))
        config = {"block_size": "16", "num_gpu_blocks": str(KV_TOKENS // 16), "kv_cache_size_tokens": str(KV_TOKENS)}
        yield one("cache_config_info", np.ones(seen.sum()), config)
        yield one("generation_tokens_total", counter(series.generated_tokens))
        yield one("time_to_first_token_seconds_count", counter(series.first_tokens))
        yield one("request_prompt_tokens_sum", counter(series.finished_prompt_tokens))
        yield one("request_generation_tokens_sum", counter(series.generated_tokens))
        for name, bounds, counts in (
            ("request_generation_tokens", series.output_bounds, series.finished_output),
            ("request_queue_time_seconds", WAIT_BOUNDS, series.finished_wait),
            ("time_to_first_token_seconds", FIRST_TOKEN_BOUNDS, series.first_token_wait),
        ):
            cumulative = np.cumsum(counts, axis=1)
            for bound, total in zip(bounds, cumulative.T, strict=True):
                yield one(f"{name}_bucket", counter(total), {"le": "+Inf" if np.isinf(bound) else str(bound)})


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with past_prometheus(tmp_path_factory.mktemp("week")) as prometheus:
        start = time.time() // STEP_SECONDS * STEP_SECONDS - WEEK_SECONDS
        prometheus.write(written(simulated_week(), start))
        yield prometheus


def run(week: Prometheus, directory: Path, *arguments: str, fails: bool = False, triangle: bool = False) -> str:
    manifest = directory / "r1.yaml"
    manifest.write_text(
        "apiVersion: longtail.dev/v1alpha1\n"
        "kind: ReasoningServing\n"
        "metadata: {name: r1}\n"
        "spec: {scaleTargetRef: {name: r1}, maxReplicas: 12, capacity: {maxConcurrentRequests: 8}}\n"
    )
    return longtail(
        *(("frontier", "--service") if triangle else ("backtest",)),
        f"{NAMESPACE}/r1",
        *("--source", week.url, "--file", manifest, "--cache", directory / "cache"),
        *("--scrape-interval-seconds", str(SCRAPE_SECONDS), "--step", str(STEP_SECONDS)),
        *("--since", "12h"),
        *arguments,
        fails=fails,
    )


def test_a_week_is_replayed_against_peers_and_other_fields(week: Prometheus, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    said = run(week, tmp_path, "--against", "hpa-running,keda-waiting", "--json", str(output))
    figures = json.loads(output.read_text())
    rows = {row["name"]: row for row in figures["rows"]}
    assert {"as recorded", "longtail", "hpa-running", "keda-waiting"} <= rows.keys()
    # Of twelve hours a tenth is warm-up, and the hole of two is not scored: two pods all the time, a third for 5.2 h.
    assert rows["as recorded"]["gpu_hours"] == pytest.approx(2 * 8.8 + 5.2, rel=0.03)
    assert figures["unknown_percent"] == pytest.approx(100 * 2 / 10.8, abs=1.0)
    assert figures["learned"]["slots_per_replica"] == 8
    assert rows["longtail"]["cut_requests"] == 0
    assert rows["longtail"]["attainment_percent"] > rows["as recorded"]["attainment_percent"]
    assert any(row["changes"] for row in figures["rows"])
    assert "Taken as given" in said
    assert "hpa-running" in said


def test_a_second_run_reads_from_the_cache_and_says_the_same(week: Prometheus, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    run(week, tmp_path, "--no-grid", "--since", "2h", "--json", str(first))
    kept = list((tmp_path / "cache").iterdir())
    run(week, tmp_path, "--no-grid", "--since", "2h", "--json", str(second))
    one, other = json.loads(first.read_text()), json.loads(second.read_text())
    assert [row["name"] for row in one["rows"]] == [row["name"] for row in other["rows"]]
    # Asked for anew are the piece that ends now, which is not kept, and the first, if a minute has passed.
    assert kept
    assert len(list((tmp_path / "cache").iterdir())) <= 2 * len(kept)


def test_a_past_shows_what_less_thinking_would_cost_and_save(week: Prometheus, tmp_path: Path) -> None:
    output = tmp_path / "points.json"
    said = run(week, tmp_path, "--json", str(output), "--pictures", str(tmp_path), "--point", "low@95", triangle=True)
    points = json.loads(output.read_text())
    levels = ["high", "medium", "low", "minimal"]
    assert list(dict.fromkeys(point["level"]["name"] for point in points)) == levels
    at_95 = [next(p for p in points if (p["level"]["name"], p["attainment_percent"]) == (name, 95)) for name in levels]
    hours = [point["row"]["gpu_hours"] for point in at_95]
    ratios = [point["saving"]["length_ratio"] for point in at_95]
    assert ratios[0] == 1.0
    assert ratios == sorted(ratios, reverse=True)
    # The law of the lengths is known: what a budget of 2,048 and 500 tokens of answer leave of it.
    drawn = lengths.PARAMETRIC_R1.sample(200_000, np.random.default_rng(1))
    assert ratios[2] == pytest.approx(np.minimum(drawn, 2548).mean() / drawn.mean(), rel=0.05)
    assert hours[3] < 0.8 * hours[0]
    assert (tmp_path / "triangle.png").read_bytes().startswith(b"\x89PNG")
    fields = yaml.safe_load(said[said.index("# low@95") :])
    assert fields["spec"]["objective"] == {"attainmentPercent": 95}
    assert fields["spec"]["effort"]["levels"][0] == {"name": "low", "thinkingTokens": 2048}
    manifest = {"scaleTargetRef": {"name": "r1"}, "maxReplicas": 12, **fields["spec"]}
    assert read_spec({"spec": manifest}).effort is not None


def test_a_point_that_is_not_there_is_named(week: Prometheus, tmp_path: Path) -> None:
    said = run(week, tmp_path, "--since", "2h", "--point", "low@96", triangle=True, fails=True)
    assert "low@96" in said
    assert "low@95" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--set", "spec.objective.attainmentPercent=120"], ["attainmentPercent", "120"], id="value"),
        pytest.param(["--set", "spec.objective.atainment=95"], ["atainment"], id="field"),
        pytest.param(["--since", "15m", "--against", "hpb"], ["--against", "hpb"], id="peer"),
        pytest.param(["--since", "7 days"], ["--since", "7 days"], id="span"),
    ],
)
def test_what_is_wrong_is_named(week: Prometheus, tmp_path: Path, arguments: list[str], says: list[str]) -> None:
    said = run(week, tmp_path, "--no-grid", *arguments, fails=True)
    assert all(word in said for word in says)
