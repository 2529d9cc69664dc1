"""What the GPUs of a service were held for between two looks, and what came out of it. Pure.

Each GPU-second has one phase, so that the phases of an interval add up to GPUs x time:

=============  =======================================================================================
serving        the part of ready replicas whose slots requests use
headroom       the rest of them: paid for what may come, or for what a forecast was wrong about
starting       on a node and never ready yet: pulls, loads, warms up, crashes
draining       out of routing by our hand, or being deleted
unavailable    isolated by somebody, or ready once and not now
unknown        ready, while nobody knows how many requests are there: neither serving nor headroom
=============  =======================================================================================

A pod that waits for a node holds no GPU. A pod that went between two looks is counted up to the former: half an
interval of one replica is missing, once in its life.
"""

import enum
import math
from collections.abc import Sequence
from operator import add
from typing import Final, NamedTuple

from longtail.demand.observation import Observation
from longtail.policy.fleet import GpuShape, Pod

LONGEST_SECONDS: Final = 300.0
"""Longer intervals are not counted: who was there in between cannot be told from who is there now."""


class Phase(enum.StrEnum):
    """What a GPU is held for."""

    SERVING = "serving"
    HEADROOM = "headroom"
    STARTING = "starting"
    DRAINING = "draining"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"


PHASES: Final = tuple(Phase)


class Account(NamedTuple):
    """Sums over any time. What is not known is not counted, and each sum says over how many GPU-seconds it goes."""

    serving: float = 0.0
    """GPU-seconds, as the next five."""
    headroom: float = 0.0
    starting: float = 0.0
    draining: float = 0.0
    unavailable: float = 0.0
    unknown: float = 0.0
    idle: float = 0.0
    """GPU-seconds of ready replicas in which no kernel ran (DCGM): a witness, across the phases."""
    watched: float = 0.0
    """GPU-seconds of ready replicas of which that is known."""
    answered_requests: float = 0.0
    answered_over: float = 0.0
    """GPU-seconds, of all phases, during which answers were counted."""
    output_tokens: float = 0.0
    output_over: float = 0.0
    reasoning_tokens: float = 0.0
    """Of the output tokens of which a gateway says how many are reasoning."""
    told_tokens: float = 0.0
    """These output tokens."""

    def __add__(self, other: "Account") -> "Account":  # type: ignore[override]
        """Both together."""
        return Account._make(map(add, self, other))

    @property
    def by_phase(self) -> tuple[float, ...]:
        """GPU-seconds in the order of `PHASES`."""
        return self[: len(PHASES)]

    @property
    def gpu_seconds(self) -> float:
        """GPU-seconds of all phases."""
        return sum(self.by_phase)

    def share(self, phase: Phase) -> float:
        """Part of all GPU-seconds that a phase takes, 0..1; 0 of nothing."""
        total = self.gpu_seconds
        return self.by_phase[PHASES.index(phase)] / total if total else 0.0

    @property
    def idle_share(self) -> float | None:
        """Part of the time of ready replicas in which their GPUs did nothing; None where nobody watches."""
        return self.idle / self.watched if self.watched else None

    @property
    def gpu_hours_per_answer(self) -> float | None:
        """GPU-hours for one answered request, starts, drains and headroom included; None before the first."""
        return self.answered_over / 3600 / self.answered_requests if self.answered_requests else None

    @property
    def gpu_hours_per_output_token(self) -> float | None:
        """GPU-hours for one output token; None before the first."""
        return self.output_over / 3600 / self.output_tokens if self.output_tokens else None

    @property
    def gpu_hours_per_reasoning_token(self) -> float | None:
        """GPU-hours for one reasoning token: all that is paid, over the reasoning alone; None where nobody tells it.

        >>> Account(serving=7200, output_tokens=1000, output_over=7200, reasoning_tokens=90, told_tokens=100)[6:8]
        (0.0, 0.0)
        >>> Account(output_tokens=1000, output_over=7200, reasoning_tokens=90,
        ...         told_tokens=100).gpu_hours_per_reasoning_token == 2 / 900
        True
        """
        per_token = self.gpu_hours_per_output_token
        if per_token is None or not self.reasoning_tokens:
            return None
        return per_token * self.told_tokens / self.reasoning_tokens


NOTHING: Final = Account()


def account(
    *,
    pods: Sequence[Pod],
    gpus: GpuShape,
    observation: Observation | None,
    slots_used: float | None,
    slots_per_replica: float | None,
    since: float,
    now: float,
) -> Account:
    """What happened between two looks, as far as the later one shows it.

    Args:
        pods: those of the target now.
        gpus: of each of them.
        observation: of now, with the increases since the look before.
        slots_used: that the requests at hand need, on whichever pod they are; None where that is not known.
        slots_per_replica: None where nothing is known of a replica.
        since: the look before, Unix seconds.
        now: Unix seconds.
    """
    if not 0.0 < now - since <= LONGEST_SECONDS:
        return NOTHING
    used = _used_share(pods, observation, slots_used, slots_per_replica)
    seconds = dict.fromkeys(PHASES, 0.0)
    for pod in pods:
        held = now - max(since, _held_since(pod))
        if held <= 0:
            continue
        starting = held if pod.ready_at is None else min(max(pod.ready_at - (now - held), 0.0), held)
        seconds[Phase.STARTING] += starting
        seconds[_phase(pod)] += held - starting
    ready = seconds[Phase.SERVING]
    if used is None:
        seconds[Phase.SERVING], seconds[Phase.UNKNOWN] = 0.0, ready
    else:
        seconds[Phase.SERVING], seconds[Phase.HEADROOM] = ready * used, ready * (1 - used)
    by_phase = [gpus.per_replica * seconds[phase] for phase in PHASES]
    # After looks without an answer an increase covers their time too, and so do the GPU-seconds it stands for.
    looks = max(observation.interval_seconds / (now - since), 1.0) if observation is not None else 1.0
    product = _product(observation, ready=gpus.per_replica * ready, counted=looks * sum(by_phase))
    return Account(*by_phase, *product)


def held_gpus(pods: Sequence[Pod], gpus: GpuShape, *, now: float) -> int:
    """GPUs that the pods hold at this moment."""
    return gpus.per_replica * sum(_held_since(pod) <= now for pod in pods)


def _held_since(pod: Pod) -> float:
    """When a pod got its GPUs, with its node. Of a pod of the past only the time when it was ready may be known."""
    if pod.scheduled_at is not None:
        return pod.scheduled_at
    return math.inf if pod.ready_at is None else pod.ready_at


def _phase(pod: Pod) -> Phase:
    """Of a pod that has been ready; that of a ready one is divided later."""
    if pod.cordoned or pod.deleting:
        return Phase.DRAINING
    return Phase.SERVING if pod.ready and not pod.isolated else Phase.UNAVAILABLE


def _used_share(
    pods: Sequence[Pod], observation: Observation | None, slots_used: float | None, slots_per_replica: float | None
) -> float | None:
    """Part of the slots of ready replicas that requests use, 0..1."""
    working = {pod.name for pod in pods if pod.ready and _phase(pod) is Phase.SERVING}
    if slots_used is None or not slots_per_replica or not working:
        return None
    # What runs on draining replicas is in the sum, and takes no slot here.
    readings = observation.pods if observation is not None else ()
    running = {reading.name: reading.running_requests.value or 0.0 for reading in readings}
    elsewhere = sum(count for name, count in running.items() if name not in working)
    everywhere = sum(running.values())
    here = slots_used * (1 - elsewhere / everywhere) if everywhere else slots_used
    return min(here / (slots_per_replica * len(working)), 1.0)


def _product(observation: Observation | None, *, ready: float, counted: float) -> tuple[float, ...]:
    """The fields of an account from ``idle`` on."""
    if observation is None:
        return ()
    active, finished = observation.gpu_active_ratio.value, observation.finished_output_tokens
    tokens, share = observation.generated_tokens.value, observation.reasoning_share.value
    return (
        0.0 if active is None else ready * (1 - min(active, 1.0)),
        0.0 if active is None else ready,
        0.0 if finished is None else finished.total,
        0.0 if finished is None else counted,
        tokens or 0.0,
        0.0 if tokens is None else counted,
        (tokens or 0.0) * min(share or 0.0, 1.0),
        0.0 if share is None else tokens or 0.0,
    )
