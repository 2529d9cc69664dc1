"""What a metrics store saw of the pods at one scrape: numbers by pod, some of them lost.

Raw counters are kept as the engines have them. Who reads them takes differences between two looks of its own,
by the rules of ``signals.counters``: a pod that was not seen at the last look has an increase only if it began
since, and one that is gone takes what it did after its last scrape with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longtail.workbench.fleet.deployment import Replica
from longtail.workbench.fleet.meters import Columns
from longtail.workbench.fleet.pool import Pool
from longtail.workbench.traces.trace import Floats, Integers

UNSEEN_SECONDS = 30.0
"""A new pod may serve for so long before its first scrape, and its counters still count in full: the operator's
limit of freshness, two scrape intervals."""


@dataclass(frozen=True, slots=True, eq=False)
class Scrape:
    """Samples of one moment. Arrays have one entry a pod that answered, in order of creation."""

    at_seconds: float
    """Seconds since the start of the trace."""
    uids: Integers
    """Of the pods, ascending."""
    ready_seconds: Floats
    running: Floats
    waiting: Floats
    """In the engines' own queues."""
    kv_used_tokens: Floats
    attained_tokens: Floats
    """Output tokens written by what runs."""
    counters: Floats
    """Raw, shape (pods, columns.count): see `meters`."""
    columns: Columns
    gateway_waiting: float | None
    """Requests held at the gateway; None without one."""
    queued_prompt_tokens: float
    """Prompt tokens of all that wait."""
    door_requests: float
    """Arrived and not answered yet."""
    arrived_total: float


class Scraper:
    """Takes samples of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._random = np.random.default_rng([pool.setting.seed, 2])

    def scrape(self) -> Scrape:
        """The pods now, less those whose scrape fails."""
        pool, setting = self._pool, self._pool.setting
        pool.count()
        pods = self._answering(pool.serving_pods())
        rows = np.array([pod.row for pod in pods], np.intp)
        running = np.array([pool.engines.running(pod.row) for pod in pods], np.float64)
        attained = pool.meters.attained(rows, running, pool.now_seconds)
        waiting = pool.engines.waiting_requests
        return Scrape(
            at_seconds=pool.now_seconds,
            uids=np.array([pod.uid for pod in pods], np.int64),
            ready_seconds=np.array([pod.ready_seconds for pod in pods], np.float64),
            running=running,
            waiting=np.zeros(len(pods)) if setting.gateway else self._shares(pods, waiting),
            kv_used_tokens=pool.meters.prompts(rows) + attained,
            attained_tokens=attained,
            counters=pool.meters.counters(rows, attained),
            columns=pool.columns,
            gateway_waiting=float(waiting) if setting.gateway else None,
            queued_prompt_tokens=float(pool.engines.queued_prompt_tokens),
            door_requests=float(waiting + pool.engines.running_requests),
            arrived_total=float(pool.engines.door_requests),
        )

    def _answering(self, pods: Sequence[Replica]) -> Sequence[Replica]:
        lost = self._pool.setting.scraping.lost_share
        if lost == 0:
            return pods
        heard = self._random.random(len(pods)) >= lost
        return [pod for pod, answers in zip(pods, heard, strict=True) if answers]

    def _shares(self, pods: Sequence[Replica], waiting: int) -> Floats:
        """The queue in the engines' own counters: whole requests, in equal parts on all that take requests."""
        taking = [pod.uid for pod in self._pool.serving_pods() if pod.routable]
        whole, more = divmod(waiting, max(len(taking), 1))
        share = {uid: whole + (rank < more) for rank, uid in enumerate(taking)}
        return np.array([share.get(pod.uid, 0) for pod in pods], np.float64)


def increases(before: Scrape, after: Scrape, *, since_seconds: float) -> Floats:
    """Increase of every counter since the last look, at ``since_seconds`` and at the samples ``before``.

    Shape of ``after.counters``; NaN in the row of a pod whose increase nobody can know.
    """
    old = np.searchsorted(before.uids, after.uids)
    known = old < len(before.uids)
    known[known] = before.uids[old[known]] == after.uids[known]
    base = np.zeros_like(after.counters)
    base[known] = before.counters[old[known]]
    began = after.ready_seconds > since_seconds - UNSEEN_SECONDS
    change: Floats = after.counters - base
    change[~(known | began)] = np.nan
    return change
