"""Steps a demand model through scenarios, all at once, one service each, and keeps what it said."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from longtail.demand.estimate import Demand
from longtail.demand.observation import Observation
from longtail.demand.parameters import ServiceParameters
from longtail.demand.supply import Supply
from longtail.policy.fleet import ServiceKey
from longtail.workbench.replay import Series, observe
from longtail.workbench.scenarios import COLD_START_SECONDS, Scenario
from longtail.workbench.traces.trace import Floats, Mask

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done, 0..1."""

Memory = TypeVar("Memory")


class Estimator(Protocol[Memory]):
    """The signature of ``longtail.demand.model.estimate``."""

    def __call__(
        self,
        *,
        keys: Sequence[ServiceKey],
        parameters: Sequence[ServiceParameters],
        observations: Sequence[Observation],
        supplies: Sequence[Supply],
        memory: Memory,
        now: float,
    ) -> tuple[Sequence[Demand], Memory]:
        """Demand per service, and the memory for the next tick."""


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """What the model said: shape (ticks, services), NaN where it said nothing."""

    point: Floats
    upper: Floats
    mean_tokens: Floats
    known_fraction: Floats
    quantile: Floats
    horizon_seconds: Floats
    change_factor: Floats
    """Of the last change of lengths, while it is news."""
    change_since_seconds: Floats
    """Unix seconds."""


def forecast(
    scenarios: Sequence[Scenario],
    series: Sequence[Series],
    *,
    estimator: Estimator[Memory],
    memory: Memory,
    attainment: float,
    progress: Progress,
    seen: Mask | None = None,
) -> Forecasts:
    """Steps ``estimator`` through the scenarios from ``memory``.

    Cold starts of exactly ``COLD_START_SECONDS`` are reported at the first tick, fifty a service, so that the
    horizon that the model learns is the one that is scored. Where ``seen`` is False nothing was observed.
    """
    ticks = min(len(one.at_seconds) for one in series)
    keys = [ServiceKey("bench", scenario.name) for scenario in scenarios]
    parameters = [scenario.parameters(attainment=attainment) for scenario in scenarios]
    exposures = [scenario.exposure(one) for scenario, one in zip(scenarios, series, strict=True)]
    streams = [observe(one, exposure, seen=seen) for one, exposure in zip(series, exposures, strict=True)]
    started = (COLD_START_SECONDS,) * 50
    first = [Supply(ready_replicas=exposure.pods, cold_starts_seconds=started) for exposure in exposures]
    later = [Supply(ready_replicas=exposure.pods) for exposure in exposures]
    said = np.full((8, ticks, len(scenarios)), math.nan)
    for tick in range(ticks):
        observations = [next(stream) for stream in streams]
        demands, memory = estimator(
            keys=keys,
            parameters=parameters,
            observations=observations,
            supplies=later if tick else first,
            memory=memory,
            now=observations[0].at_seconds,
        )
        said[:, tick, :] = np.transpose([_numbers(demand) for demand in demands])
        if tick % 100 == 0:
            progress("forecasting", tick / ticks)
    progress("forecasting", 1.0)
    return Forecasts(*said)


def _numbers(demand: Demand) -> list[float]:
    change = demand.lengths.change
    values = (
        demand.slots_forecast,
        demand.slots_upper,
        demand.lengths.mean_tokens,
        demand.known_fraction,
        demand.quantile,
        demand.startup.p90_seconds,
        None if change is None else change.factor,
        None if change is None else change.since,
    )
    return [math.nan if value is None else value for value in values]
