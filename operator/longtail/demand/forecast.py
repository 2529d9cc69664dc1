"""Slots and KV cache over the next cold start: a fluid path through the capacity that is there or on its way.

With room for everybody the number in service is that of the Mt/G/infinity queue (Eick, Massey and Whitt 1993):
whoever is in flight now and lasts, plus whoever arrives and lasts, with the age-dependent survival of each.
Without room the queue grows, and what waits does not age: that is the difference which matters in overload.

    in service after k steps = sum over cohorts of n S(u + kv)/S(u)  +  sum over steps i of started_i Sbar(k - i)
    started_k = what waits or arrives, as far as slots are free        Sbar(j) = (I((j+1)v) - I(jv)) / v

v tokens are written per step and request. Sbar is exact for starts spread evenly over a step, so a path without a
queue has no discretisation error and needs but a few steps.
"""

from dataclasses import dataclass

import numpy as np

from longtail.demand.buckets import Array, Array32, clip, increments
from longtail.demand.inflight import InFlight
from longtail.demand.survival import Survival

COARSE_STEPS = 2
"""Steps where nothing queues: the end, and one look half way for the peak."""
FINE_STEPS = 12
"""Steps where something queues or may: 15 s each for a cold start of 180 s."""


@dataclass(frozen=True, slots=True)
class Path:
    """Expected demand after each step for each arrival rate. Shape (services, steps, rates)."""

    slots: Array
    """Requests in service, normalised to the target speed, and waiting."""
    kv_tokens: Array
    """KV cache of those requests, waiting ones with their prompts."""


@dataclass(frozen=True, slots=True)
class Survivors:
    """What is left of the requests in flight now after each step. Shape (services, steps)."""

    requests: Array
    tokens: Array
    """Output tokens those requests will have written."""


def survivors(flight: InFlight, *, survival: Survival, step_tokens: Array, steps: int) -> Survivors:
    """Requests in flight that last ``steps`` steps of ``step_tokens`` tokens, shape (services,), each.

    >>> flight = InFlight(*np.array([[[100.0]], [[0.0]]], dtype=np.float32))
    >>> s = Survival.of(hazard=np.full((1, 19), 1 / 1000), limit=np.array([32768.0]))
    >>> survivors(flight, survival=s, step_tokens=np.array([500.0]), steps=2).requests.round(1).tolist()
    [[60.7, 36.8]]
    """
    services, cohorts = flight.requests.shape
    ahead = (step_tokens[:, None] * np.arange(1, steps + 1)).astype(np.float32)
    age: Array32 = flight.age_tokens[:, None, :] + ahead[:, :, None]
    # All steps at once: (services, steps, cohorts), looked up as (services, steps x cohorts).
    then = survival.cumulative_hazard(age.reshape(services, steps * cohorts)).reshape(age.shape)
    depth = then - survival.cumulative_hazard(flight.age_tokens)[:, None, :]
    alive = np.exp(-clip(depth, 0.0, 60.0))
    left = flight.requests[:, None, :] * alive
    return Survivors(
        requests=left.sum(axis=2).astype(np.float64),
        tokens=np.einsum("csg,csg->cs", left, age).astype(np.float64),
    )


def path(
    left: Survivors,
    *,
    survival: Survival,
    step_tokens: Array,
    step_seconds: Array,
    rates: Array,
    waiting: Array,
    prompt_tokens: Array,
    slots: Array,
    serving_share: Array,
    slowdown: Array,
) -> Path:
    """The fluid path. Shapes: (services,) unless said otherwise.

    Args:
        left: survivors of the requests in flight, one column a step.
        survival: length distributions.
        step_tokens: output tokens a request writes during a step.
        step_seconds: length of a step.
        rates: arrivals per second, shape (services, rates).
        waiting: requests waiting now, wherever they do.
        prompt_tokens: KV cache a request occupies before its first output token.
        slots: requests that can be in service on replicas that take new ones, shape (services, steps); may be inf.
        slowdown: what a request in service weighs at the target speed, >= 1 (`capacity.slowdown`).
        serving_share: share 0..1 of the requests in flight that occupy those slots; the rest is on draining replicas.

    Example: nobody in flight, 1 request/s, 1000 tokens of 20 ms: 20 × (1 − e^−2) after 40 s, and with 5 slots the
    same requests pile up.

    >>> s = Survival.of(hazard=np.full((1, 19), 1 / 1000), limit=np.array([32768.0]))
    >>> def demand(slots):
    ...     return path(Survivors(*np.zeros((2, 1, 4))), survival=s, step_tokens=np.array([500.0]),
    ...                 step_seconds=np.array([10.0]), rates=np.array([[1.0]]), waiting=np.zeros(1),
    ...                 prompt_tokens=np.zeros(1), slots=np.full((1, 4), slots),
    ...                 serving_share=np.ones(1), slowdown=np.ones(1)).slots[0, :, 0].round(1).tolist()
    >>> demand(np.inf), demand(5.0)
    ([7.9, 12.6, 15.5, 17.3], [8.6, 16.1, 23.6, 31.1])
    """
    steps = left.requests.shape[1]
    mass, moment = survival.integrals(step_tokens[:, None] * np.arange(1, steps + 1))
    lasting = increments(mass) / step_tokens[:, None]  # Sbar(j): of starts j steps ago
    written = increments(moment) / step_tokens[:, None]  # their tokens, per start
    free = slots - left.requests * serving_share[:, None]
    arriving = rates * step_seconds[:, None]
    queue = waiting[:, None]
    first = lasting[:, :1]
    # Steps come first: what a step reads and writes is one block of memory.
    started, carried, queued, tokens = np.empty((4, steps, *rates.shape))
    for step in range(steps):
        queue = queue + arriving
        np.einsum("icr,ci->cr", started[:step], lasting[:, step:0:-1], out=carried[step])
        room = np.maximum(free[:, step, None] - carried[step], 0.0)
        np.minimum(queue, room / first, out=started[step])
        queue = np.subtract(queue, started[step], out=queued[step])
        np.einsum("icr,ci->cr", started[: step + 1], written[:, step::-1], out=tokens[step])
    serving = carried + started * first + left.requests.T[:, :, None]
    tokens += left.tokens.T[:, :, None]
    return Path(
        slots=(serving * slowdown[:, None] + queued).swapaxes(0, 1),
        kv_tokens=((serving + queued) * prompt_tokens[:, None] + tokens).swapaxes(0, 1),
    )
