"""What vLLM writes on /metrics: the current generation (0.32, 0.33) and the previous one (V1 up to 0.10).

Families, types, labels, buckets and their order follow the exposition of a real vLLM 0.32.0. No ``_created``
series: vLLM does not write them. HELP texts are our own words.

When things are counted (vLLM's ``IterationStats``): generated tokens, first tokens, inter-token gaps live;
prompt tokens at the first token; everything named ``request_*`` and ``e2e_*``, the queue time too, when a
request finishes. An aborted request therefore leaves its tokens in ``generation_tokens_total`` and itself
nowhere.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from longtail.workbench.engine.cache_config_vllm import CURRENT, PREVIOUS
from longtail.workbench.engine.exposition import NO_LABELS, Family, Labels, Template
from longtail.workbench.engine.histogram import Histogram
from longtail.workbench.engine.model import Replica
from longtail.workbench.engine.profiles import EngineProfile
from longtail.workbench.engine.request import Outcome, Recorder, Request, StepRun

Generation = Literal["current", "previous"]

_LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_TTFT = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80),
    *(160, 640, 2560),
)
_GAP = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_BLOCK_TOKENS = 16
_REASONS: dict[Generation, tuple[str, ...]] = {
    "current": ("stop", "length", "abort", "error", "repetition"),
    "previous": ("stop", "length", "abort"),
}


def length_buckets(max_model_len_tokens: int) -> tuple[float, ...]:
    """1-2-5 bounds up to the model length.

    >>> length_buckets(100)
    (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
    """
    bounds = (float(digit * 10**power) for power in itertools.count() for digit in (1, 2, 5))
    return tuple(itertools.takewhile(lambda bound: bound <= max_model_len_tokens, bounds))


class VllmRecorder(Recorder):
    """The histograms of one vLLM engine. It has no counter of arrivals, and forgets what is aborted."""

    def __init__(self, profile: EngineProfile, generation: Generation) -> None:
        lengths = length_buckets(profile.max_model_len_tokens)
        self.prompt_tokens = Histogram(lengths)
        self.generation_tokens = Histogram(lengths)
        self.max_tokens = Histogram(lengths)
        self.step_tokens = Histogram(_STEP_TOKENS)
        self.first_token_seconds = Histogram(_TTFT)
        self.gap_seconds = Histogram(_GAP)
        self.request_gap_seconds = Histogram(_GAP)
        self.end_to_end_seconds = Histogram(_LATENCY)
        self.queue_seconds = Histogram(_LATENCY)
        self.inference_seconds = Histogram(_LATENCY)
        self.prefill_seconds = Histogram(_LATENCY)
        self.decode_seconds = Histogram(_LATENCY)
        self.preemptions = Histogram((1, 2, 3, 4, 5, 10, 20))
        self.copies = Histogram((1, 2, 5, 10, 20))
        self.finished_by_reason = dict.fromkeys(_REASONS[generation], 0)

    def first_token(self, request: Request, *, after_seconds: float) -> None:  # noqa: ARG002
        """Counted at once."""
        self.first_token_seconds.observe(after_seconds)

    def stepped(self, run: StepRun) -> None:
        """Counted at once."""
        self.gap_seconds.observe_run(run)
        self.step_tokens.observe(run.batch + run.prefill_tokens, count=run.steps)

    def resumed(self, *, gap_seconds: float) -> None:
        """A preemption is one long gap."""
        self.gap_seconds.observe(gap_seconds)

    def finished(self, outcome: Outcome) -> None:
        """All that vLLM knows of a request is written at its end."""
        request = outcome.request
        decode = outcome.finished_seconds - outcome.first_token_seconds
        self.finished_by_reason[outcome.reason] += 1
        self.prompt_tokens.observe(request.prompt_tokens)
        self.generation_tokens.observe(request.output_tokens)
        self.max_tokens.observe(request.max_tokens)
        self.request_gap_seconds.observe(decode / max(1, request.output_tokens - 1))
        self.end_to_end_seconds.observe(outcome.finished_seconds - outcome.queued_seconds)
        self.queue_seconds.observe(outcome.scheduled_seconds - outcome.queued_seconds)
        self.inference_seconds.observe(outcome.finished_seconds - outcome.scheduled_seconds)
        self.prefill_seconds.observe(outcome.first_token_seconds - outcome.scheduled_seconds)
        self.decode_seconds.observe(decode)
        self.preemptions.observe(outcome.preemptions)
        self.copies.observe(1)

    def values(self, replica: Replica) -> dict[str, Sequence[float]]:
        """Samples by family name, of both generations."""
        now = replica.reading()
        gaps, step_tokens = self.gap_seconds, self.step_tokens
        if (run := replica.open_run()) is not None:
            gaps, step_tokens = gaps.copy(), step_tokens.copy()
            gaps.observe_run(run)
            step_tokens.observe(run.batch, count=run.steps)
        usage = (now.kv_used_tokens / replica.profile.kv_capacity_tokens,)
        gap_samples, max_tokens = gaps.samples(), self.max_tokens.samples()
        # Nothing is shared between our requests, so every computed prompt token was looked up and not found.
        lookups = (now.prefill_tokens,)
        return {
            "vllm:num_requests_running": (now.running_requests,),
            "vllm:num_requests_waiting": (now.waiting_requests,),
            "vllm:num_requests_waiting_by_reason": (now.waiting_requests, 0),
            "vllm:engine_sleep_state": (1, 0, 0),
            "vllm:kv_cache_usage_perc": usage,
            "vllm:gpu_cache_usage_perc": usage,
            "vllm:prefix_cache_queries_total": lookups,
            "vllm:gpu_prefix_cache_queries_total": lookups,
            "vllm:num_preemptions_total": (now.preemptions,),
            "vllm:prompt_tokens_total": (now.prompt_tokens,),
            "vllm:prompt_tokens_by_source_total": (now.prompt_tokens, 0, 0),
            "vllm:generation_tokens_total": (now.generated_tokens,),
            "vllm:request_success_total": tuple(self.finished_by_reason.values()),
            "vllm:request_prompt_tokens": self.prompt_tokens.samples(),
            "vllm:request_generation_tokens": self.generation_tokens.samples(),
            "vllm:iteration_tokens_total": step_tokens.samples(),
            "vllm:request_max_num_generation_tokens": max_tokens,
            "vllm:request_params_n": self.copies.samples(),
            "vllm:request_params_max_tokens": max_tokens,
            "vllm:time_to_first_token_seconds": self.first_token_seconds.samples(),
            "vllm:inter_token_latency_seconds": gap_samples,
            "vllm:time_per_output_token_seconds": gap_samples,
            "vllm:request_time_per_output_token_seconds": self.request_gap_seconds.samples(),
            "vllm:e2e_request_latency_seconds": self.end_to_end_seconds.samples(),
            "vllm:request_queue_time_seconds": self.queue_seconds.samples(),
            "vllm:request_inference_time_seconds": self.inference_seconds.samples(),
            "vllm:request_prefill_time_seconds": self.prefill_seconds.samples(),
            "vllm:request_decode_time_seconds": self.decode_seconds.samples(),
            "vllm:request_num_preemptions": self.preemptions.samples(),
            "vllm:request_prefill_kv_computed_tokens": self.prompt_tokens.samples(),
            "vllm:cache_config_info": (1,),
        }


class VllmExposition:
    """The /metrics page of one vLLM pod with one or several engines (data-parallel ranks)."""

    def __init__(
        self, *, profile: EngineProfile, model_name: str, engines: int = 1, generation: Generation = "current"
    ) -> None:
        self.template = _template(profile, model_name, engines, generation)
        self.recorders = [VllmRecorder(profile, generation) for _ in range(engines)]

    def render(self, replicas: Sequence[Replica]) -> str:
        """The page now, for the engines in order of their rank."""
        pairs = zip(self.recorders, replicas, strict=True)
        return self.template.render([recorder.values(replica) for recorder, replica in pairs])

    def constant(self, value: str) -> str:
        """The page with the same string in the place of every value."""
        return self.template.render_constant(value)


@lru_cache(maxsize=256)
def _template(profile: EngineProfile, model_name: str, engines: int, generation: Generation) -> Template:
    families = (_current if generation == "current" else _previous)(profile)
    return Template(families, engines=[{"model_name": model_name, "engine": str(rank)} for rank in range(engines)])


def _gauge(name: str, documentation: str, *rows: Labels) -> Family:
    return Family(name=f"vllm:{name}", kind="gauge", documentation=documentation, rows=rows or (NO_LABELS,))


def _counter(name: str, documentation: str, *rows: Labels, without: tuple[str, ...] = ()) -> Family:
    return Family(
        name=f"vllm:{name}_total",
        kind="counter",
        documentation=documentation,
        rows=rows or (NO_LABELS,),
        without=without,
    )


def _histogram(name: str, documentation: str, bounds: Sequence[float]) -> Family:
    return Family(name=f"vllm:{name}", kind="histogram", documentation=documentation, bounds=tuple(bounds))


def _by(label: str, *values: str) -> tuple[Labels, ...]:
    return tuple({label: value} for value in values)


def _current(profile: EngineProfile) -> list[Family]:
    lengths = length_buckets(profile.max_model_len_tokens)
    origins = _by("source", "local_compute", "local_cache_hit", "external_kv_transfer")
    tiers = _by("source", "device", "host", "p2p", "disk", "external_unspecified")
    states = _by("sleep_state", "awake", "weights_offloaded", "discard_all")
    reasons = _by("finished_reason", *_REASONS["current"])
    limits = _by("reason", "max_num_queued_reqs", "max_num_queued_tokens")
    return [
        _gauge("num_requests_running", "Requests in the batch."),
        _gauge("num_requests_waiting", "Requests in the queue."),
        _gauge(
            "num_requests_waiting_by_reason",
            "Requests in the queue by reason.",
            *_by("reason", "capacity", "deferred"),
        ),
        _gauge("engine_sleep_state", "1 for the state the engine is in.", *states),
        _gauge("kv_cache_usage_perc", "Share of the KV cache in use; 1 is all of it."),
        _counter("prefix_cache_queries", "Tokens looked up in the prefix cache."),
        _counter("prefix_cache_hits", "Tokens found in the prefix cache."),
        _counter("external_prefix_cache_queries", "Tokens looked up in other engines' caches."),
        _counter("external_prefix_cache_hits", "Tokens found in other engines' caches."),
        _counter("mm_cache_queries", "Items looked up in the multi-modal cache."),
        _counter("mm_cache_hits", "Items found in the multi-modal cache."),
        _counter("num_preemptions", "Preemptions."),
        _counter("prompt_tokens", "Prompt tokens processed."),
        _counter("prompt_tokens_by_source", "Prompt tokens by where they came from.", *origins),
        _counter("prompt_tokens_cached", "Prompt tokens that were cached."),
        _counter("prompt_tokens_cached_by_source", "Prompt tokens that were cached, by tier.", *tiers),
        _counter("generation_tokens", "Output tokens written."),
        _counter("request_success", "Requests finished, by reason.", *reasons),
        _counter("admission_rejections", "Requests refused at the door.", *limits, without=("engine",)),
        _histogram("request_prompt_tokens", "Prompt tokens of finished requests.", lengths),
        _histogram("request_generation_tokens", "Output tokens of finished requests.", lengths),
        _histogram("iteration_tokens_total", "Tokens per step.", _STEP_TOKENS),
        _histogram("request_max_num_generation_tokens", "Most tokens asked for, over copies.", lengths),
        _histogram("request_params_n", "Copies asked for.", (1, 2, 5, 10, 20)),
        _histogram("request_params_max_tokens", "Most tokens asked for.", lengths),
        _histogram("time_to_first_token_seconds", "From arrival to first token.", _TTFT),
        _histogram("inter_token_latency_seconds", "From token to token.", _GAP),
        _histogram("request_time_per_output_token_seconds", "Mean gap of a finished request.", _GAP),
        *_phases(),
        _histogram("request_num_preemptions", "Preemptions of a finished request.", (1, 2, 3, 4, 5, 10, 20)),
        _histogram("request_prefill_kv_computed_tokens", "Prompt tokens computed anew.", lengths),
        _cache_config(profile, CURRENT),
    ]


def _previous(profile: EngineProfile) -> list[Family]:
    lengths = length_buckets(profile.max_model_len_tokens)
    return [
        _gauge("num_requests_running", "Requests in the batch."),
        _gauge("num_requests_waiting", "Requests in the queue."),
        _gauge("gpu_cache_usage_perc", "Share of the KV cache in use; 1 is all of it."),
        _counter("gpu_prefix_cache_queries", "Tokens looked up in the prefix cache."),
        _counter("gpu_prefix_cache_hits", "Tokens found in the prefix cache."),
        _counter("num_preemptions", "Preemptions."),
        _counter("prompt_tokens", "Prompt tokens processed."),
        _counter("generation_tokens", "Output tokens written."),
        _counter("request_success", "Requests finished.", *_by("finished_reason", *_REASONS["previous"])),
        _histogram("request_prompt_tokens", "Prompt tokens of finished requests.", lengths),
        _histogram("request_generation_tokens", "Output tokens of finished requests.", lengths),
        _histogram("iteration_tokens_total", "Tokens per step.", _STEP_TOKENS),
        _histogram("request_max_num_generation_tokens", "Most tokens asked for, over copies.", lengths),
        _histogram("request_params_n", "Copies asked for.", (1, 2, 5, 10, 20)),
        _histogram("request_params_max_tokens", "Most tokens asked for.", lengths),
        _histogram("time_to_first_token_seconds", "From arrival to first token.", _TTFT),
        _histogram("time_per_output_token_seconds", "From token to token.", _GAP),
        *_phases(),
        _cache_config(profile, PREVIOUS),
    ]


def _phases() -> list[Family]:
    return [
        _histogram("e2e_request_latency_seconds", "From arrival to last token.", _LATENCY),
        _histogram("request_queue_time_seconds", "From arrival to first scheduling.", _LATENCY),
        _histogram("request_inference_time_seconds", "From first scheduling to last token.", _LATENCY),
        _histogram("request_prefill_time_seconds", "From first scheduling to first token.", _LATENCY),
        _histogram("request_decode_time_seconds", "From first token to last token.", _LATENCY),
    ]


def _cache_config(profile: EngineProfile, labels: Mapping[str, str]) -> Family:
    """Every field of vLLM's CacheConfig as a label; those with ``{}`` depend on the profile."""
    blocks = profile.kv_capacity_tokens // _BLOCK_TOKENS
    facts = {
        "blocks": blocks,
        "tokens": profile.kv_capacity_tokens,
        "concurrency": profile.kv_capacity_tokens / profile.max_model_len_tokens,
        "block_tokens": _BLOCK_TOKENS,
    }
    row = {name: value.format(**facts) for name, value in labels.items()}
    return Family(
        name="vllm:cache_config_info",
        kind="gauge",
        documentation="The engine's cache configuration, in its labels.",
        rows=(row,),
        without=("model_name",),
    )
