"""SGLang's vocabulary (read in the 0.5.23 wheel; it needs ``--enable-metrics``).

Traps, with where they are handled:

* Scheduler series: with ``--enable-metrics-for-all-schedulers`` every tensor-parallel rank repeats the
  value, and every pipeline stage of a data-parallel rank always does. So ``max`` over all ranks within a
  ``dp_rank``, and only those are summed.
* With priority scheduling the total sits at ``priority=""`` and each priority has its own series beside it.
* Tokenizer series have one writer and no ranks: they are summed over their labels (``is_streaming``
  splits them).
* ``generation_tokens_total`` and ``num_requests_total`` move when a request *ends*; ``realtime_tokens_total``
  is the live one. ``http_requests_total`` counts at the door: a true arrival counter.
* A non-streaming request reports its "first token" with its whole answer, so the wait is taken from streaming
  requests, the count from all.
* Counters appear with their first event: absent on a pod that reports means zero.
"""

from typing import Final

from longtail.signals.promql import aggregated, histogram
from longtail.signals.sources import LabelNames
from longtail.signals.vocabulary import Part, Series, age_of

ENGINE: Final = "sglang"
_RANK: Final = "dp_rank"

_GENERATION_ENDPOINTS: Final = "/v1/(chat/completions|completions|responses|messages)|/generate"

_LEVELS: Final = (
    (Series.RUNNING, 'sglang:num_running_reqs{priority=""}'),
    (Series.WAITING, 'sglang:num_queue_reqs{priority=""}'),
    (Series.KV_USED, "sglang:kv_used_tokens"),
    (Series.KV_CAPACITY, "sglang:max_total_num_tokens"),
    (Series.DECODE_SUM, "sglang:decode_sum_seq_lens"),
)
_SCHEDULER_COUNTERS: Final = (
    (Series.GENERATED, 'sglang:realtime_tokens_total{mode="decode"}'),
    (Series.PREEMPTIONS, "sglang:num_retracted_requests_total"),
)
_TOKENIZER_COUNTERS: Final = (
    (Series.ARRIVALS, f'sglang:http_requests_total{{endpoint=~"{_GENERATION_ENDPOINTS}"}}'),
    (Series.ABORTED, "sglang:num_aborted_requests_total"),
)
_TOKENIZER_HISTOGRAMS: Final = (
    (Series.FINISHED_TOKENS, "sglang:generation_tokens_histogram", "sum", ""),
    (Series.PROMPT_TOKENS, "sglang:prompt_tokens_histogram", "sum", ""),
    (Series.FIRST_TOKENS, "sglang:time_to_first_token_seconds", "count", ""),
    (Series.OUTPUT_LENGTH, "sglang:generation_tokens_histogram", "bucket", ""),
    (Series.FIRST_TOKEN_WAIT, "sglang:time_to_first_token_seconds", "bucket", '{is_streaming!="false"}'),
)
"""Which figure of which histogram, and of which series of it."""


def parts(labels: LabelNames) -> tuple[Part, ...]:
    """All series of SGLang."""
    pod = (labels.namespace, labels.pod)
    rank = (*pod, _RANK)

    def level(series: Series, metric: str) -> Part:
        expression = aggregated("sum", aggregated("max", metric, rank), pod)
        return Part(ENGINE, series, expression, object_label=labels.pod)

    def counter(series: Series, expression: str, rank_label: str = "", native: str = "") -> Part:
        return Part(
            ENGINE, series, expression, object_label=labels.pod, rank_label=rank_label, native=native, lazy=True
        )

    # Copies of one scheduler's histogram: PromQL takes no maximum of native ones, so of those the first stage speaks.
    queue_wait = aggregated("max", "sglang:queue_time_seconds_bucket", (*rank, "le"))
    first_copy = aggregated("sum", 'sglang:queue_time_seconds{pp_rank=~"0|",tp_rank=~"0|"}', rank)

    return (
        *(level(series, metric) for series, metric in _LEVELS),
        *(counter(series, aggregated("max", metric, rank), _RANK) for series, metric in _SCHEDULER_COUNTERS),
        *(counter(series, aggregated("sum", metric, pod)) for series, metric in _TOKENIZER_COUNTERS),
        *(
            counter(series, histogram(name, figure, pod, selector=selector), native=figure)
            for series, name, figure, selector in _TOKENIZER_HISTOGRAMS
        ),
        counter(Series.QUEUE_WAIT, f"({queue_wait} or {first_copy})", _RANK, "bucket"),
        Part(
            ENGINE,
            Series.SAMPLE_AGE,
            aggregated("max", age_of("sglang:num_running_reqs"), pod),
            object_label=labels.pod,
        ),
    )
