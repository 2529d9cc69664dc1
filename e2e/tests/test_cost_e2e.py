"""What a pool costs: counted by an operator on a real API server, and added up from a real Prometheus.

The recorded day is written by remote write: the engines of one pool, and in the last four hours the counters of two
operators of which the second took over from the first. The command is run as a user runs it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from longtail.policy.accounting import PHASES
from longtail.workbench.traces.trace import Floats
from longtail_e2e import Cluster, Prometheus, wait_until
from longtail_e2e.commands import longtail
from longtail_e2e.operator import OPERATOR, Operator, apply_definition
from longtail_e2e.prometheus import Target, past_prometheus
from longtail_e2e.remote_write import TimeSeries
from longtail_e2e.world import World

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
NAMESPACE = "inference"
HOUR = 3600
SCRAPE_SECONDS = 30
STEADY, PASSING = "r1-7d9f8b6c5d-bcdfg", "r1-7d9f8b6c5d-hjklm"
OPERATOR_HOURS = 4
"""How long there has been an operator that counts."""
GPUS: Mapping[str, float] = {"serving": 1.0, "headroom": 1.0, "starting": 0.5, "draining": 0.25}
"""GPUs in each phase, as the operator counted."""
ANSWERS, TOKENS, REASONING = 0.1, 100.0, 80.0
"""A second."""


def engine(pod: str, first: float, last: float, *, answers: float) -> Iterator[TimeSeries]:
    """Four requests on one engine, all the time that it is there."""
    at = np.arange(first, last + 1, SCRAPE_SECONDS)
    age = at - first

    def one(name: str, values: Floats, **labels: str) -> TimeSeries:
        whole = {"__name__": f"vllm:{name}", "namespace": NAMESPACE, "pod": pod, "engine": "0", **labels}
        return TimeSeries(whole, at, values)

    yield one("num_requests_running", np.full(len(at), 4.0))
    yield one("num_requests_waiting", np.zeros(len(at)))
    yield one("generation_tokens_total", age * TOKENS * answers / ANSWERS)
    yield one("request_generation_tokens_sum", age * TOKENS * answers / ANSWERS)
    for bound in ("500", "2000", "+Inf"):
        yield one("request_generation_tokens_bucket", age * (0.0 if bound == "500" else answers), le=bound)


def operators(now: float) -> Iterator[TimeSeries]:
    """The counters of an operator, and of the one that led from the middle on."""
    at = np.arange(now - OPERATOR_HOURS * HOUR, now + 1, SCRAPE_SECONDS)
    half = OPERATOR_HOURS * HOUR / 2
    for pod, led in (
        ("longtail-a", np.minimum(at - at[0], half)),
        ("longtail-b", np.maximum(at - at[0] - half, 0.0)),
    ):
        own = {"namespace": NAMESPACE, "name": "r1", "pod": pod}
        for phase in PHASES:
            labels = {"__name__": "longtail_gpu_seconds_total", **own, "gpu_class": "H100", "phase": phase}
            yield TimeSeries(labels, at, led * GPUS.get(phase, 0.0))
        for metric, rate in (
            ("answered_requests", ANSWERS),
            ("output_tokens", TOKENS),
            ("reasoning_tokens", REASONING),
        ):
            yield TimeSeries({"__name__": f"longtail_{metric}_total", **own}, at, led * rate)
        prices = {"__name__": "longtail_gpu_hourly_cost", "gpu_class": "H100", "currency": "USD", "pod": pod}
        yield TimeSeries(prices, at, np.full(len(at), 3.0))


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with past_prometheus(tmp_path_factory.mktemp("day")) as prometheus:
        now = time.time()
        prometheus.write(engine(STEADY, now - 25 * HOUR, now, answers=ANSWERS))
        prometheus.write(engine(PASSING, now - 12 * HOUR, now - 6 * HOUR, answers=ANSWERS))
        prometheus.write(operators(now))
        yield prometheus


def manifest(directory: Path, *more: Mapping[str, Any]) -> Path:
    """A resource whose replicas take two H100, as its Deployment says."""
    container = {"name": "engine", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    pod = {"containers": [container], "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}}
    objects = [
        resource("r1", capacity={"maxConcurrentRequests": 8}),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "r1"},
            "spec": {"template": {"spec": pod}},
        },
        *more,
    ]
    path = directory / "pool.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    return path


def resource(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "longtail.dev/v1alpha1",
        "kind": "ReasoningServing",
        "metadata": {"name": name},
        "spec": {"scaleTargetRef": {"name": name}, "maxReplicas": 12, **spec},
    }


def recorded(day: Prometheus, directory: Path, *arguments: str, file: Path | None = None) -> str:
    return longtail(
        *("cost", NAMESPACE, "--source", day.url, "--file", file or manifest(directory)),
        *("--cache", directory / "cache", "--scrape-interval-seconds", str(SCRAPE_SECONDS), "--since", "24h"),
        *arguments,
    )


def figures(day: Prometheus, directory: Path, *arguments: str, file: Path | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(recorded(day, directory, "--output", "json", *arguments, file=file))
    return found


def test_a_day_is_told_by_the_operator_and_where_there_was_none_by_the_engines(day: Prometheus, tmp_path: Path) -> None:
    found = figures(day, tmp_path)
    (row,) = found["services"]
    assert row["operator_percent"] == pytest.approx(100 * OPERATOR_HOURS / 24, abs=1)
    # Twenty hours of one replica and six of another, half of whose slots are used; four hours as the operator says.
    expected = {
        "serving": 0.5 * (2 * 20 + 2 * 6) + OPERATOR_HOURS * GPUS["serving"],
        "headroom": 0.5 * (2 * 20 + 2 * 6) + OPERATOR_HOURS * GPUS["headroom"],
        "starting": OPERATOR_HOURS * GPUS["starting"],
        "draining": OPERATOR_HOURS * GPUS["draining"],
        "unavailable": 0,
        "unknown": 0,
    }
    assert row["gpu_hours_by_phase"] == pytest.approx(expected, rel=0.03, abs=0.1)
    hours = sum(expected.values())
    assert row["gpu_hours"] == pytest.approx(hours, rel=0.02)
    assert row["gpu_hours_by_class"] == pytest.approx({"H100": hours}, rel=0.02)
    # The price is what the operator published last.
    assert found["currency"] == "USD"
    assert row["amount"] == pytest.approx(3 * hours, rel=0.02)
    answers = ANSWERS * (24 + 6) * HOUR
    assert row["answered_requests"] == pytest.approx(answers, rel=0.02)
    assert row["amount_per_thousand_answers"] == pytest.approx(3 * hours / answers * 1e3, rel=0.03)
    tokens = TOKENS * (24 + 6) * HOUR
    assert row["amount_per_million_output_tokens"] == pytest.approx(3 * hours / tokens * 1e6, rel=0.03)
    # A gateway told it in the last four hours: four fifths of the output.
    assert row["amount_per_million_reasoning_tokens"] == pytest.approx(3 * hours / tokens / 0.8 * 1e6, rel=0.03)
    assert found["total"]["amount"] == row["amount"]


def test_each_second_is_counted_once_when_operators_follow_one_another(day: Prometheus, tmp_path: Path) -> None:
    (row,) = figures(day, tmp_path, "--since", "3h")["services"]
    assert row["operator_percent"] == 100
    assert row["gpu_hours"] == pytest.approx(3 * sum(GPUS.values()), rel=0.02)
    assert row["answered_requests"] == pytest.approx(3 * HOUR * ANSWERS, rel=0.02)


def test_a_file_of_prices_wins_over_what_was_published(day: Prometheus, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("{currency: EUR, gpuHour: {H100: '2.50'}}")
    found = figures(day, tmp_path, "--since", "2h", "--prices", str(prices))
    assert found["currency"] == "EUR"
    assert found["total"]["amount"] == pytest.approx(2.5 * found["total"]["gpu_hours"])
    by_phase = found["total"]["amount_by_phase"]
    assert sum(by_phase.values()) == pytest.approx(found["total"]["amount"])


def test_a_time_can_be_named_by_its_ends(day: Prometheus, tmp_path: Path) -> None:
    ends = [time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime(time.time() - ago * HOUR)) for ago in (10, 8)]
    found = figures(day, tmp_path, "--since", ends[0], "--until", ends[1])
    assert [found["since"], found["until"]] == ends
    # Two replicas of two GPUs, in the middle of the time that the second was there.
    assert found["total"]["gpu_hours"] == pytest.approx(8, rel=0.03)
    assert found["total"]["operator_percent"] == 0


def test_people_get_a_table_and_what_it_rests_on(day: Prometheus, tmp_path: Path) -> None:
    file = manifest(tmp_path, resource("r2"))
    said = recorded(day, tmp_path, file=file)
    for words in ("H100", "cost, USD", "cold starts", "1,000 answers, USD", "1M reasoning tokens, USD"):
        assert words in said
    assert "r2 is not counted: nobody says how many GPUs a replica takes (spec.gpus)" in said
    assert "the rest is from the engines' series" in said


def test_a_second_run_reads_from_the_cache(day: Prometheus, tmp_path: Path) -> None:
    first = figures(day, tmp_path)
    kept = len(list((tmp_path / "cache").iterdir()))
    second = figures(day, tmp_path)
    assert kept > 0
    assert len(list((tmp_path / "cache").iterdir())) <= 2 * kept
    assert second["total"]["gpu_hours"] == pytest.approx(first["total"]["gpu_hours"], rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param([NAMESPACE, "--since", "last week"], ["--since", "last week"], id="time"),
        pytest.param([NAMESPACE, "--since", "1h", "--until", "2h"], ["--since", "1h", "2h"], id="backwards"),
        pytest.param([NAMESPACE, "--prices", "BAD"], ["gpuHour.H100", "-1"], id="price"),
        pytest.param([f"{NAMESPACE}/r7"], ["r7"], id="name"),
        pytest.param([f"{NAMESPACE}/r1", "--set", "spec.gpus.perReplica=0"], ["gpus.perReplica", "0"], id="field"),
        pytest.param([f"{NAMESPACE}/r1/x"], ["NAMESPACE"], id="path"),
    ],
)
def test_what_is_wrong_is_named(day: Prometheus, tmp_path: Path, arguments: list[str], says: list[str]) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("{currency: USD, gpuHour: {H100: -1}}")
    given = [str(bad) if argument == "BAD" else argument for argument in arguments]
    where = ("--source", day.url, "--file", manifest(tmp_path), "--cache", tmp_path / "cache")
    said = longtail("cost", *given, *where, fails=True)
    assert all(word in said for word in says)


# --------------------------------------------------------------------- counted by an operator


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> Iterator[Operator]:
    """An operator that knows prices, and is scraped."""
    apply_definition(cluster, crds=ROOT / "crds")
    prices = cluster.directory / "prices.yaml"
    prices.write_text("{currency: EUR, gpuHour: {H100: 3.60, default: 1}}")
    running = Operator(cluster, flags=[f"--prices-file={prices}"])
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    running.start(kubeconfig=running.install(), sources={"default": source})
    cluster.prometheus.set_targets([Target(url=f"{running.url}/metrics")])
    yield running
    cluster.prometheus.set_targets([])
    cluster.processes.stop(OPERATOR)


def test_the_operator_counts_what_a_pool_costs_and_the_command_adds_it_up(world: World, tmp_path: Path) -> None:
    world.deploy(gpus=2, replicas=2)
    world.serve(minReplicas=2, maxReplicas=2, gpus={"class": "h100"})
    world.engines.rate(world.service(), 12.0)
    world.wait_for_condition("Ready", "True")
    labels = {"namespace": world.namespace, "name": "r1"}

    def counted(phase: str) -> float:
        found = world.operator.value("longtail_gpu_seconds_total", **labels, gpu_class="H100", phase=phase)
        return found or 0.0

    wait_until(lambda: counted("serving") > 20, timeout_seconds=60, what="GPU-seconds of serving")
    before = sum(map(counted, PHASES))
    assert counted("headroom") > 0
    assert world.operator.value("longtail_gpus", **labels) == 4
    assert world.operator.value("longtail_hourly_cost", **labels, currency="EUR") == pytest.approx(14.4)
    assert (world.operator.value("longtail_cost_total", **labels, phase="serving") or 0) > 0

    world.wait(lambda: "lastDay" in world.get("rsv")["status"].get("cost", {}), "a day's figures in status", seconds=60)
    status = world.get("rsv")["status"]["cost"]
    assert (status["gpuClass"], status["gpus"], status["currency"]) == ("H100", 4, "EUR")
    assert status["hourlyAmount"] == "14.4"
    assert float(status["lastDay"]["gpuHours"]) > 0
    assert status["lastDay"]["startingPercent"] + status["lastDay"]["headroomPercent"] <= 100

    def report() -> dict[str, Any]:
        said = longtail(
            *("cost", world.namespace, "--since", "20m", "--output", "json", "--source", world.cluster.prometheus_url),
            *("--scrape-interval-seconds", "1", "--cache", tmp_path, "--kubeconfig", world.cluster.kubeconfig),
        )
        total: dict[str, Any] = json.loads(said)["total"]
        return total

    # Windows are whole minutes, and the operator must have been counting when one begins.
    wait_until(
        lambda: report()["operator_percent"] > 0, timeout_seconds=180, interval_seconds=10.0, what="a counted minute"
    )
    total = report()
    elapsed = sum(map(counted, PHASES))
    assert elapsed > before
    assert total["gpu_hours"] > 4 * 55 / 3600
    assert total["gpu_hours"] <= 1.1 * elapsed / 3600 + 4 * 60 / 3600
    assert total["amount"] == pytest.approx(3.6 * total["gpu_hours"])
    assert total["answered_requests"] > 0


def test_the_counters_of_two_operators_add_up_when_one_takes_over(world: World, cluster: Cluster) -> None:
    """The last test of this module: the operator of the others ends with it."""
    world.deploy(gpus=2, replicas=2)
    world.serve(minReplicas=2, maxReplicas=2, gpus={"class": "h100"})
    world.wait_for_condition("Ready", "True")
    successor = Operator(cluster, name="longtail-b")
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    successor.start(kubeconfig=successor.install(), sources={"default": source})

    def counted(operator: Operator) -> float:
        labels = {"namespace": world.namespace, "name": "r1", "gpu_class": "H100"}
        return sum(operator.value("longtail_gpu_seconds_total", **labels, phase=phase) or 0.0 for phase in PHASES)

    try:
        successor.wait_for_ticks(5)
        assert counted(successor) == 0
        before, began = counted(world.operator), time.monotonic()
        assert before > 0
        world.operator.wait_for_ticks(5)
        left = counted(world.operator)
        stopped = time.monotonic()
        cluster.processes.stop(OPERATOR)
        wait_until(successor.leads, timeout_seconds=30, what="a successor")
        nobody = time.monotonic() - stopped
        successor.wait_for_ticks(10)
        both, elapsed = left - before + counted(successor), time.monotonic() - began
        # Four GPUs, each second once; up to two looks at either end, and the time in which nobody led, are missing.
        assert 4 * (elapsed - nobody - 4) <= both <= 4 * (elapsed + 2)
    finally:
        cluster.processes.stop("longtail-b")
