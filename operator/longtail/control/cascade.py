"""TimeoutCascade: answers that come too late are asked for again, with the figures and what would end it sooner."""

from datetime import UTC, datetime

from longtail.api.status import ConditionStatus
from longtail.cluster.status import ConditionValue
from longtail.control.outcome import Outcome
from longtail.demand.estimate import Cascade


def timeout_cascade(outcome: Outcome) -> ConditionValue:
    """True from the moment on at which it is seen, until it is over."""
    decision = outcome.decision
    if decision is None or decision.demand is None:
        return ConditionValue("TimeoutCascade", ConditionStatus.UNKNOWN, "NotObserved", "nothing has been seen yet")
    cascade = decision.demand.cascade
    if cascade is None:
        return ConditionValue("TimeoutCascade", ConditionStatus.FALSE, "NoCascade", "answers are not asked for again")
    return ConditionValue("TimeoutCascade", ConditionStatus.TRUE, "AnswersTimeOut", _words(cascade))


def _words(cascade: Cascade) -> str:
    since = f"{datetime.fromtimestamp(cascade.since, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"
    return (
        f"since {since}: {cascade.aborted_per_second:.1f} requests a second are given up and "
        f"{cascade.finished_per_second:.1f} are answered; of {cascade.arrivals_per_second:.1f} that arrive about "
        f"{cascade.distinct_per_second:.1f} are new, and the others asked again; no replica is taken away meanwhile. "
        f"Clients wait for about {cascade.patience_seconds:.0f} s; {cascade.queue_limit:.0f} waiting requests can be "
        "answered by then: limit the queue to that, at the gateway or in the engines (vLLM: --max-num-queued-reqs, for "
        "each replica its part)"
    )
