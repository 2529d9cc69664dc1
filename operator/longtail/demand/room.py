"""The room there will be: replicas that work or are on their way, and the slots on them, until the horizon."""

import numpy as np

from longtail.demand.buckets import Array, Mask
from longtail.demand.fleet_arrays import Supplies
from longtail.demand.startup import ColdStart


def serving_share(supplies: Supplies) -> Array:
    """Share of the requests in flight that hold slots of replicas which take new ones, 0..1."""
    total = supplies.ready + supplies.draining
    return np.divide(supplies.ready, total, out=np.ones_like(total), where=(total > 0) & (supplies.ready > 0))


def engine_slots(*, running: Array, saturated: Mask, slots_per_replica: Array, pods: Array) -> Array:
    """Requests one replica really takes, promised speed or not: engines admit until their own limit.

    Where many wait, the replicas are full at what they run; elsewhere they take at least what they run, and no more
    than the promised speed allows is counted on.
    """
    batch = running / np.maximum(pods, 1.0)
    return np.where(saturated, np.maximum(batch, 1.0), np.maximum(slots_per_replica, batch))


def replicas_path(supplies: Supplies, cold_start: ColdStart, steps: int) -> Array:
    """Replicas that take new requests after each of ``steps`` steps to the horizon, shape (services, steps).

    A pending replica is expected at the rest of a median cold start; one later than that at the end of the P90; one
    that is twice as late as the P99 never comes and is not counted.
    """
    ready = np.repeat(supplies.ready[:, None], steps, axis=1)
    for service, age in supplies.pending_ages:
        p50, p90, p99 = (
            float(q[service]) for q in (cold_start.p50_seconds, cold_start.p90_seconds, cold_start.p99_seconds)
        )
        if age > 2 * p99:
            continue
        rest = p50 - age if age < p50 else max(p90 - age, 0.1 * p90)
        ready[service, int(steps * min(rest / p90, 1.0)) :] += 1
    return ready


def slots_path(supplies: Supplies, cold_start: ColdStart, per_replica: Array, least: Array, steps: int) -> Array:
    """Slots on those replicas, shape (services, steps).

    ``least`` is what runs there now, shape (services,): whatever the counts of replicas say, that has its slot.
    """
    return np.maximum(replicas_path(supplies, cold_start, steps) * per_replica[:, None], least[:, None])
