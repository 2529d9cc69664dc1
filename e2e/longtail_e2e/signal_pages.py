"""Metrics pages with a trap in each: what is told twice, under two names, or not at first."""

from __future__ import annotations

from typing import Final

from longtail.signals import classes
from longtail.signals.custom import CustomNames
from longtail_e2e.pages import page

_CONFIG: Final = 'cache_dtype="auto",enable_prefix_caching="True",block_size="16"'

VLLM: Final = {
    "ranks": page(
        'vllm:num_requests_running{engine="0",model_name="m"} 4',
        'vllm:num_requests_running{engine="1",model_name="m"} 6',
        'vllm:num_requests_waiting{engine="0",model_name="m"} 1',
        'vllm:num_requests_waiting{engine="1",model_name="m"} 2',
        'vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 1',
        'vllm:num_requests_waiting_by_reason{engine="1",model_name="m",reason="deferred"} 2',
        'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5',
        'vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.25',
        f'vllm:cache_config_info{{engine="0",{_CONFIG},num_gpu_blocks="1000",kv_cache_size_tokens="None"}} 1',
        f'vllm:cache_config_info{{engine="1",{_CONFIG},num_gpu_blocks="9",kv_cache_size_tokens="40000"}} 1',
    ),
    "both-names": page(
        'vllm:num_requests_running{engine="0",model_name="m"} 4',
        'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5',
        'vllm:gpu_cache_usage_perc{engine="0",model_name="m"} 0.5',
        f'vllm:cache_config_info{{engine="0",{_CONFIG},num_gpu_blocks="1000"}} 1',
    ),
    "old-names": page(
        'vllm:num_requests_running{model_name="m"} 2',
        'vllm:gpu_cache_usage_perc{model_name="m"} 0.25',
        f'vllm:cache_config_info{{{_CONFIG},num_gpu_blocks="1000"}} 1',
    ),
    "loud": page('vllm:num_requests_running{engine="0",model_name="m"} 4'),
    "silent": page('vllm:num_requests_running{engine="0",model_name="m"} 5'),
}


def sglang(*, written: tuple[int, int], late: bool) -> str:
    """Two data-parallel ranks, each repeated by two tensor ranks and two pipeline stages; priorities beside."""
    lines = []
    for dp, running, kv in ((0, 5, 700), (1, 3, 300)):
        for tp, pp in ((0, 0), (0, 1), (1, 0), (1, 1)):
            labels = f'dp_rank="{dp}",engine_type="unified",model_name="m",pp_rank="{pp}",tp_rank="{tp}"'
            total = f'{labels},priority=""'
            lines += [
                f"sglang:num_running_reqs{{{total}}} {running}",
                f'sglang:num_running_reqs{{{labels},priority="1"}} {running}',
                f"sglang:num_queue_reqs{{{total}}} 1",
                f'sglang:num_queue_reqs{{{labels},priority="1"}} 1',
                f"sglang:kv_used_tokens{{{total}}} {kv}",
                f"sglang:max_total_num_tokens{{{total}}} 8000",
                f"sglang:decode_sum_seq_lens{{{total}}} {kv}",
                f'sglang:realtime_tokens_total{{{total},mode="decode"}} {written[dp]}',
                f'sglang:realtime_tokens_total{{{total},mode="prefill_compute"}} 99999',
            ]
    tokenizer = 'engine_type="unified",model_name="m",is_streaming="{}"'.format
    for kind, count in (("true", 3), ("false", 4)):
        if kind == "true" or late:
            lines += [
                f'sglang:time_to_first_token_seconds_bucket{{{tokenizer(kind)},le="+Inf"}} {count}',
                f"sglang:time_to_first_token_seconds_count{{{tokenizer(kind)}}} {count}",
            ]
    lines.append('sglang:http_requests_total{endpoint="/metrics",method="GET"} 500')
    if late:
        lines += [
            'sglang:http_requests_total{endpoint="/v1/chat/completions",method="POST"} 8',
            'sglang:http_requests_total{endpoint="/generate",method="POST"} 2',
        ]
    return page(*lines)


def gpus(prefix: str, *, namespace: str) -> str:
    """GPUs of two pods, told by two metrics of which one knows better, and one GPU of nobody's."""
    where = f'namespace="{namespace}",pod="{prefix}'
    return page(
        f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{gpu="0",{where}-a"}} 0.5',
        f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{gpu="1",{where}-a"}} 0.75',
        f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",{where}-a"}} 99',
        f'DCGM_FI_DEV_GPU_UTIL{{gpu="2",{where}-b"}} 40',
        'DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="3"} 0.0',
    )


def picker(*, queued: bool) -> str:
    """A gateway that tells its queue under an old and a new prefix, as soon as it holds something back."""
    flow = 'inference_pool="pool",fairness_id="x",priority'
    queues = [
        f'{prefix}_flow_control_queue_size{{{flow}="{priority}"}} {size}'
        for prefix in ("llm_d_epp", "inference_extension")
        for priority, size in ((0, 5), (1, 6))
    ]
    gate = 'llm_d_epp_flow_control_pool_saturation{inference_pool="pool",stage="effective"} 0.3'
    return page(gate, *(queues if queued else ()))


def proxy(*, output: int, reasoning: int) -> str:
    """A proxy that counts reasoning, by team."""
    labels = 'model="vllm/r1",requested_model="deepseek/r1",team'
    return page(
        f'litellm_output_tokens_metric_total{{{labels}="a"}} {output}',
        f'litellm_output_tokens_metric_total{{{labels}="b"}} {output}',
        f'litellm_output_reasoning_tokens_metric_total{{{labels}="a"}} {reasoning}',
        f'litellm_output_reasoning_tokens_metric_total{{{labels}="b"}} {reasoning}',
    )


TEAMS: Final = [f"t{number:02}" for number in range(classes.MOST + 4)]
"""More than are told apart."""


def divided(*, late: bool, model: str) -> str:
    """A proxy before and after: each team has answers of a thousand tokens, the higher its number the more of them.

    All series are there from the start: ``increase()`` does not see a first value.
    """
    lines = ["# TYPE litellm_request_total_latency_metric histogram"]
    for number, team in enumerate([*TEAMS, "None"]):
        answers = (14 if late else 10) * (number + 1)
        for requested, times in ((model, 1), ("somebody/elses", 100)):
            # A series for each key, as the proxy has them.
            for key in ("k1", "k2"):
                labels = f'api_key_alias="{key}",model="r1",requested_model="{requested}",team="{team}"'
                half = times * answers / 2
                lines += [
                    f'litellm_request_total_latency_metric_bucket{{{labels},le="600.0"}} {half}',
                    f'litellm_request_total_latency_metric_bucket{{{labels},le="+Inf"}} {half}',
                    f"litellm_request_total_latency_metric_sum{{{labels}}} {half}",
                    f"litellm_request_total_latency_metric_count{{{labels}}} {half}",
                    f"litellm_output_tokens_metric_total{{{labels}}} {1000 * half}",
                    *([f"litellm_output_reasoning_tokens_metric_total{{{labels}}} {800 * half}"] if number % 2 else []),
                ]
    return page(*lines)


CUSTOM: Final = CustomNames(
    running_requests="trtllm_num_requests_running",
    kv_used_ratio="trtllm_kv_cache_utilization",
    kv_capacity_tokens="my_kv_tokens",
    arrivals="my_requests_total",
    output_tokens_histogram="my_output_tokens",
)


def custom(*, arrived: int, short: int, finished: int) -> str:
    """An engine that nobody knows, with names of its own."""
    return page(
        "trtllm_num_requests_running 7",
        "trtllm_kv_cache_utilization 0.5",
        "my_kv_tokens 8000",
        f"my_requests_total {arrived}",
        f'my_output_tokens_bucket{{le="1000"}} {short}',
        f'my_output_tokens_bucket{{le="+Inf"}} {finished}',
    )
