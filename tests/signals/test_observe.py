"""From samples to an observation: value, age and quality, and what one pod's silence does to a sum."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand.observation import MISSING, Observation, Quality, Signal
from longtail.signals.custom import CustomNames
from longtail.signals.observe import Engine

from .points import Ticks, pod, point, service, vllm


def look(*groups: Any, of: Any, **how: Any) -> Observation:
    observation: Observation = Ticks(of).see(*groups, **how)
    return observation


def test_levels_are_summed_over_the_pods_with_the_age_of_the_oldest() -> None:
    seen = look(
        vllm("a", running=3, waiting=2, age=4.0),
        vllm("b", running=5, age=9.0),
        of=service(pod("a"), pod("b")),
    )
    assert seen.running_requests == Signal(8.0, age_seconds=9.0, quality=Quality.FRESH)
    assert seen.waiting_requests.value == 2.0
    assert seen.waiting_requests.quality is Quality.PARTIAL
    assert (seen.ready_pods, seen.reporting_pods, seen.known_percent) == (2, 2, 100)


def test_zero_is_a_value() -> None:
    seen = look(vllm("a", running=0, waiting=0), of=service(pod("a")))
    assert seen.running_requests == Signal(0.0, age_seconds=3.0, quality=Quality.FRESH)


def test_a_ready_pod_without_samples_makes_the_sum_partial() -> None:
    seen = look(vllm("a", running=3), of=service(pod("a"), pod("blind")))
    assert seen.running_requests == Signal(3.0, age_seconds=3.0, quality=Quality.PARTIAL)
    assert (seen.ready_pods, seen.reporting_pods, seen.known_percent) == (2, 1, 50)


def test_nothing_from_any_pod_that_should_report_is_missing_and_not_zero() -> None:
    seen = look(of=service(pod("a"), pod("b")))
    assert seen.running_requests == MISSING
    assert seen.known_percent == 0


def test_samples_older_than_two_scrapes_are_stale() -> None:
    seen = look(vllm("a", running=3, age=30.5), of=service(pod("a")))
    assert seen.running_requests == Signal(3.0, age_seconds=30.5, quality=Quality.STALE)
    assert seen.reporting_pods == 0


def test_a_stale_pod_among_fresh_ones_is_left_out_and_the_sum_is_partial() -> None:
    seen = look(vllm("a", running=3), vllm("b", running=5, age=200.0), of=service(pod("a"), pod("b")))
    assert (seen.running_requests.value, seen.running_requests.quality) == (3.0, Quality.PARTIAL)


def test_an_unknown_age_is_not_a_fresh_one() -> None:
    seen = look(vllm("a", running=3), of=service(pod("a")), failed=["sample_age"])
    assert (seen.running_requests.value, seen.running_requests.quality) == (3.0, Quality.STALE)


def test_a_service_without_pods_runs_nothing_and_that_is_known() -> None:
    seen = look(of=service())
    assert seen.running_requests == Signal(0.0)
    assert seen.gpu_active_ratio == MISSING


def test_a_pod_that_still_loads_its_model_is_not_waited_for() -> None:
    seen = look(vllm("a", running=3), of=service(pod("a"), pod("loading", ready=False, ready_at=None)))
    assert seen.running_requests.quality is Quality.FRESH


def test_a_pod_that_loads_and_reports_does_not_speak_for_one_that_is_silent() -> None:
    loading = pod("loading", ready=False, ready_at=None)
    seen = look(vllm("loading", running=0), of=service(pod("silent"), loading))
    assert seen.running_requests == MISSING


def test_a_pod_too_busy_for_its_health_check_and_its_scrape_still_holds_its_work() -> None:
    seen = look(vllm("a", running=3), of=service(pod("a"), pod("busy", ready=False)))
    assert seen.running_requests.quality is Quality.PARTIAL
    assert seen.ready_pods == 1


def test_a_restarted_pod_that_loads_again_holds_nothing() -> None:
    seen = look(vllm("a", running=3), of=service(pod("a"), pod("again", ready=False, restarted=True)))
    assert seen.running_requests.quality is Quality.FRESH


def test_work_on_a_pod_being_deleted_is_not_the_pools_but_is_shown() -> None:
    seen = look(vllm("a", running=3), vllm("going", running=9), of=service(pod("a"), pod("going", deleting=True)))
    assert seen.running_requests == Signal(3.0, age_seconds=3.0)
    assert [reading.running_requests.value for reading in seen.pods] == [3.0, 9.0]


def test_what_a_pod_being_deleted_wrote_was_written() -> None:
    ticks = Ticks(service(pod("a"), pod("going", deleting=True)))
    ticks.see(vllm("a", running=1, generated=10), vllm("going", running=1, generated=10))
    seen = ticks.see(vllm("a", running=1, generated=15), vllm("going", running=1, generated=18))
    assert seen.generated_tokens.value == 13.0


def test_a_warning_of_the_source_makes_every_value_partial() -> None:
    seen = look(vllm("a", running=3), of=service(pod("a")), partial=True)
    assert seen.running_requests.quality is Quality.PARTIAL


def test_one_failing_query_takes_only_its_own_signals() -> None:
    seen = look(vllm("a", running=3, waiting=1), of=service(pod("a")), failed=["waiting"])
    assert seen.waiting_requests == MISSING
    assert seen.running_requests.fresh


def test_a_failing_query_is_missing_even_for_a_service_without_pods() -> None:
    assert look(of=service(), failed=["running"]).running_requests == MISSING


def test_the_engine_is_known_by_its_age_when_its_running_requests_are_not() -> None:
    seen = look(vllm("a", waiting=1), of=service(pod("a")), failed=["running"])
    assert seen.waiting_requests.fresh


def test_kv_tokens_are_ratio_times_capacity_rank_by_rank() -> None:
    config = {"block_size": "16", "num_gpu_blocks": "1000", "kv_cache_size_tokens": "None"}
    large = {**config, "kv_cache_size_tokens": "40000"}
    seen = look(
        vllm("a", running=1, kv_used_ratio=0.5),
        vllm("a", engine="1", kv_used_ratio=0.25),
        [point("vllm/kv_capacity", "a", 1.0, engine="0", **config)],
        [point("vllm/kv_capacity", "a", 1.0, engine="1", **large)],
        of=service(pod("a")),
    )
    assert seen.kv_capacity_tokens.value == 56_000.0
    assert seen.kv_used_tokens.value == 0.5 * 16_000 + 0.25 * 40_000


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({"block_size": "None", "num_gpu_blocks": "None"}, id="none"),
        pytest.param({"block_size": "16", "num_gpu_blocks": "0"}, id="zero-blocks"),
        pytest.param({}, id="no-labels"),
    ],
)
def test_a_capacity_that_the_labels_do_not_tell_is_missing(labels: dict[str, str]) -> None:
    seen = look(
        vllm("a", running=1, kv_used_ratio=0.5),
        [point("vllm/kv_capacity", "a", 1.0, engine="0", **labels)],
        of=service(pod("a")),
    )
    assert seen.kv_capacity_tokens == MISSING
    assert seen.kv_used_tokens == MISSING


def test_a_kv_ratio_above_one_is_malformed() -> None:
    capacity = [point("vllm/kv_capacity", "a", 1.0, engine="0", kv_cache_size_tokens="1000")]
    seen = look(vllm("a", running=1, kv_used_ratio=50.0), capacity, of=service(pod("a")))
    assert seen.kv_used_tokens == MISSING


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -3.0])
def test_a_malformed_level_never_reaches_the_model(bad: float) -> None:
    seen = look(vllm("a", running=bad, waiting=1), of=service(pod("a")))
    assert seen.running_requests == MISSING
    assert seen.waiting_requests.value == 1.0


def test_tokens_in_flight_are_generated_minus_finished() -> None:
    seen = look(vllm("a", running=16, generated=10_464, finished_tokens=3_871), of=service(pod("a")))
    assert seen.attained_tokens.value == 6_593.0


def test_a_gateway_queue_is_joined_by_pool() -> None:
    points = [point("gateway/gateway_waiting", "pool", 11.0), point("gateway/sample_age", "pool", 2.0)]
    seen = look(vllm("a", running=1, waiting=0), points, of=service(pod("a"), inference_pool="pool"))
    assert seen.gateway_waiting_requests == Signal(11.0, age_seconds=2.0)
    assert seen.waiting_everywhere.value == 11.0


def test_without_a_gateway_its_queue_is_missing() -> None:
    points = [point("gateway/gateway_waiting", "pool", 11.0)]
    assert look(points, of=service(pod("a"))).gateway_waiting_requests == MISSING


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.75, Signal(0.75, age_seconds=2.0), id="known"),
        pytest.param(math.nan, MISSING, id="nothing-finished-within-the-hour"),
        pytest.param(1.5, MISSING, id="malformed"),
    ],
)
def test_the_reasoning_share_is_that_of_the_model_at_the_proxy(share: float, expected: Signal) -> None:
    points = [
        *(point("litellm/reasoning_share", "deepseek/r1", share), point("litellm/sample_age", "deepseek/r1", 2.0)),
        *(point("litellm/reasoning_share", "other", 0.1), point("litellm/sample_age", "other", 2.0)),
    ]
    seen = look(vllm("a", running=1), points, of=service(pod("a"), gateway_model="deepseek/r1"))
    assert seen.reasoning_share == expected


def test_without_a_proxy_the_reasoning_share_is_missing_and_not_asked_for() -> None:
    assert look(vllm("a", running=1), of=service(pod("a"))).reasoning_share == MISSING


def test_gpu_occupancy_has_an_age_of_its_own_and_is_a_mean() -> None:
    points = [
        point("dcgm/gpu_active", "a", 0.9),
        point("dcgm/sample_age", "a", 20.0),
        point("dcgm/gpu_active", "b", 0.5),
        point("dcgm/sample_age", "b", 1.0),
    ]
    seen = look(points, of=service(pod("a"), pod("b")))
    assert seen.gpu_active_ratio == Signal(0.7, age_seconds=20.0)
    assert seen.running_requests == MISSING


def test_a_gpu_ratio_above_one_is_malformed() -> None:
    points = [point("dcgm/gpu_active", "a", 90.0), point("dcgm/sample_age", "a", 1.0)]
    assert look(points, of=service(pod("a"))).gpu_active_ratio == MISSING


def test_pods_of_other_namespaces_with_the_same_name_are_not_ours() -> None:
    labels, value = point("vllm/running", "a", 50.0)
    seen = look(vllm("a", running=3), [({**labels, "namespace": "other"}, value)], of=service(pod("a")))
    assert seen.running_requests.value == 3.0


def test_two_engines_in_one_pool_are_read_each_in_its_own_words() -> None:
    sglang = [
        point("sglang/running", "b", 4.0),
        point("sglang/kv_used", "b", 700.0),
        point("sglang/sample_age", "b", 1.0),
    ]
    seen = look(vllm("a", running=3), sglang, of=service(pod("a"), pod("b")))
    assert seen.running_requests == Signal(7.0, age_seconds=3.0)


def test_a_stated_engine_is_the_only_one_listened_to() -> None:
    sglang = [point("sglang/running", "a", 4.0), point("sglang/sample_age", "a", 1.0)]
    assert look(sglang, of=service(pod("a"), engine=Engine.VLLM)).running_requests == MISSING


def test_a_custom_engine_is_read_by_its_own_names() -> None:
    names = CustomNames(running_requests="my_running", max_concurrent_requests="my_slots")
    points = [
        point(f"{names.engine}/running", "a", 4.0),
        point(f"{names.engine}/max_concurrent", "a", 32.0),
        point(f"{names.engine}/sample_age", "a", 1.0),
    ]
    seen = look(points, of=service(pod("a"), engine=Engine.CUSTOM, custom=names))
    assert seen.running_requests.value == 4.0
    assert seen.max_concurrent_requests.value == 32.0
    assert seen.waiting_requests == MISSING


def test_custom_names_and_engine_custom_go_together() -> None:
    with pytest.raises(ValueError, match="Custom"):
        service(engine=Engine.CUSTOM)


_values = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
_pods: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    ready=st.booleans(),
    deleting=st.booleans(),
    restarted=st.booleans(),
    ready_at=st.sampled_from([None, 60.0]),
)


@given(
    fleet=st.lists(st.tuples(_pods, _values, _values, st.floats(0, 400)), max_size=6),
    failed=st.sets(st.sampled_from(["running", "counters", "sample_age"])),
)
def test_whatever_is_scraped_an_observation_is_sound(fleet: list[Any], failed: set[str]) -> None:
    """Signal itself refuses what is not finite; here: fresh only if all that should report did."""
    pods = [pod(str(number), **kind) for number, (kind, *_) in enumerate(fleet)]
    groups = []
    for number, (_, running, generated, age) in enumerate(fleet):
        values = {key: v for key, v in (("running", running), ("generated", generated)) if v is not None}
        groups.append(vllm(str(number), age=age, **values))
    ticks = Ticks(service(*pods))
    for _ in range(2):
        seen = ticks.see(*groups, failed=sorted(failed))
        assert 0 <= seen.reporting_pods <= seen.ready_pods
        if seen.running_requests.fresh:
            assert seen.reporting_pods == seen.ready_pods
            assert seen.running_requests.age_seconds <= 30.0
        if "running" in failed:
            assert seen.running_requests == MISSING


@pytest.mark.parametrize(
    ("ready_seconds_ago", "quality"),
    [
        pytest.param(10.0, Quality.FRESH, id="not-scraped-yet"),
        pytest.param(90.0, Quality.PARTIAL, id="ready-for-long-enough"),
    ],
)
def test_a_pod_that_has_just_become_ready_is_not_missed_before_its_first_scrape(
    ready_seconds_ago: float, quality: Quality
) -> None:
    born = pod("new", ready_at=1015.0 - ready_seconds_ago)
    seen = look(vllm("a", running=3), of=service(pod("a"), born))
    assert seen.running_requests == Signal(3.0, age_seconds=3.0, quality=quality)
    assert (seen.ready_pods, seen.reporting_pods) == (2, 1)


def test_a_pool_of_which_nobody_was_scraped_yet_is_missing_and_not_zero() -> None:
    assert look(of=service(pod("a", ready_at=1014.0))).running_requests == MISSING
