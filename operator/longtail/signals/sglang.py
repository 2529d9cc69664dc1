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

from longtail.signals.promql import aggregated
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
    (Series.FINISHED_TOKENS, "sglang:generation_tokens_histogram_sum"),
    (Series.PROMPT_TOKENS, "sglang:prompt_tokens_histogram_sum"),
    (Series.FIRST_TOKENS, "sglang:time_to_first_token_seconds_count"),
    (Series.ARRIVALS, f'sglang:http_requests_total{{endpoint=~"{_GENERATION_ENDPOINTS}"}}'),
)


def parts(labels: LabelNames) -> tuple[Part, ...]:
    """All series of SGLang."""
    pod = (labels.namespace, labels.pod)
    rank = (*pod, _RANK)

    def level(series: Series, metric: str) -> Part:
        expression = aggregated("sum", aggregated("max", metric, rank), pod)
        return Part(ENGINE, series, expression, object_label=labels.pod)

    def counter(series: Series, expression: str, rank_label: str = "") -> Part:
        return Part(ENGINE, series, expression, object_label=labels.pod, rank_label=rank_label, lazy=True)

    def tokenizer_histogram(series: Series, metric: str) -> Part:
        return counter(series, aggregated("sum", metric, (*pod, "le")))

    return (
        *(level(series, metric) for series, metric in _LEVELS),
        *(counter(series, aggregated("max", metric, rank), _RANK) for series, metric in _SCHEDULER_COUNTERS),
        *(counter(series, aggregated("sum", metric, pod)) for series, metric in _TOKENIZER_COUNTERS),
        tokenizer_histogram(Series.OUTPUT_LENGTH, "sglang:generation_tokens_histogram_bucket"),
        tokenizer_histogram(
            Series.FIRST_TOKEN_WAIT, 'sglang:time_to_first_token_seconds_bucket{is_streaming!="false"}'
        ),
        counter(Series.QUEUE_WAIT, aggregated("max", "sglang:queue_time_seconds_bucket", (*rank, "le")), _RANK),
        Part(
            ENGINE,
            Series.SAMPLE_AGE,
            aggregated("max", age_of("sglang:num_running_reqs"), pod),
            object_label=labels.pod,
        ),
    )
