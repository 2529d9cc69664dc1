"""The pages parse, say what real engines say, and follow the model."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from longtail.workbench.engine.exposition import go_float
from longtail.workbench.engine.exposition_sglang import SglangExposition
from longtail.workbench.engine.exposition_vllm import VllmExposition
from longtail.workbench.engine.exposition_witness import gateway_page, gpu_page
from longtail.workbench.engine.pool import Exposition, Pool
from longtail.workbench.engine.profiles import EngineProfile
from longtail.workbench.engine.request import Request

PROFILE = EngineProfile(
    name="tiny",
    model="tiny",
    step_base_seconds=0.010,
    step_seconds_per_sequence=0.0002,
    step_seconds_per_kv_token=0.000001,
    prefill_tokens_per_second=10_000.0,
    kv_capacity_tokens=2_097_152,
    max_model_len_tokens=16_384,
    slots=4,
)
REAL = Path(__file__).parents[4] / "shared" / "research" / "vllm_0_32_metrics.txt"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def vllm(generation: str = "current", *, engines: int = 1) -> Exposition:
    return VllmExposition(profile=PROFILE, model_name="tiny", engines=engines, generation=generation)  # type: ignore[arg-type]


def sglang() -> Exposition:
    return SglangExposition(model_name="tiny")


KINDS = [
    pytest.param(vllm, id="vllm"),
    pytest.param(lambda: vllm("previous"), id="vllm previous"),
    pytest.param(sglang, id="sglang"),
]


def pool_with(exposition, *, requests: int = 6, output: int = 300, engines: int = 1) -> Pool:
    pool = Pool(profile=PROFILE, exposition=exposition, engines_per_pod=engines)
    pool.add("a", at_seconds=0.0)
    for i in range(requests):
        pool.submit(
            Request(id=i, arrived_seconds=0.0, prompt_tokens=50, output_tokens=output + i, max_tokens=16_000),
            at_seconds=0.0,
        )
    return pool


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    (found,) = [v for (n, ls), v in samples(text).items() if n == name and labels.items() <= dict(ls).items()]
    return found


@pytest.mark.parametrize("exposition", KINDS)
def test_every_page_parses_with_unique_samples_and_consistent_histograms(exposition):
    pool = pool_with(exposition)
    pool.advance(5.0)
    text = pool.metrics("a")
    parsed = [s for f in text_string_to_metric_families(text) for s in f.samples]
    assert len(parsed) == len(samples(text)) == len([line for line in text.splitlines() if line[0] != "#"])
    assert text.endswith("\n")
    buckets = defaultdict(list)
    for sample in parsed:
        if sample.name.endswith("_bucket"):
            rest = frozenset((k, v) for k, v in sample.labels.items() if k != "le")
            buckets[sample.name.removesuffix("_bucket"), rest].append((float(sample.labels["le"]), sample.value))
    assert buckets
    for (name, rest), pairs in buckets.items():
        assert pairs == sorted(pairs)
        assert [count for _, count in pairs] == sorted(count for _, count in pairs)
        assert pairs[-1] == (float("inf"), samples(text)[f"{name}_count", rest])


@pytest.mark.parametrize("exposition", KINDS)
def test_a_page_is_the_same_however_often_it_was_looked_at(exposition):
    once, often = pool_with(exposition), pool_with(exposition)
    for tenth in range(80):
        often.advance(tenth / 10)
        often.metrics("a")
    once.advance(8.0)
    often.advance(8.0)
    assert often.metrics("a") == once.metrics("a")


@pytest.mark.parametrize("exposition", KINDS)
def test_all_values_can_be_replaced_for_a_fault(exposition):
    page = exposition().constant("NaN")
    values = [s.value for f in text_string_to_metric_families(page) for s in f.samples]
    assert values
    assert all(v != v for v in values)  # noqa: PLR0124 - NaN alone differs from itself


# ---------------------------------------------------------------- vLLM


def families(text: str) -> dict[str, dict[str, object]]:
    """By family name as written: type, label names of its samples, label rows beside engine and model, buckets."""
    found: dict[str, dict[str, object]] = {}
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.MULTILINE))
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels = re.match(r"([^{ ]+)(?:\{(.*)\})? \S+$", line).groups()
        family = name if name in kinds else re.sub("_(bucket|count|sum)$", "", name)
        parsed = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or ""))
        entry = found.setdefault(family, {"kind": kinds[family], "labels": set(), "rows": [], "order": []})
        entry["labels"].add((name, tuple(parsed)))
        keep = {k: v for k, v in parsed.items() if k not in {"engine", "model_name"}}
        if family != "vllm:cache_config_info":
            entry["rows"].append((name, tuple(keep.items())))
    return found


@pytest.mark.skipif(not REAL.is_file(), reason=f"the recorded page of a real vLLM is not at {REAL}")
def test_the_current_page_has_the_families_types_labels_and_buckets_of_a_real_vllm():
    pool = pool_with(vllm)
    pool.advance(5.0)
    ours, real = families(pool.metrics("a")), families(REAL.read_text())
    assert list(ours) == [name for name in real if name.startswith("vllm:")]
    for name, family in ours.items():
        assert family == real[name], name


@pytest.mark.skipif(not REAL.is_file(), reason=f"the recorded page of a real vLLM is not at {REAL}")
def test_what_both_generations_have_is_written_alike():
    pool = pool_with(lambda: vllm("previous"))
    ours, real = families(pool.metrics("a")), families(REAL.read_text())
    gone = {
        "vllm:gpu_cache_usage_perc",
        "vllm:gpu_prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_hits_total",
        "vllm:time_per_output_token_seconds",
    }
    assert set(ours) - set(real) == gone
    for name in set(ours) - gone - {"vllm:cache_config_info", "vllm:request_success_total"}:
        assert ours[name] == real[name], name


def test_vllm_counts_live_what_is_live_and_the_rest_at_the_end():
    pool = pool_with(vllm)
    pool.advance(1.0)
    page, now = pool.metrics("a"), pool.pods["a"].engines[0].reading()
    assert 0 < now.generated_tokens < 1200
    assert value(page, "vllm:generation_tokens_total") == now.generated_tokens
    assert value(page, "vllm:num_requests_running") == 4
    assert value(page, "vllm:num_requests_waiting") == 2
    assert value(page, "vllm:num_requests_waiting_by_reason", reason="capacity") == 2
    assert value(page, "vllm:kv_cache_usage_perc") == pytest.approx(now.kv_used_tokens / 2_097_152)
    assert value(page, "vllm:time_to_first_token_seconds_count") == 4
    assert value(page, "vllm:inter_token_latency_seconds_count") == now.generated_tokens - 4
    assert value(page, "vllm:iteration_tokens_total_sum") == now.generated_tokens + now.prompt_tokens
    for at_the_end in ("vllm:request_generation_tokens", "vllm:request_queue_time_seconds"):
        assert value(page, f"{at_the_end}_count") == 0
    pool.advance(60.0)
    page = pool.metrics("a")
    assert value(page, "vllm:generation_tokens_total") == value(page, "vllm:request_generation_tokens_sum")
    assert value(page, "vllm:request_success_total", finished_reason="stop") == 6
    assert value(page, "vllm:request_queue_time_seconds_count") == 6
    assert value(page, "vllm:request_queue_time_seconds_bucket", le="2.5") == 4


def test_an_abort_on_vllm_leaves_tokens_and_nothing_else():
    pool = pool_with(vllm, requests=1)
    pool.advance(1.0)
    pool.pods["a"].engines[0].abort(0, at_seconds=1.0)
    pool.advance(2.0)
    page = pool.metrics("a")
    assert value(page, "vllm:num_requests_running") == 0
    assert value(page, "vllm:generation_tokens_total") > 50
    assert value(page, "vllm:time_to_first_token_seconds_count") == 1
    assert value(page, "vllm:request_generation_tokens_sum") == 0
    assert value(page, "vllm:request_success_total", finished_reason="abort") == 0
    assert value(page, "vllm:request_queue_time_seconds_count") == 0


def test_a_restart_resets_every_counter():
    pool = pool_with(vllm)
    pool.advance(60.0)
    assert value(pool.metrics("a"), "vllm:generation_tokens_total") > 0
    pool.restart("a", at_seconds=61.0)
    fresh = samples(pool.metrics("a"))
    assert {name for (name, _), v in fresh.items() if v} == {
        "vllm:engine_sleep_state",
        "vllm:cache_config_info",
    }


def test_the_cache_configuration_is_in_labels():
    page = pool_with(vllm).metrics("a")
    (labels,) = [dict(ls) for (n, ls) in samples(page) if n == "vllm:cache_config_info"]
    assert labels["kv_cache_size_tokens"] == "2097152"
    assert labels["kv_cache_max_concurrency"] == "128.0"
    assert int(labels["num_gpu_blocks"]) * int(labels["block_size"]) == 2_097_152
    assert "model_name" not in labels


def test_the_previous_generation_has_no_token_capacity_label():
    page = pool_with(lambda: vllm("previous")).metrics("a")
    (labels,) = [dict(ls) for (n, ls) in samples(page) if n == "vllm:cache_config_info"]
    assert "kv_cache_size_tokens" not in labels
    assert labels["num_gpu_blocks"] == "131072"


def test_each_engine_of_a_pod_has_its_own_series():
    pool = pool_with(lambda: vllm(engines=2), engines=2)
    pool.advance(1.0)
    page = pool.metrics("a")
    assert [value(page, "vllm:num_requests_running", engine=rank) for rank in "01"] == [3, 3]
    assert value(page, "vllm:admission_rejections_total", reason="max_num_queued_reqs") == 0


def test_labels_are_escaped_and_percent_signs_survive():
    exposition = VllmExposition(profile=PROFILE, model_name='a"b\\c 100%s')
    pool = Pool(profile=PROFILE, exposition=lambda: exposition)
    pool.add("a", at_seconds=0.0)
    names = {dict(ls).get("model_name") for _, ls in samples(pool.metrics("a"))}
    assert names == {'a"b\\c 100%s', None}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0.0"),
        (3, "3.0"),
        (0.25, "0.25"),
        (999_999, "999999.0"),
        (1_000_000, "1e+06"),
        (2_097_152, "2.097152e+06"),
    ],
)
def test_numbers_are_written_as_the_python_client_writes_them(number, text):
    assert go_float(number) == text


# ---------------------------------------------------------------- SGLang


def test_sglang_counts_arrivals_at_the_door_and_tokens_at_the_end():
    pool = pool_with(sglang)
    pool.advance(1.0)
    page, now = pool.metrics("a"), pool.pods["a"].engines[0].reading()
    assert value(page, "sglang:http_requests_total", endpoint="/v1/chat/completions") == 6
    assert value(page, "sglang:http_requests_active") == 6
    assert (value(page, "sglang:num_running_reqs"), value(page, "sglang:num_queue_reqs")) == (4, 2)
    assert value(page, "sglang:decode_sum_seq_lens") == now.kv_used_tokens
    assert value(page, "sglang:max_total_num_tokens") == 2_097_152
    assert value(page, "sglang:realtime_tokens_total", mode="decode") == now.generated_tokens - 4
    assert value(page, "sglang:queue_time_seconds_count") == 4
    assert value(page, "sglang:generation_tokens_total") == 0
    pool.advance(60.0)
    page = pool.metrics("a")
    assert value(page, "sglang:generation_tokens_total") == sum(300 + i for i in range(6))
    assert value(page, "sglang:generation_tokens_histogram_sum") == sum(300 + i for i in range(6))
    assert value(page, "sglang:prompt_tokens_total") == 300


def test_sglang_counts_an_abort():
    pool = pool_with(sglang, requests=1)
    pool.pods["a"].engines[0].abort(0, at_seconds=0.5)
    pool.advance(1.0)
    assert value(pool.metrics("a"), "sglang:num_aborted_requests_total") == 1
    assert value(pool.metrics("a"), "sglang:http_requests_total") == 1


def test_an_idle_sglang_shows_its_last_batch_for_30_seconds():
    pool = pool_with(sglang, requests=1, output=100)
    pool.advance(20.0)
    engine = pool.pods["a"].engines[0]
    assert engine.reading().running_requests == 0
    assert value(pool.metrics("a"), "sglang:num_running_reqs") == 1
    assert value(pool.metrics("a"), "sglang:decode_sum_seq_lens") == 150
    pool.advance(engine.idle_since_seconds + 30.0)
    assert value(pool.metrics("a"), "sglang:num_running_reqs") == 0
    assert value(pool.metrics("a"), "sglang:decode_sum_seq_lens") == 0


def test_label_sets_of_sglang_differ_by_the_process_that_writes_them():
    page = pool_with(sglang).metrics("a")
    labels = {name: {key for key, _ in ls} for name, ls in samples(page)}
    ranks = {"tp_rank", "pp_rank", "moe_ep_rank"}
    assert labels["sglang:num_running_reqs"] == {"model_name", "engine_type", *ranks}
    assert labels["sglang:generation_tokens_total"] == {"model_name", "engine_type", "is_streaming"}
    assert labels["sglang:http_requests_total"] == {"endpoint", "method"}


# ---------------------------------------------------------------- witnesses


def test_gpu_activity_is_told_per_pod_and_gpu():
    pool = pool_with(vllm, requests=1, output=100)
    pool.add("b", at_seconds=0.0)
    pool.advance(60.0)
    pool.submit(
        Request(id=99, arrived_seconds=60.0, prompt_tokens=5, output_tokens=16_000, max_tokens=16_000),
        at_seconds=60.0,
    )
    pool.advance(75.0)
    page = gpu_page([("ns", pool.pods.values())])
    assert value(page, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", namespace="ns", pod="a") == pytest.approx(0.5)
    assert value(page, "DCGM_FI_DEV_GPU_UTIL", pod="a", gpu="0") == 50
    assert value(page, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", pod="b") == 0


def test_the_gateway_queue_has_the_labels_of_llm_d():
    page = gateway_page(inference_pool="pool", model_name="tiny", queued_requests=7)
    ((name, labels),) = samples(page)
    assert name == "llm_d_epp_flow_control_queue_size"
    assert {k for k, _ in labels} == {
        "fairness_id",
        "priority",
        "inference_pool",
        "model_name",
        "target_model_name",
    }
    assert value(page, name) == 7
