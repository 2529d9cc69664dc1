"""A pool as a peer sees it. Its counters are sums of increases between scrapes, so they never fall."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from longtail.workbench.fleet.deployment import Replica
from longtail.workbench.fleet.meters import FINISHED, FINISHED_OUTPUT, FINISHED_PROMPT, FIRST_TOKENS, GENERATED
from longtail.workbench.fleet.scrape import Scrape, increases
from longtail.workbench.fleet.setting import ReplicaSize
from longtail.workbench.peers.view import Histogram, Iteration, PeerView, PodView
from longtail.workbench.replay import FIRST_TOKEN_BOUNDS
from longtail.workbench.traces.trace import Floats

TOKEN_INTERVAL_BOUNDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, float("inf")),
)
"""Upper bounds of ``vllm:inter_token_latency_seconds``."""


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """All that scrapes have shown so far."""

    scrape: Scrape
    totals: Floats
    """By column, summed over pods and time."""
    started: Floats
    """Requests that each pod of the scrape started since the one before; 0 where not known."""
    interval_seconds: float


def counted(before: Counted | None, scrape: Scrape) -> Counted:
    """The counters with one scrape more."""
    if before is None:
        return Counted(scrape, scrape.counters.sum(axis=0), np.zeros(len(scrape.uids)), 0.0)
    change = increases(before.scrape, scrape, since_seconds=before.scrape.at_seconds)
    interval = scrape.at_seconds - before.scrape.at_seconds
    change[np.isnan(change)] = 0.0
    return Counted(scrape, before.totals + change.sum(axis=0), change[:, FIRST_TOKENS], interval)


def peer_view(
    pods: Sequence[Replica], seen: Counted | None, *, replicas: int, reachable: bool, size: ReplicaSize
) -> PeerView:
    """The target as it is now, with the numbers of the last scrape."""
    alive = [pod for pod in pods if pod.deleting_seconds is None]
    view = PeerView(
        spec_replicas=replicas,
        status_replicas=len(alive),
        ready_replicas=sum(pod.ready for pod in alive),
        pods=tuple(_pod_views(alive, seen if reachable else None, size)),
        metrics_reachable=reachable,
    )
    if seen is None or not reachable:
        return view
    scrape, totals = seen.scrape, seen.totals
    return PeerView(
        spec_replicas=view.spec_replicas,
        status_replicas=view.status_replicas,
        ready_replicas=view.ready_replicas,
        pods=view.pods,
        door_requests=scrape.door_requests,
        gateway_waiting_requests=scrape.gateway_waiting,
        prefill_backlog_tokens=0.0 if scrape.gateway_waiting is not None else scrape.queued_prompt_tokens,
        arrived_requests_total=scrape.arrived_total,
        finished_requests_total=float(totals[FINISHED]),
        finished_prompt_tokens_total=float(totals[FINISHED_PROMPT]),
        finished_output_tokens_total=float(totals[FINISHED_OUTPUT]),
        first_token_seconds=_cumulative(FIRST_TOKEN_BOUNDS, totals[scrape.columns.first_token]),
        token_interval_seconds=_intervals(float(totals[GENERATED]), size.seconds_per_token),
    )


def _pod_views(pods: Sequence[Replica], seen: Counted | None, size: ReplicaSize) -> Sequence[PodView]:
    samples = {} if seen is None else _samples(seen, size)
    return [
        replace(samples[pod.uid], ready=pod.ready)
        if pod.uid in samples
        else PodView(name=pod.name, ready=pod.ready, pending=pod.scheduled_seconds is None)
        for pod in pods
    ]


def _samples(seen: Counted, size: ReplicaSize) -> dict[int, PodView]:
    """What the last scrape brought, by pod. Whole arrays first: this is done at every scrape of a run."""
    scrape, capacity = seen.scrape, size.kv_capacity_tokens
    ratios = scrape.kv_used_tokens / (capacity or 1.0)
    finished = float(seen.totals[FINISHED])
    prompt = float(seen.totals[FINISHED_PROMPT]) / finished if finished else 0.0
    steps = max(seen.interval_seconds / size.seconds_per_token, 1.0)
    # What waits in the engines waits to be read; what waits at a gateway is nobody's.
    share = scrape.waiting / max(float(scrape.waiting.sum()), 1.0)
    columns = (
        scrape.uids,
        scrape.running,
        scrape.waiting,
        scrape.kv_used_tokens,
        np.minimum(ratios, 1.0),
        seen.started / steps,
        share * scrape.queued_prompt_tokens,
    )
    return {
        uid: PodView(
            name=f"pod-{uid}",
            running_requests=running,
            waiting_requests=waiting,
            kv_used_ratio=None if capacity is None else ratio,
            kv_capacity_tokens=capacity,
            iteration=Iteration(
                seconds=size.seconds_per_token if running else 0.0,
                prefill_requests=starts,
                prefill_tokens=starts * prompt,
                decode_requests=running,
                decode_kv_tokens=used,
                queued_prefill_tokens=queued,
            ),
        )
        for uid, running, waiting, used, ratio, starts, queued in zip(*(c.tolist() for c in columns), strict=True)
    }


def _cumulative(bounds: tuple[float, ...], counts: Floats) -> Histogram:
    return Histogram(upper_bounds=bounds, counts=tuple(np.cumsum(counts).tolist()))


def _intervals(tokens: float, seconds_per_token: float) -> Histogram:
    """Every token took the same time."""
    return Histogram(
        upper_bounds=TOKEN_INTERVAL_BOUNDS,
        counts=tuple(tokens if bound >= seconds_per_token else 0.0 for bound in TOKEN_INTERVAL_BOUNDS),
    )
