"""Our queries on a real Prometheus: what is read must equal what the pages say and what the simulator knows.

One fleet with a service for every trap is scraped at two moments, before and after: levels are those of the moment,
increases those in between. All services are read together, so that none may disturb another.
"""

import asyncio
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from longtail.demand.observation import MISSING, UNDIVIDED, Observation, Quality
from longtail.policy.fleet import Pod, ServiceKey
from longtail.signals import classes
from longtail.signals.observe import Engine, ServiceSignals
from longtail.signals.reader import Reading, SignalReader
from longtail.signals.sources import MetricsSource
from longtail.workbench.engine.exposition_sglang import SglangExposition
from longtail.workbench.engine.exposition_vllm import VllmExposition
from longtail.workbench.engine.exposition_witness import gpu_page
from longtail.workbench.engine.pool import Pool, Truth
from longtail.workbench.engine.profiles import PROFILES
from longtail.workbench.engine.request import Request
from longtail_e2e import Cluster
from longtail_e2e.pages import Pages
from longtail_e2e.signal_pages import CUSTOM, TEAMS, VLLM, custom, divided, gpus, picker, proxy, sglang

pytestmark = pytest.mark.e2e

NAMESPACE = f"signals-{uuid.uuid4().hex[:8]}"
"""Of this run alone: the Prometheus is shared, and a series outlives its target by some seconds."""
SCRAPE_INTERVAL_SECONDS = 15.0
"""What the reader is told; Prometheus scrapes each second here, so that a slow machine is not a stale sample."""
HISTOGRAMS = ("classic-histograms", "native-histograms")

# --------------------------------------------------------------------- the fleet

SIMULATED = ("vllm-current", "vllm-previous", "sglang")


def simulated(kind: str) -> Pool:
    """Three pods with 900 requests in 90 s, more than they can serve."""
    profile = PROFILES["qwen3-32b-1xh100-fp8"]
    ranks = 2 if kind == "vllm-current" else 1

    def exposition() -> SglangExposition | VllmExposition:
        if kind == "sglang":
            return SglangExposition(model_name="m")
        generation: Any = kind.removeprefix("vllm-")
        return VllmExposition(profile=profile, model_name="m", engines=ranks, generation=generation)

    pool = Pool(profile=profile, exposition=exposition, engines_per_pod=ranks)
    for number in range(3):
        pool.add(f"{kind}-{number}", at_seconds=0.0)
    for number in range(900):
        at = number * 0.1
        pool.submit(Request(number, at, 100, 40 + (number * 7919) % 5000, 32_768), at_seconds=at)
    return pool


def service(name: str, *pods: str, **changes: Any) -> ServiceSignals:
    ready = tuple(Pod(name=pod, created_at=0.0, ready_at=1.0, ready=True) for pod in pods)
    return ServiceSignals(key=ServiceKey(NAMESPACE, name), pods=ready, **changes)


FLEET = [
    service("ranks", "ranks"),
    service("names", "both-names", "old-names"),
    service("sglang-ranks", "sglang-ranks"),
    service("honoured", "honoured-a", "honoured-b"),
    service("exported", "exported-a", "exported-b"),
    service("gateway", "absent", inference_pool="pool"),
    service("proxied", "absent", gateway_model="deepseek/r1"),
    # An hour holds both runs, so each has a model of its own.
    *(service(f"divided-{kind}", "absent", gateway_model=f"r1/{kind}", class_label="team") for kind in HISTOGRAMS),
    service("custom", "custom", engine=Engine.CUSTOM, custom=CUSTOM),
    service("half", "loud", "silent"),
    service("lost", "silent"),
    *(service(kind, *(f"{kind}-{number}" for number in range(3))) for kind in SIMULATED),
]


@dataclass
class Seen:
    """What was read at the two moments, and after a pod fell silent, and what the simulator knew."""

    before: Reading
    after: Reading
    silenced: Reading
    later: Reading
    """The pages of ``silenced``, read as of a minute later."""
    truth: dict[str, tuple[Truth, Truth]]
    first_tokens: dict[str, tuple[int, int]]

    def __call__(self, name: str, when: str = "after") -> Observation:
        reading: Reading = getattr(self, when)
        return reading.observations[ServiceKey(NAMESPACE, name)]


def targets(pools: Mapping[str, Pool]) -> dict[str, dict[str, str]]:
    pods = [*VLLM, "sglang-ranks", "picker", "custom", *(pod for pool in pools.values() for pod in pool.pods)]
    return {
        **{pod: {"namespace": NAMESPACE, "pod": pod} for pod in pods},
        # A target with labels of its own has Prometheus move the page's to exported_*, as without honorLabels.
        "dcgm-exported": {"namespace": "gpu-operator", "pod": "dcgm-x"},
        "dcgm-honoured": {},
        "proxy": {"namespace": "litellm"},
        "divided": {"namespace": "litellm"},
        "dcgm-simulated": {},
    }


def texts(pools: Mapping[str, Pool], *, late: bool, histograms: str) -> dict[str, str]:
    return {
        **VLLM,
        "sglang-ranks": sglang(written=(1010, 405) if late else (1000, 400), late=late),
        "picker": picker(queued=late),
        "custom": custom(arrived=14, short=3, finished=6) if late else custom(arrived=10, short=2, finished=3),
        "proxy": proxy(output=1400, reasoning=900) if late else proxy(output=1000, reasoning=600),
        "divided": divided(late=late, model=f"r1/{histograms}"),
        "dcgm-honoured": gpus("honoured", namespace=NAMESPACE),
        "dcgm-exported": gpus("exported", namespace=NAMESPACE),
        "dcgm-simulated": gpu_page((NAMESPACE, pool.pods.values()) for pool in pools.values()),
        **{pod: pool.metrics(pod) for pool in pools.values() for pod in pool.pods},
    }


def first_tokens(pool: Pool) -> int:
    return sum(engine.reading().first_tokens for pod in pool.pods.values() for engine in pod.engines)


@pytest.fixture(scope="module", params=HISTOGRAMS)
def seen(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Seen]:
    cluster.prometheus.set_native_histograms(request.param == "native-histograms")
    pools = {kind: simulated(kind) for kind in SIMULATED}
    pages = Pages(cluster.prometheus, owner=NAMESPACE)
    source = MetricsSource(name="default", url=cluster.prometheus_url, scrape_interval_seconds=SCRAPE_INTERVAL_SECONDS)
    reader = SignalReader([source])

    def read(later_seconds: float = 0.0) -> Reading:
        return asyncio.run(reader.read(FLEET, time.time() + later_seconds))

    def known(at_seconds: float) -> tuple[dict[str, Truth], dict[str, int]]:
        for pool in pools.values():
            pool.advance(at_seconds)
        return (
            {kind: pool.truth() for kind, pool in pools.items()},
            {kind: first_tokens(pool) for kind, pool in pools.items()},
        )

    try:
        pages.announce(targets(pools))
        truth_before, first_before = known(100.0)
        pages.show(texts(pools, late=False, histograms=request.param))
        before = read()
        truth_after, first_after = known(160.0)
        pages.show(texts(pools, late=True, histograms=request.param))
        after = read()
        pages.silence("silent")
        yield Seen(
            before=before,
            after=after,
            silenced=read(),
            later=read(later_seconds=60.0),
            truth={kind: (truth_before[kind], truth_after[kind]) for kind in SIMULATED},
            first_tokens={kind: (first_before[kind], first_after[kind]) for kind in SIMULATED},
        )
    finally:
        pages.close()
        reader.close()
        cluster.prometheus.set_native_histograms(False)


# --------------------------------------------------------------------- what must be seen


def test_a_real_prometheus_takes_every_query_without_a_warning(seen: Seen) -> None:
    for reading in (seen.before, seen.after, seen.silenced):
        assert list(reading.failures) == []
        assert reading.warnings == {}


def test_data_parallel_ranks_are_summed_and_kv_is_multiplied_rank_by_rank(seen: Seen) -> None:
    ranks = seen("ranks")
    assert (ranks.running_requests.value, ranks.waiting_requests.value) == (10.0, 3.0)
    assert ranks.kv_capacity_tokens.value == 56_000.0
    assert ranks.kv_used_tokens.value == 0.5 * 16_000 + 0.25 * 40_000
    assert ranks.running_requests.quality is Quality.FRESH


def test_a_pod_with_old_and_new_names_counts_once_and_one_with_old_names_counts(seen: Seen) -> None:
    names = seen("names")
    assert names.running_requests.value == 6.0
    assert names.kv_used_tokens.value == 0.5 * 16_000 + 0.25 * 16_000


def test_sglangs_ranks_stages_and_priorities_are_not_counted_again(seen: Seen) -> None:
    ranks = seen("sglang-ranks")
    assert (ranks.running_requests.value, ranks.waiting_requests.value) == (8.0, 2.0)
    assert (ranks.kv_used_tokens.value, ranks.kv_capacity_tokens.value) == (1000.0, 16_000.0)
    assert ranks.attained_tokens.value == 1000.0
    assert ranks.generated_tokens.value == 15.0


def test_sglangs_counters_count_in_full_when_they_appear_and_are_zero_until_then(seen: Seen) -> None:
    ranks = seen("sglang-ranks")
    assert ranks.first_tokens.value == 4.0
    assert ranks.arrivals.value == 10.0
    assert ranks.preemptions.value == 0.0


def test_the_wait_of_a_request_that_does_not_stream_is_not_its_first_token(seen: Seen) -> None:
    waits = seen("sglang-ranks").first_token_seconds
    assert waits is not None
    assert waits.total == 0.0


@pytest.mark.parametrize("style", ["honoured", "exported"])
def test_gpu_activity_is_found_under_both_label_styles(seen: Seen, style: str) -> None:
    gpu = seen(style)
    ratios = {reading.name: reading.gpu_active_ratio.value for reading in gpu.pods}
    assert ratios == {f"{style}-a": 0.625, f"{style}-b": 0.4}
    assert gpu.gpu_active_ratio.fresh
    assert gpu.running_requests == MISSING


def test_a_gateway_that_holds_nothing_back_yet_is_zero(seen: Seen) -> None:
    assert seen("gateway", "before").gateway_waiting_requests.value == 0.0


def test_both_prefixes_of_a_gateway_are_one_queue(seen: Seen) -> None:
    waiting = seen("gateway").gateway_waiting_requests
    assert waiting.value == 11.0
    assert waiting.fresh
    assert seen("ranks").gateway_waiting_requests == MISSING


def test_the_reasoning_share_is_that_of_the_proxys_last_hour(seen: Seen) -> None:
    share = seen("proxied").reasoning_share
    assert share.value == pytest.approx(300 / 400)
    assert share.fresh
    assert seen("ranks").reasoning_share == MISSING


def test_the_largest_classes_are_told_one_by_one_and_the_others_in_one_sum(
    seen: Seen, request: pytest.FixtureRequest
) -> None:
    divided = seen(f"divided-{request.node.callspec.params['seen']}").classes
    assert divided.quality is Quality.FRESH
    names = [each.name for each in divided.counts]
    # The requests of nobody's are the largest of all here, and have no name.
    assert names == [*reversed(TEAMS[-(classes.MOST - 1) :]), ""]
    largest = divided.counts[0]
    # Extrapolated from two scrapes to the ends of a window, so up to a scrape's time more than what was counted.
    assert largest.output_tokens == pytest.approx(1000 * largest.answers)
    assert largest.reasoning_tokens == pytest.approx(800 * largest.answers)
    assert 4 * len(TEAMS) <= largest.answers == pytest.approx(largest.requests)
    ratio = divided.counts[3].answers / largest.answers
    assert ratio == pytest.approx((len(TEAMS) - 3) / len(TEAMS))
    rest = sum(range(1, len(TEAMS) - classes.MOST + 2)) + len(TEAMS) + 1
    assert divided.counts[-1].answers / largest.answers == pytest.approx(rest / len(TEAMS))
    assert seen("proxied").classes == UNDIVIDED


def test_a_custom_engine_is_read_by_its_names(seen: Seen) -> None:
    own = seen("custom")
    assert own.running_requests.value == 7.0
    assert own.kv_used_tokens.value == 4000.0
    assert own.arrivals.value == 4.0
    assert own.finished_output_tokens is not None
    assert own.finished_output_tokens.counts == (1.0, 2.0)
    assert own.waiting_requests == MISSING


def test_a_pod_that_stops_answering_is_missing_at_once_and_the_sum_partial(seen: Seen) -> None:
    assert seen("half").known_percent == 100
    half = seen("half", "silenced")
    assert (half.running_requests.value, half.running_requests.quality) == (4.0, Quality.PARTIAL)
    assert half.known_percent == 50
    assert seen("lost", "silenced").running_requests == MISSING


def test_the_age_of_a_sample_is_told_although_the_query_hides_it(seen: Seen) -> None:
    running = seen("ranks", "later").running_requests
    assert running.quality is Quality.STALE
    assert 50.0 <= running.age_seconds <= 90.0


@pytest.mark.parametrize("kind", SIMULATED)
def test_levels_equal_what_the_simulator_knows(seen: Seen, kind: str) -> None:
    pool, (_, truth) = seen(kind), seen.truth[kind]
    assert truth.running_requests > 0
    assert pool.running_requests.value == truth.running_requests
    assert pool.waiting_requests.value == truth.waiting_requests
    # Old names tell whole blocks of 16 tokens, and vLLM's ratio is of the blocks there are.
    assert pool.kv_capacity_tokens.value == pytest.approx(truth.kv_capacity_tokens, rel=1e-3)
    assert pool.kv_used_tokens.value == pytest.approx(truth.kv_used_tokens, rel=0.01)
    attained = truth.kv_used_tokens if kind == "sglang" else truth.in_flight_tokens
    assert pool.attained_tokens.value == attained
    assert pool.gpu_active_ratio.value == pytest.approx(1.0)
    assert pool.known_percent == 100
    assert all(reading.kv_used_tokens.fresh for reading in pool.pods)


@pytest.mark.parametrize("kind", SIMULATED)
def test_increases_equal_what_the_simulator_knows(seen: Seen, kind: str) -> None:
    pool, (before, after) = seen(kind), seen.truth[kind]
    earlier, now = seen.first_tokens[kind]
    started = now - earlier
    finished = after.totals.finished_requests - before.totals.finished_requests
    written = after.totals.generated_tokens - before.totals.generated_tokens
    assert finished > 0
    assert pool.first_tokens.value == started
    # On SGLang the first token of a request is the prefill's, not counted as decoded.
    assert pool.generated_tokens.value == (written - started if kind == "sglang" else written)
    assert pool.preemptions.value == after.totals.preemptions - before.totals.preemptions
    arrived = after.arrived_requests - before.arrived_requests
    assert pool.arrivals.value == (arrived if kind == "sglang" else None)
    assert pool.finished_output_tokens is not None
    assert pool.finished_output_tokens.total == finished
    assert pool.first_token_seconds is not None
    assert pool.first_token_seconds.total == started
    assert pool.queue_wait_seconds is not None
