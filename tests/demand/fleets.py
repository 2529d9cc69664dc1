"""Small exact worlds: requests one by one, and what their engines would have shown at each tick."""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from longtail.demand.buckets import EDGES
from longtail.demand.estimate import Demand
from longtail.demand.model import DemandMemory, estimate
from longtail.demand.observation import MISSING, Buckets, Observation, Quality, Signal
from longtail.demand.parameters import ServiceParameters
from longtail.demand.supply import Supply

TICK = 15.0
START = 1_800_000_000.0
BOUNDS = (*EDGES[1:].tolist(), math.inf)
ONE = Supply(ready_replicas=1)


@dataclass(frozen=True)
class Requests:
    """Requests that start at once and write one token every ``seconds_per_token``."""

    starts: np.ndarray
    tokens: np.ndarray
    prompt: float = 100.0
    seconds_per_token: float = 0.05
    patience: np.ndarray | float = math.inf
    """Tokens after which each is given up, unless it is done."""

    def at(self, second: float, since: float | None, *, bounds: Sequence[float] = BOUNDS, pods: int = 1) -> Observation:
        """What is seen at a time, with increases since another; a first sight has none."""
        most = np.minimum(self.tokens, self.patience)
        ends = self.starts + most * self.seconds_per_token
        live = (self.starts <= second) & (ends > second)
        attained = float(((second - self.starts[live]) / self.seconds_per_token).sum())
        levels = Observation(
            at_seconds=START + second,
            running_requests=Signal(float(live.sum())),
            waiting_requests=Signal(0.0),
            kv_used_tokens=Signal(attained + self.prompt * float(live.sum())),
            kv_capacity_tokens=Signal(400_000.0 * pods) if pods else MISSING,
            attained_tokens=Signal(attained),
            ready_pods=pods,
            reporting_pods=pods,
        )
        if since is None:
            return levels
        done = (ends > since) & (ends <= second) & (self.tokens <= self.patience)
        counts = [0.0] * len(bounds)
        for length in self.tokens[done]:
            counts[bisect.bisect_left(bounds, length)] += 1
        started = (self.starts > since) & (self.starts <= second)
        begun = np.clip(second - self.starts, 0, None) / self.seconds_per_token
        before = np.clip(since - self.starts, 0, None) / self.seconds_per_token
        written = np.minimum(begun, most) - np.minimum(before, most)
        return replace(
            levels,
            interval_seconds=second - since,
            first_tokens=Signal(float(started.sum())),
            generated_tokens=Signal(max(float(written.sum()), 0.0)),
            finished_tokens=Signal(float(self.tokens[done].sum())),
            prompt_tokens=Signal(self.prompt * float(done.sum())),
            finished_output_tokens=Buckets(upper_bounds=tuple(bounds), counts=tuple(counts)),
        )


def poisson(rate: float, seconds: float, *, mean_tokens: float = 1000.0, seed: int = 1, since: float = 0.0) -> Requests:
    """Poisson arrivals with exponential lengths, at least one token."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(rate * (seconds - since))
    starts = np.sort(rng.uniform(since, seconds, count))
    return Requests(starts=starts, tokens=np.maximum(rng.exponential(mean_tokens, count), 1.0))


def stream(requests: Requests, ticks: int, *, first: int = 0, pods: int = 1) -> list[Observation]:
    """Observations at every tick from ``first`` on."""
    times = [TICK * tick for tick in range(first, first + ticks)]
    befores: list[float | None] = [None, *times[:-1]]
    return [requests.at(at, since, pods=pods) for at, since in zip(times, befores, strict=True)]


def blind(observation: Observation) -> Observation:
    """The same tick with nothing seen."""
    return Observation(at_seconds=observation.at_seconds, ready_pods=observation.ready_pods)


def with_quality(observation: Observation, quality: Quality) -> Observation:
    """The same tick with both gauges of another quality."""
    return replace(
        observation,
        running_requests=replace(observation.running_requests, quality=quality),
        waiting_requests=replace(observation.waiting_requests, quality=quality),
    )


def fold(
    observations: Sequence[Observation],
    *,
    parameters: ServiceParameters | None = None,
    supply: Supply = ONE,
    memory: DemandMemory | None = None,
) -> tuple[list[Demand], DemandMemory]:
    """The demands of one service at each tick, and the memory at the end."""
    memory = memory or DemandMemory.empty()
    said = []
    for observation in observations:
        demands, memory = estimate(
            keys=["only"],
            parameters=[parameters or ServiceParameters()],
            observations=[observation],
            supplies=[supply],
            memory=memory,
            now=observation.at_seconds,
        )
        said += demands
    return said, memory


def numbers(demand: Demand) -> list[float]:
    """Every number of a demand, nested ones included, None left out."""
    parts = (demand, demand.capacity, demand.lengths, demand.startup)
    values = [getattr(part, name) for part in parts for name in part.__dataclass_fields__]
    return [value for value in values if isinstance(value, float)]


NOW_SLOTS = 60.0


def overloaded(ticks: int, *, pods: int = 1) -> list[Observation]:
    """Pods that are full with 20 requests while 40 wait: one starts whenever one ends, and as many arrive."""
    requests = poisson(0.4, TICK * ticks + 600, since=-600.0)
    return [
        replace(one, running_requests=Signal(20.0), waiting_requests=Signal(40.0))
        for one in stream(requests, ticks, pods=pods)
    ]
