"""WVA's second saturation analyzer (tokens), the default of v0.9, for one variant of a model.

Read from deanlorenz/llm-d-workload-variant-autoscaler 2976e4e (2026-08-18):
``internal/engines/analyzers/saturation_v2/{analyzer,history,constants}.go`` (demand and capacity),
``internal/engines/saturation/engine_v2.go`` (required and spare capacity),
``internal/engines/pipeline/cost_aware_optimizer.go`` (replicas).

Quirks kept: the compute-bound capacity k2 of a replica with a queue is whatever it holds just now, so one
replica that queues while half empty lowers the capacity of all for ten observations; the history is keyed by
three output lengths of which the longest starts at 500 tokens; the queue is charged its mean prompt and
output of *finished* requests, at its full final size; integers are truncated where the code truncates; a
replica in a pool without any finished request charges its queue nothing; pending replicas count when growing
and not when shrinking.

One variant means that cost plays no part: the optimizer adds ceil(required / capacity) and removes
floor(spare / capacity), never the last replica. Not built: P/D roles, GPU limits, the throughput and queueing
analyzers (opt-in), and the estimate for pods that do not publish ``vllm:cache_config_info``.
"""

import bisect
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longtail.workbench.peers.wva_signals import PodPeak

HISTORY_LENGTH = 10
SHORT_OUTPUT_TOKENS, MEDIUM_OUTPUT_TOKENS = 100, 500

History = Mapping[int, tuple[float, ...]]
"""Observed k2 by output-length bucket (0 short, 1 medium, 2 long), oldest first, at most ten."""


@dataclass(frozen=True, slots=True)
class V2Settings:
    """Thresholds of the analyzer and of the engine, and what is known from the server's arguments."""

    scale_up_threshold: float = 0.85
    scale_down_boundary: float = 0.70
    kv_cache_threshold: float = 0.80
    queue_length_threshold: int = 5
    max_batched_tokens: int | None = None
    """``--max-num-batched-tokens``; None when it could not be read, and k2 is then not derived."""
    max_num_seqs: int = 256


@dataclass(frozen=True, slots=True)
class Tokens:
    """Demand of the pool and effective capacity of its median replica, in KV tokens."""

    demand: float
    capacity_per_replica: float
    reporting_replicas: int


def derived_capacity(settings: V2Settings, *, prompt: float, output: float) -> int:
    """k2 from the arguments: min(B·O/(I+O), S) requests of I + O/2 tokens; 0 when it cannot be told.

    >>> derived_capacity(V2Settings(max_batched_tokens=8192), prompt=1000, output=1000)  # 256 * 1500
    384000
    """
    if not settings.max_batched_tokens or output <= 0:
        return 0
    steady = min(settings.max_batched_tokens * output / (prompt + output), settings.max_num_seqs)
    return int(steady * (prompt + output / 2))


def pool_tokens(
    peaks: Sequence[PodPeak], *, settings: V2Settings, prompt: float, output: float, history: History
) -> tuple[Tokens, History]:
    """Demand and capacity of the replicas that report, one after the other: the history grows on the way."""
    bucket = bisect.bisect_right((SHORT_OUTPUT_TOKENS, MEDIUM_OUTPUT_TOKENS), output)
    observed = dict(history)
    demand, capacities = 0.0, []
    for peak in peaks:
        if not peak.kv_capacity_tokens:
            continue
        in_use = math.floor(min(peak.kv_used_ratio, 1.0) * peak.kv_capacity_tokens + 0.5)
        demand += in_use + int(peak.waiting_requests * (prompt + output))
        k1 = int(peak.kv_capacity_tokens * settings.kv_cache_threshold)
        past = observed.get(bucket, ())
        if peak.waiting_requests >= settings.queue_length_threshold and in_use > 0:
            k2 = in_use
            observed[bucket] = (*past, float(in_use))[-HISTORY_LENGTH:]
        elif past and sum(past) > 0:
            k2 = int(sum(past) / len(past))
        else:
            k2 = derived_capacity(settings, prompt=prompt, output=output) or k1
        capacities.append(min(k1, k2))
    middle = _median(capacities) if capacities else 0
    return Tokens(demand, float(middle), len(capacities)), observed


def _median(values: Sequence[int]) -> int:
    """Median of integers; the mean of the middle two is truncated."""
    return int(statistics.median(values))


def v2_wish(
    tokens: Tokens,
    *,
    settings: V2Settings,
    gateway_waiting: float,
    prompt: float,
    output: float,
    current: int,
    pending: int,
    min_replicas: int,
    max_replicas: int,
) -> int:
    """Replicas from required and spare capacity.

    >>> v2_wish(Tokens(demand=255_000, capacity_per_replica=100_000, reporting_replicas=2),
    ...         settings=V2Settings(), gateway_waiting=0, prompt=0, output=0, current=2, pending=0,
    ...         min_replicas=1, max_replicas=10)  # 255k / 0.85 = 300k wanted, 200k there
    3
    """
    capacity = tokens.capacity_per_replica
    if capacity <= 0:
        return current
    demand = tokens.demand + gateway_waiting * (prompt + output)
    supply = tokens.reporting_replicas * capacity
    required = max(0.0, demand / settings.scale_up_threshold - (supply + pending * capacity))
    spare = max(0.0, supply - demand / settings.scale_down_boundary)
    if required > 0:
        return max(current, min(current + math.ceil(required / capacity), max_replicas))
    removable = min(math.floor(spare / capacity), current - max(min_replicas, 1))
    return current - max(0, removable)
