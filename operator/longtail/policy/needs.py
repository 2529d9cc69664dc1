"""From demand to replicas: which resource binds, and why, in words with figures.

Two resources are counted, slots and KV cache, and the larger need wins. A resource that is not known
does not take part; whether a pool may shrink without it is a question for `trust`.

The objective allows a wait, and slots are freed in the meantime (`Demand.in_time_ratio`). So what the upper value of
demand has above the expected one may wait; what is expected, and what is there now, may not.
"""

import enum
import math
from dataclasses import dataclass

from longtail.demand.estimate import Capacity, Demand
from longtail.demand.observation import Observation, Quality, Signal
from longtail.policy import words


class Resource(enum.StrEnum):
    """What a replica runs out of."""

    SLOTS = "Slots"
    KV_CACHE = "KVCache"


@dataclass(frozen=True, slots=True)
class Need:
    """Replicas that a demand asks for."""

    exact: float
    """In replicas, not rounded: HPA's ratio times the current count."""
    bound_by: Resource
    because: str

    @property
    def replicas(self) -> int:
        """Whole replicas."""
        return whole(self.exact)


def whole(exact: float) -> int:
    """Rounded up, except for the dust of floating point.

    >>> whole(3.0), whole(3.0000000001), whole(3.001), whole(0.0)
    (3, 3, 4, 0)
    """
    return math.ceil(exact * (1 - 1e-9))


def reactive(*, demand: Demand, observation: Observation, blind_pods: int) -> Need | None:
    """The floor under everything: what is there now, at the promised pace. None when slots are not known.

    A ready pod that reports nothing counts as full: it serves somebody, and adds nobody.
    """
    if demand.slots_now is None:
        return None
    waiting = observation.waiting_everywhere.value or 0.0
    busy = max(demand.slots_now - waiting, 0.0)
    subject = f"{words.number(busy)} running at target speed + {words.number(waiting)} waiting need"
    need = _largest(
        _of_slots(demand.slots_now, demand.capacity, subject),
        _of_kv(_not_old(observation.kv_used_tokens, demand.kv_now_tokens), demand.capacity, "the KV caches hold"),
    )
    if need is None or blind_pods == 0:
        return need
    pods = (
        "1 ready pod reports nothing and counts"
        if blind_pods == 1
        else f"{blind_pods} ready pods report nothing and count"
    )
    exact = need.exact + blind_pods
    because = f"{need.because}; {pods} as full: {words.replicas(whole(exact))}"
    return Need(exact=exact, bound_by=need.bound_by, because=because)


def evidence(*, demand: Demand, observation: Observation) -> Need | None:
    """A lower bound from whatever is fresh while the whole is not known: it can raise a pool only."""
    parts = {
        "running": observation.running_requests,
        "waiting in the engines": observation.waiting_requests,
        "waiting in the gateway": observation.gateway_waiting_requests,
    }
    fresh = {what: signal.value for what, signal in parts.items() if signal.fresh and signal.value is not None}
    subject = " + ".join(f"{words.number(value)} {what}" for what, value in fresh.items()) + " need at least"
    return _largest(
        _of_slots(sum(fresh.values()) if fresh else None, demand.capacity, subject),
        _of_kv(_if_fresh(observation.kv_used_tokens), demand.capacity, "the KV caches hold"),
    )


def forecast_up(demand: Demand) -> Need | None:
    """What the upper quantile of demand asks for one cold start ahead. None without a forecast."""
    return _forecast(demand, slots=demand.slots_upper, kv_tokens=demand.kv_upper_tokens, when="one cold start ahead")


def forecast_down(demand: Demand) -> Need | None:
    """What the highest upper quantile up to one cold start ahead asks for: a pool may not go below."""
    return _forecast(
        demand, slots=demand.slots_peak, kv_tokens=demand.kv_peak_tokens, when="until one cold start ahead"
    )


def _forecast(demand: Demand, *, slots: float | None, kv_tokens: float | None, when: str) -> Need | None:
    if slots is None:
        return None
    level = "" if demand.quantile is None else f" in {100 * demand.quantile:.4g} of 100 cases"
    ahead = f"{when} ({demand.startup.p90_seconds:.0f} s), at most{level},"
    return _largest(
        _of_slots(
            slots,
            demand.capacity,
            f"{ahead} requests will need",
            enough=max(slots / demand.in_time_ratio, demand.slots_forecast or 0.0),
        ),
        _of_kv(kv_tokens, demand.capacity, f"{ahead} the KV caches will hold"),
    )


def _of_slots(slots: float | None, capacity: Capacity, subject: str, *, enough: float | None = None) -> Need | None:
    """The need for as many slots, or for those that are ``enough`` because a request may wait for one."""
    if slots is None:
        return None
    taken = slots if enough is None else min(enough, slots)
    need = Need(exact=taken / capacity.slots_per_replica, bound_by=Resource.SLOTS, because="")
    waiting = f", {words.number(taken)} as they may wait" if words.number(taken) != words.number(slots) else ""
    because = (
        f"{subject} {words.number(slots)} slots{waiting}; a replica has {words.number(capacity.slots_per_replica)}: "
        f"{words.replicas(need.replicas)}"
    )
    return Need(exact=need.exact, bound_by=need.bound_by, because=because)


def _of_kv(tokens: float | None, capacity: Capacity, subject: str) -> Need | None:
    per_replica = capacity.kv_tokens_per_replica
    if tokens is None or not per_replica:
        return None
    need = Need(exact=tokens / per_replica, bound_by=Resource.KV_CACHE, because="")
    because = (
        f"{subject} {tokens:,.0f} tokens; a replica has room for {per_replica:,.0f}: {words.replicas(need.replicas)}"
    )
    return Need(exact=need.exact, bound_by=need.bound_by, because=because)


def _largest(*needs: Need | None) -> Need | None:
    known = [need for need in needs if need is not None]
    return max(known, key=lambda need: need.exact, default=None)


def _if_fresh(signal: Signal) -> float | None:
    return signal.value if signal.fresh else None


def _not_old(signal: Signal, value: float | None) -> float | None:
    """A number made from a signal, unless that signal is too old to be true now."""
    return value if signal.quality in {Quality.FRESH, Quality.PARTIAL} else None
