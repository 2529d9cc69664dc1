"""vLLM's vocabulary: the V1 engine's names (read from a running 0.32 and in 0.33), and the generation before.

Traps, with where they are handled:

* One series per data-parallel rank (label ``engine``): levels are summed over ranks, counters kept apart,
  since one rank that restarts inside a pod would look like a reset of the sum.
* The KV cache's level is a ratio and its capacity a *label* of ``cache_config_info``, which PromQL cannot
  turn into a number: both are fetched by rank and multiplied here.
* ``num_requests_waiting`` holds those without room and those that wait for a LoRA slot or a KV transfer:
  all of them are owed their tokens, so the total is taken, not ``reason="capacity"`` alone.
* Old and new names are joined with ``or`` after aggregation: a pod that exposes both counts once.
* An aborted request stays in ``generation_tokens_total`` and enters nothing else: ``finished_reason="abort"`` is there
  from the start and stays at 0 (0.33). It is read all the same, for the release that counts.
"""

import math
from collections.abc import Mapping
from typing import Final

from longtail.signals.promql import aggregated, histogram
from longtail.signals.sources import LabelNames
from longtail.signals.vocabulary import Part, Series, age_of

ENGINE: Final = "vllm"
_RANK: Final = "engine"

_COUNTERS: Final = (
    (Series.GENERATED, "vllm:generation_tokens_total"),
    (Series.PREEMPTIONS, "vllm:num_preemptions_total"),
    (Series.ABORTED, 'vllm:request_success_total{finished_reason="abort"}'),
)
_HISTOGRAMS: Final = (
    (Series.FINISHED_TOKENS, "vllm:request_generation_tokens", "sum"),
    (Series.PROMPT_TOKENS, "vllm:request_prompt_tokens", "sum"),
    (Series.FIRST_TOKENS, "vllm:time_to_first_token_seconds", "count"),
    (Series.OUTPUT_LENGTH, "vllm:request_generation_tokens", "bucket"),
    (Series.QUEUE_WAIT, "vllm:request_queue_time_seconds", "bucket"),
    (Series.FIRST_TOKEN_WAIT, "vllm:time_to_first_token_seconds", "bucket"),
)
"""Which figure of which histogram."""
_CAPACITY_LABELS: Final = ("block_size", "num_gpu_blocks", "kv_cache_size_tokens")


def parts(labels: LabelNames) -> tuple[Part, ...]:
    """All series of vLLM. It creates each at start, so an absent one is unknown, not zero."""
    pod = (labels.namespace, labels.pod)
    rank = (*pod, _RANK)

    def part(series: Series, expression: str, rank_label: str = "", native: str = "") -> Part:
        return Part(ENGINE, series, expression, object_label=labels.pod, rank_label=rank_label, native=native)

    return (
        part(Series.RUNNING, aggregated("sum", "vllm:num_requests_running", pod)),
        part(Series.WAITING, aggregated("sum", "vllm:num_requests_waiting", pod)),
        part(
            Series.KV_USED_RATIO,
            f"({aggregated('max', 'vllm:kv_cache_usage_perc', rank)}"
            f" or {aggregated('max', 'vllm:gpu_cache_usage_perc', rank)})",
            _RANK,
        ),
        Part(
            ENGINE,
            Series.KV_CAPACITY,
            aggregated("max", "vllm:cache_config_info", (*rank, *_CAPACITY_LABELS)),
            object_label=labels.pod,
            rank_label=_RANK,
            value_of=kv_capacity_tokens,
        ),
        *(part(series, aggregated("sum", name, rank), _RANK) for series, name in _COUNTERS),
        *(part(series, histogram(name, figure, rank), _RANK, figure) for series, name, figure in _HISTOGRAMS),
        part(Series.SAMPLE_AGE, aggregated("max", age_of("vllm:num_requests_running"), pod)),
    )


def kv_capacity_tokens(labels: Mapping[str, str]) -> float:
    """Capacity of one rank's KV cache from the labels of ``vllm:cache_config_info``; NaN for none.

    ``kv_cache_size_tokens`` is right for hybrid models too, where blocks times block size is not; releases
    before 2026 have the product only. Any field may be the string "None".

    >>> kv_capacity_tokens({"kv_cache_size_tokens": "None", "block_size": "16", "num_gpu_blocks": "1000"})
    16000.0
    """
    stated = _number(labels.get("kv_cache_size_tokens", ""))
    if stated > 0:
        return stated
    product = _number(labels.get("block_size", "")) * _number(labels.get("num_gpu_blocks", ""))
    return product if product > 0 else math.nan


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
