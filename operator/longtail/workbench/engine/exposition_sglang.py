"""What SGLang 0.5.23 writes on /metrics (``--enable-metrics``), as far as an autoscaler can use it.

Names, labels, buckets and the moments of counting follow the metric definitions in its published wheel.
Scheduler series carry the ranks, tokenizer series do not, HTTP series carry neither ranks nor model.
Arrivals are counted at the door, decode tokens live (``realtime_tokens``), the queue time when a request is
scheduled, everything else about a request at its end.

Gauges: SGLang refreshes them every 40 decode steps, at a prefill, and when idle only every 30 s. The last is
modelled, because it shows: an idle engine goes on reporting its last batch for up to 30 s. The 40 steps are
not (at most 40 x TPOT, about 1 s, below any scrape interval). One engine per pod: data-parallel ranks are
not modelled.
"""

from collections.abc import Sequence
from functools import lru_cache

from longtail.workbench.engine.exposition import NO_LABELS, Family, Kind, Labels, Template
from longtail.workbench.engine.histogram import Histogram
from longtail.workbench.engine.model import Replica
from longtail.workbench.engine.request import Outcome, Reading, Recorder, Request, StepRun

IDLE_REFRESH_SECONDS = 30.0
ENDPOINT = "/v1/chat/completions"

_K = 1000
_LENGTHS = (
    *(
        100,
        300,
        500,
        700,
        1 * _K,
        1500,
        2 * _K,
        3 * _K,
        4 * _K,
        5 * _K,
        6 * _K,
        7 * _K,
        8 * _K,
        9 * _K,
        10 * _K,
    ),
    *(12_500, 15 * _K, 17_500, 20 * _K, 22_500, 25 * _K, 27_500, 30 * _K, 35 * _K, 40 * _K, 60 * _K, 80 * _K),
    *(100 * _K, 200 * _K, 300 * _K, 400 * _K, 600 * _K, 800 * _K, 1_000_000, 1_100_000),
)
_TTFT = (0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400)
_LATENCY = (*_TTFT, 600, 1200, 1800, 2400)
_GAP = (
    *(0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4),
    *(0.6, 0.8, 1, 2, 4, 6, 8),
)
_QUEUE = (
    *(
        0.0,
        0.001,
        0.005,
        0.01,
        0.05,
        0.1,
        0.2,
        0.5,
        1,
        2,
        3,
        4,
        5,
        10,
        15,
        20,
        30,
        40,
        50,
        60,
        70,
        80,
        90,
        100,
    ),
    *(200, 300, 400, 500, 600, 700, 800, 900, 1000, 1200, 1400, 1600, 1800, 2000, 2500, 3000),
)
_RANKS = ("tp_rank", "pp_rank", "moe_ep_rank")
_STREAMING: tuple[Labels, ...] = ({"is_streaming": "true"},)


class SglangRecorder(Recorder):
    """The histograms and end-of-request counters of one SGLang engine."""

    def __init__(self) -> None:
        self.prompt_tokens = Histogram(_LENGTHS)
        self.generation_tokens = Histogram(_LENGTHS)
        self.queue_seconds = Histogram(_QUEUE)
        self.first_token_seconds = Histogram(_TTFT)
        self.gap_seconds = Histogram(_GAP)
        self.request_gap_seconds = Histogram(_GAP)
        self.end_to_end_seconds = Histogram(_LATENCY)

    def started(self, request: Request, *, at_seconds: float, waited_seconds: float) -> None:  # noqa: ARG002
        """Counted at once."""
        self.queue_seconds.observe(waited_seconds)

    def first_token(self, request: Request, *, after_seconds: float) -> None:  # noqa: ARG002
        """Counted at once (all our requests stream)."""
        self.first_token_seconds.observe(after_seconds)

    def stepped(self, run: StepRun) -> None:
        """Counted at once."""
        self.gap_seconds.observe_run(run)

    def resumed(self, *, gap_seconds: float) -> None:
        """A retraction is one long gap."""
        self.gap_seconds.observe(gap_seconds)

    def finished(self, outcome: Outcome) -> None:
        """Lengths and latencies, at the end."""
        request = outcome.request
        decode = outcome.finished_seconds - outcome.first_token_seconds
        self.prompt_tokens.observe(request.prompt_tokens)
        self.generation_tokens.observe(request.output_tokens)
        self.request_gap_seconds.observe(decode / max(1, request.output_tokens - 1))
        self.end_to_end_seconds.observe(outcome.finished_seconds - outcome.queued_seconds)

    def values(self, replica: Replica) -> dict[str, Sequence[float]]:
        """Samples by family name."""
        now = replica.reading()
        gaps = self.gap_seconds
        if (run := replica.open_run()) is not None:
            gaps = gaps.copy()
            gaps.observe_run(run)
        prompts = self.prompt_tokens.samples()
        active = now.running_requests + now.waiting_requests
        return {
            **_gauges(replica, now),
            "sglang:num_queue_reqs": (now.waiting_requests,),
            "sglang:num_retracted_requests_total": (now.preemptions,),
            "sglang:num_retracted_output_tokens_total": (now.preempted_tokens,),
            "sglang:queue_time_seconds": self.queue_seconds.samples(),
            # The first token of a request is the prefill's, all others are decode's.
            "sglang:realtime_tokens_total": (now.prefill_tokens, 0, now.generated_tokens - now.first_tokens),
            "sglang:prompt_tokens_total": (prompts[-1],),
            "sglang:generation_tokens_total": (now.finished_tokens,),
            "sglang:prompt_tokens_histogram": prompts,
            "sglang:uncached_prompt_tokens_histogram": prompts,
            "sglang:generation_tokens_histogram": self.generation_tokens.samples(),
            "sglang:num_requests_total": (now.finished_requests,),
            "sglang:num_aborted_requests_total": (now.aborted_requests,),
            "sglang:time_to_first_token_seconds": self.first_token_seconds.samples(),
            "sglang:inter_token_latency_seconds": gaps.samples(),
            "sglang:request_time_per_output_token_seconds": self.request_gap_seconds.samples(),
            "sglang:e2e_request_latency_seconds": self.end_to_end_seconds.samples(),
            "sglang:http_requests_total": (now.arrived_requests,),
            "sglang:http_responses_total": (now.first_tokens,),
            "sglang:http_requests_active": (active,),
        }


def _gauges(replica: Replica, now: Reading) -> dict[str, Sequence[float]]:
    """What the scheduler last published: now while busy, the last batch for a while after."""
    profile = replica.profile
    running, kv_tokens = now.running_requests, now.kv_used_tokens
    open_run = replica.open_run()
    rate = running / profile.step_seconds(batch=running, kv_tokens=kv_tokens) if open_run else 0.0
    if running == 0 and now.at_seconds - replica.idle_since_seconds < IDLE_REFRESH_SECONDS:
        running, kv_tokens = replica.last_busy_requests, replica.last_busy_kv_tokens
        rate = running / profile.step_seconds(batch=running, kv_tokens=kv_tokens)
    usage = kv_tokens / profile.kv_capacity_tokens
    return {
        "sglang:num_running_reqs": (running,),
        "sglang:gen_throughput": (rate,),
        "sglang:decode_sum_seq_lens": (kv_tokens,),
        "sglang:token_usage": (usage,),
        "sglang:full_token_usage": (usage,),
        "sglang:num_used_tokens": (kv_tokens,),
        "sglang:kv_available_tokens": (profile.kv_capacity_tokens - kv_tokens,),
        "sglang:kv_used_tokens": (kv_tokens,),
        "sglang:max_total_num_tokens": (profile.kv_capacity_tokens,),
        "sglang:page_size": (1,),
        "sglang:num_pages": (profile.kv_capacity_tokens,),
        "sglang:context_len": (profile.max_model_len_tokens,),
    }


class SglangExposition:
    """The /metrics page of one SGLang pod."""

    def __init__(self, *, model_name: str, engines: int = 1) -> None:
        if engines != 1:
            raise ValueError(f"SglangExposition: one engine per pod is modelled, got engines={engines}")
        self.template = _template(model_name)
        self.recorders = [SglangRecorder()]

    def render(self, replicas: Sequence[Replica]) -> str:
        """The page now."""
        pairs = zip(self.recorders, replicas, strict=True)
        return self.template.render([recorder.values(replica) for recorder, replica in pairs])

    def constant(self, value: str) -> str:
        """The page with the same string in the place of every value."""
        return self.template.render_constant(value)


@lru_cache(maxsize=256)
def _template(model_name: str) -> Template:
    ranks = dict.fromkeys(_RANKS, "0")
    return Template(_families(), engines=[{"model_name": model_name, "engine_type": "unified", **ranks}])


def _scheduler(name: str, documentation: str, *rows: Labels) -> Family:
    kind: Kind = "counter" if name.endswith("_total") else "gauge"
    return Family(name=f"sglang:{name}", kind=kind, documentation=documentation, rows=rows or (NO_LABELS,))


def _tokenizer(name: str, documentation: str, *rows: Labels, bounds: tuple[float, ...] = ()) -> Family:
    return Family(
        name=f"sglang:{name}",
        kind="histogram" if bounds else "counter",
        documentation=documentation,
        rows=rows or (NO_LABELS,),
        bounds=bounds,
        without=_RANKS,
    )


def _http(name: str, documentation: str, row: Labels) -> Family:
    return Family(
        name=f"sglang:{name}",
        kind="counter" if name.endswith("_total") else "gauge",
        documentation=documentation,
        rows=({"endpoint": ENDPOINT, "method": "POST", **row},),
        without=("model_name", "engine_type", *_RANKS),
    )


def _families() -> list[Family]:
    modes = tuple({"mode": mode} for mode in ("prefill_compute", "prefill_cache", "decode"))
    return [
        _scheduler("num_running_reqs", "Requests in the batch."),
        _scheduler("num_queue_reqs", "Requests in the queue."),
        _scheduler("num_grammar_queue_reqs", "Requests that wait for a grammar."),
        _scheduler("gen_throughput", "Output tokens per second, of late."),
        _scheduler("cache_hit_rate", "Share of prompt tokens found in the prefix cache."),
        _scheduler("decode_sum_seq_lens", "Prompt and output tokens of the batch."),
        _scheduler("token_usage", "Share of the KV cache in use, over pools the largest."),
        _scheduler("full_token_usage", "Share of the full-attention KV cache in use."),
        _scheduler("num_used_tokens", "Tokens in use."),
        _scheduler("kv_available_tokens", "Free token slots of the KV cache."),
        _scheduler("kv_evictable_tokens", "Token slots held by the prefix cache alone."),
        _scheduler("kv_used_tokens", "Token slots in use."),
        _scheduler("num_retracted_reqs", "Requests retracted in the last step."),
        _scheduler("num_retracted_requests_total", "Requests retracted."),
        _scheduler("num_retracted_output_tokens_total", "Output tokens of retracted requests."),
        _scheduler("utilization", "Never set by this version."),
        Family(
            name="sglang:queue_time_seconds",
            kind="histogram",
            documentation="From arrival to first scheduling.",
            bounds=_QUEUE,
        ),
        _scheduler("realtime_tokens_total", "Tokens processed, live.", *modes),
        _scheduler("max_total_num_tokens", "Token slots of the KV cache."),
        _scheduler("page_size", "Tokens per page of the KV cache."),
        _scheduler("num_pages", "Pages of the KV cache."),
        _scheduler("context_len", "Longest sequence."),
        _tokenizer("prompt_tokens_total", "Prompt tokens of finished requests.", *_STREAMING),
        _tokenizer("generation_tokens_total", "Output tokens of finished requests.", *_STREAMING),
        _tokenizer("prompt_tokens_histogram", "Prompt tokens of finished requests.", bounds=_LENGTHS),
        _tokenizer("uncached_prompt_tokens_histogram", "Prompt tokens computed.", bounds=_LENGTHS),
        _tokenizer("generation_tokens_histogram", "Output tokens of finished requests.", bounds=_LENGTHS),
        _tokenizer("num_requests_total", "Requests finished.", *_STREAMING),
        _tokenizer("num_aborted_requests_total", "Requests aborted."),
        _tokenizer("time_to_first_token_seconds", "From arrival to first token.", *_STREAMING, bounds=_TTFT),
        _tokenizer("inter_token_latency_seconds", "From token to token.", bounds=_GAP),
        _tokenizer("request_time_per_output_token_seconds", "Mean gap.", *_STREAMING, bounds=_GAP),
        _tokenizer("e2e_request_latency_seconds", "Arrival to last token.", *_STREAMING, bounds=_LATENCY),
        _http("http_requests_total", "HTTP requests received.", NO_LABELS),
        _http("http_responses_total", "HTTP responses begun.", {"status_code": "200"}),
        _http("http_requests_active", "HTTP requests under way.", NO_LABELS),
    ]
