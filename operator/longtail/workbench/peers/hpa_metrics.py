"""HPA v2: what each kind of metric proposes, and how proposals combine.

Read from kubernetes/kubernetes v1.37.2, ``pkg/controller/podautoscaler/replica_calculator.go`` and
``horizontal.go`` (``computeReplicasForMetrics``), ``metrics/utilization.go``.

Quirks kept: quantities are integers in thousandths; the mean over pods is truncated before the ratio is
taken; an AverageValue target inside the tolerance proposes *status* replicas, surge pods included (the bug
of kubernetes#141134, off with ``surge_bug=False``); a Value target multiplies by *ready* pods but holds
*spec* replicas; External metrics never look at pods at all; a metric that fails blocks decreases only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Relative distance from the target that is not worth a move, by direction."""

    up: float = 0.1
    down: float = 0.1

    def within(self, ratio: float) -> bool:
        """True when nothing should move; False for NaN.

        >>> Tolerances().within(1.1), Tolerances().within(0.89)
        (True, False)
        """
        return 1.0 - self.down <= ratio <= 1.0 + self.up


def milli(value: float) -> int:
    """Thousandths, truncated towards zero as KEDA and the adapters do.

    >>> milli(0.7), milli(1.0006)
    (700, 1000)
    """
    return int(value * 1000)


def milli_target(value: float) -> int:
    """A target as the API server keeps it: a decimal, rounded up to thousandths.

    >>> milli_target(1.001), milli(1.001)  # a metric goes through binary floating point, a target does not
    (1001, 1000)
    """
    return math.ceil(round(value * 1000, 6))


def _ratio(usage: int, target: int) -> float:
    if target == 0:
        return math.copysign(math.inf, usage) if usage else math.nan
    return usage / target


def average_value_replicas(
    *,
    total: float,
    target: float,
    status_replicas: int,
    spec_replicas: int,
    tolerances: Tolerances,
    surge_bug: bool = True,
) -> int:
    """External or Object metric with AverageValue: ``total`` over ``target`` per replica.

    >>> average_value_replicas(
    ...     total=111, target=10, status_replicas=10, spec_replicas=10, tolerances=Tolerances())
    12
    """
    usage, per_replica = milli(total), milli_target(target)
    if tolerances.within(_ratio(usage, per_replica * status_replicas)):
        return status_replicas if surge_bug else spec_replicas
    return min(math.ceil(usage / per_replica), MAX_INT32)


def value_replicas(
    *, total: float, target: float, spec_replicas: int, ready_replicas: int, tolerances: Tolerances
) -> int:
    """External or Object metric with Value: the ratio times ready pods; from 0, the ratio itself.

    >>> value_replicas(total=30, target=10, spec_replicas=4, ready_replicas=2, tolerances=Tolerances())
    6
    """
    ratio = milli(total) / milli_target(target)
    if spec_replicas == 0:
        return math.ceil(ratio)
    if tolerances.within(ratio):
        return spec_replicas
    return min(math.ceil(ratio * ready_replicas), MAX_INT32)


def per_pod_replicas(
    *,
    usage: Mapping[str, int],
    pending: frozenset[str],
    missing: frozenset[str],
    target: int,
    fill_when_low: int,
    spec_replicas: int,
    tolerances: Tolerances,
) -> int | None:
    """Pods and Resource metrics: integers per pod, with the pessimistic fill for pods without a number.

    Args:
        usage: counted pods. Thousandths for a Pods metric; whole percent of the request for Utilization
            (equal requests), of which the mean is truncated to an integer just the same.
        pending: pods in phase Pending: they count as 0 when growing, and not at all otherwise.
        missing: pods without a sample: at ``fill_when_low`` when shrinking, 0 when growing.
        target: wanted mean, in the unit of ``usage``.
        fill_when_low: the target itself for a Pods metric, max(100, target) for Utilization.
        spec_replicas: what is held inside the tolerance.
        tolerances: as in ``Tolerances``.

    Returns:
        Proposed replicas, or None where the controller reports an error (no counted pod).
    """
    if not usage:
        return None

    def ratio_of(values: Sequence[int]) -> float:
        return int(sum(values) / len(values)) / target

    ratio = ratio_of(list(usage.values()))
    grows_over_pending = bool(pending) and ratio > 1.0
    if not grows_over_pending and not missing:
        return spec_replicas if tolerances.within(ratio) else math.ceil(ratio * len(usage))
    filled = list(usage.values())
    if ratio < 1.0:
        filled += [fill_when_low] * len(missing)
    elif ratio > 1.0:
        filled += [0] * len(missing)
    if grows_over_pending:
        filled += [0] * len(pending)
    new_ratio = ratio_of(filled)
    if tolerances.within(new_ratio) or (ratio < 1.0 < new_ratio) or (new_ratio < 1.0 < ratio):
        return spec_replicas
    replicas = math.ceil(new_ratio * len(filled))
    if (new_ratio < 1.0 and replicas > spec_replicas) or (new_ratio > 1.0 and replicas < spec_replicas):
        return spec_replicas
    return replicas


def combined(proposals: Sequence[int | None], *, spec_replicas: int) -> int | None:
    """Highest valid proposal; None (hold) when all failed, or some failed and it would shrink.

    >>> combined([4, None], spec_replicas=6), combined([9, None], spec_replicas=6)
    (None, 9)
    """
    valid = [proposal for proposal in proposals if proposal is not None]
    if not valid:
        return None
    highest = max(0, *valid)
    return None if len(valid) < len(proposals) and highest < spec_replicas else highest
