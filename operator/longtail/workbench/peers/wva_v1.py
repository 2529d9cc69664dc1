"""WVA's first saturation analyzer (percentages), for one variant of a model.

Read from deanlorenz/llm-d-workload-variant-autoscaler 2976e4e (2026-08-18),
``internal/saturationv1/analyzer.go``; defaults from ``internal/config/saturation_scaling.go``.

Quirks kept: saturated replicas are left out of the means, so a fleet that is saturated throughout has spare 0
and grows by one only; one replica a decision in either direction; anything pending, or a wish that is not yet
reality, holds everything; without any metrics nothing changes.

The wish reaches the Deployment through an HPA on the external metric ``wva_desired_replicas`` (AverageValue
1), see ``wva``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from longtail.workbench.peers.wva_signals import PodPeak


@dataclass(frozen=True, slots=True)
class V1Thresholds:
    """``kvCacheThreshold``, ``queueLengthThreshold``, ``kvSpareTrigger``, ``queueSpareTrigger``."""

    kv_saturated: float = 0.80
    queue_saturated: float = 5.0
    kv_spare: float = 0.10
    queue_spare: float = 3.0


def v1_step(peaks: Sequence[PodPeak], *, thresholds: V1Thresholds) -> int:
    """+1, -1 or 0 replicas.

    Up when the mean spare of the unsaturated replicas is too small; down when it would still be large enough
    with their load on one replica less.

    >>> v1_step([PodPeak(0.75, 0.0, None)], thresholds=V1Thresholds())
    1
    >>> v1_step([PodPeak(0.2, 0.0, None)] * 3, thresholds=V1Thresholds())
    -1
    """
    if not peaks:
        return 0
    free = [
        p
        for p in peaks
        if p.kv_used_ratio < thresholds.kv_saturated and p.waiting_requests < thresholds.queue_saturated
    ]
    count = len(free)
    spare_kv = sum(thresholds.kv_saturated - p.kv_used_ratio for p in free) / count if count else 0.0
    spare_queue = sum(thresholds.queue_saturated - p.waiting_requests for p in free) / count if count else 0.0
    if spare_kv < thresholds.kv_spare or spare_queue < thresholds.queue_spare:
        return 1
    if count < 2:
        return 0
    factor = count / (count - 1)
    kv_left = thresholds.kv_saturated - (thresholds.kv_saturated - spare_kv) * factor
    queue_left = thresholds.queue_saturated - (thresholds.queue_saturated - spare_queue) * factor
    return -1 if kv_left >= thresholds.kv_spare and queue_left >= thresholds.queue_spare else 0


def v1_wish(
    peaks: Sequence[PodPeak],
    *,
    thresholds: V1Thresholds,
    current: int,
    pending: int,
    last_wish: int | None,
) -> int:
    """The replicas wanted: a wish under way, or pods under way, hold the model (``current`` is spec)."""
    if not peaks:
        return current
    if last_wish is not None and last_wish not in (0, current):
        return last_wish
    if pending > 0:
        return current
    step = v1_step(peaks, thresholds=thresholds)
    return current + step if step > 0 or current > 1 else current
