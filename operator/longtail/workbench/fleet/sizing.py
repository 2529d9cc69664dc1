"""How large a pool has to be for a trace, from its future: bounds for a simulation, and what it is held against."""

from dataclasses import dataclass

from longtail.workbench.bound import lower_bound, replicas_needed
from longtail.workbench.fleet.setting import ReplicaSize, Setting
from longtail.workbench.schedule import start_at_once
from longtail.workbench.traces.trace import Integers, Trace

START_SECONDS = 600.0
"""A simulation starts with what the first ten minutes need: nobody starts an empty pool in front of full traffic."""
_INTERVAL_SECONDS = 15.0


@dataclass(frozen=True, slots=True, eq=False)
class Need:
    """Replicas without which somebody would wait, every 15 s."""

    replicas: Integers

    @property
    def peak(self) -> int:
        """At any time; at least 1."""
        return max(int(self.replicas.max(initial=0)), 1)

    @property
    def at_start(self) -> int:
        """Within the first ten minutes; at least 1."""
        return max(int(self.replicas[: int(START_SECONDS / _INTERVAL_SECONDS)].max(initial=0)), 1)

    def bound_gpu_hours(self, setting: Setting) -> float:
        """GPU-hours that no policy can do without if nobody may wait: see ``workbench.bound``.

        A policy that lets requests wait can be below it.
        """
        bound = lower_bound(
            self.replicas,
            interval_seconds=_INTERVAL_SECONDS,
            cold_start_seconds=setting.cold_start_seconds,
            initial_replicas=setting.initial_replicas,
        )
        return bound.replica_seconds * setting.replica.gpus / 3600.0


def need_of(trace: Trace, replica: ReplicaSize, *, duration_seconds: float) -> Need:
    """The need of a trace, by slots: KV caches are not looked at."""
    replicas = replicas_needed(
        start_at_once(trace, seconds_per_token=replica.seconds_per_token),
        slots_per_replica=replica.slots,
        duration_seconds=duration_seconds,
        interval_seconds=_INTERVAL_SECONDS,
    )
    return Need(replicas)
