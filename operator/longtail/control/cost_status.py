"""From a cost to ``status.cost``: decimal strings, rounded so that noise is no news."""

from longtail.api.status import CostStatus, DayCostStatus
from longtail.control.costs import Cost, plain, priced, significant
from longtail.policy.accounting import Phase
from longtail.policy.fleet import UNKNOWN_GPU_CLASS

_HOUR_SECONDS = 3600


def cost_status(cost: Cost | None) -> CostStatus | None:
    """Return what is known; None where nobody knows how many GPUs a replica takes."""
    if cost is None:
        return None
    hourly = cost.hourly_amount
    return CostStatus(
        gpu_class=None if cost.gpus.gpu_class == UNKNOWN_GPU_CLASS else cost.gpus.gpu_class,
        gpus=cost.held_gpus,
        currency=None if cost.price is None else cost.price.currency,
        hourly_amount=None if hourly is None else plain(hourly),
        last_day=_last_day(cost),
    )


def _last_day(cost: Cost) -> DayCostStatus | None:
    day = cost.day
    if not day.gpu_seconds:
        return None
    hours = day.gpu_seconds / _HOUR_SECONDS
    idle = day.idle_share
    return DayCostStatus(
        known_hours=round(cost.day_seconds / _HOUR_SECONDS),
        gpu_hours=significant(hours),
        amount=_money(hours, cost),
        amount_per_thousand_answers=_money(day.gpu_hours_per_answer, cost, times=1e3),
        amount_per_million_output_tokens=_money(day.gpu_hours_per_output_token, cost, times=1e6),
        amount_per_million_reasoning_tokens=_money(day.gpu_hours_per_reasoning_token, cost, times=1e6),
        headroom_percent=round(100 * day.share(Phase.HEADROOM)),
        starting_percent=round(100 * day.share(Phase.STARTING)),
        draining_percent=round(100 * day.share(Phase.DRAINING)),
        idle_percent=None if idle is None else round(100 * idle),
    )


def _money(gpu_hours: float | None, cost: Cost, *, times: float = 1.0) -> str | None:
    amount = priced(gpu_hours, cost.price)
    return None if amount is None else significant(amount * times)
