"""Timeout cascades: answers that come too late are asked for again, and that is what makes them too late.

Clients hang up, what was written for them is lost, and they ask again: arrivals double, slots are busy with answers
that nobody waits for any more, and it goes on long after whatever began it. In such a state nothing that is counted
means what it usually does. Arrivals count the same questions several times; answers that are cut say nothing about how
long answers are; a queue of thousands is no error of the forecast. So while it lasts, distinct work is counted, and
lengths, experts and margins are not learned (measured on R1 with demand at twice the GPUs for 15 minutes: without this
the mean length rises from 1,800 to 4,500 tokens, and an hour later ten times too many replicas are asked for).

vLLM counts no aborted request anywhere (0.33). But what starts either runs on, finishes or is given up, so that

    given up = first tokens - finished requests - growth of the running requests

which needs no counter of aborts and sees those that held a slot. Preempted requests leave and come back, and cancel
out. Pods that go away take what they run with them, so an interval in which the pods changed is left out. Where an
engine does count (SGLang), the larger number holds, which has those that gave up in the queue.

It is on when all of it is seen at once: many of those that end were given up, many more than usual; requests wait;
more arrive than are answered; and fewer are answered than before, or hardly any. People who stop an answer because
they have read enough do all of the first and nothing of the rest.
"""

from dataclasses import dataclass

import numpy as np

from longtail.demand.buckets import DUST, Array, Mask, dusted
from longtail.demand.estimate import Cascade

MEMORY_SECONDS = 60.0
USUAL_SECONDS = 1800.0
"""Memory of the share that is usual; it begins at 0."""
RISE = 0.25
"""Share of the ends that are given up, above the usual one, from which on it may be a cascade ..."""
FALL = 0.1
"""... and below which it is over."""
CALM_SECONDS = 60.0
"""For so long."""
FEWER = 0.9
"""Answers per second, over the most in the last half hour or so, from which on they have become fewer."""
HARDLY = 0.5
"""Share of the ends that are given up from which on hardly anybody is answered, whatever there was before."""
LEAST_REQUESTS = 5.0
"""That were given up within the memory: a pool of two requests has no cascades."""
LONGEST_SECONDS = 3600.0
"""Nobody is believed to wait longer."""


@dataclass(frozen=True, slots=True)
class CascadeState:
    """What is remembered. Shape (services,)."""

    aborted: Array
    """Requests that were given up, with forgetting; what preemption does to the balance is in it with its sign."""
    finished: Array
    arrived: Array
    seconds: Array
    """Weight behind the three."""
    usual: Array
    """Share of the ends that were given up outside of cascades."""
    peak: Array
    """Most that were answered, per second."""
    since: Array
    """Unix seconds since which it has been on; 0 when it is not."""
    calm_seconds: Array
    """For how long it has looked over."""
    before: Array
    """Requests per second as they arrived when it began, or less if fewer have arrived since."""
    patience_seconds: Array
    """Longest wait since it began: about what clients put up with."""
    pods: Array
    """That reported at the last tick."""

    @classmethod
    def fresh(cls, services: int) -> "CascadeState":
        """Nothing seen."""
        zeros = np.zeros(services)
        return cls(*(zeros for _ in range(11)))

    @property
    def on(self) -> Mask:
        """Where there is a cascade, shape (services,)."""
        result: Mask = self.since > 0
        return result


@dataclass(frozen=True, slots=True)
class Ends:
    """What began and ended in an interval. Shape (services,)."""

    counted_aborts: Array
    counted_known: Mask
    """The engine counts them, and told."""
    started: Array
    finished: Array
    growth: Array
    """Of the running requests."""
    balanced: Mask
    """The three are known, over the same time."""
    pods: Array
    """That report."""


def balance(state: CascadeState, ends: Ends) -> tuple[Array, Mask]:
    """Requests that were given up while they ran, by what is known of the others, and where; shape (services,).

    What preemption does to the balance is in it with its sign.
    """
    known = ends.balanced & (ends.pods == state.pods) & (ends.pods > 0)
    return np.where(known, ends.started - ends.finished - ends.growth, 0.0), known


def aborted(state: CascadeState, ends: Ends) -> tuple[Array, Mask]:
    """Requests that were given up, and where that is known; shape (services,).

    >>> from dataclasses import replace
    >>> def column(*values): return np.array(values)
    >>> before = replace(CascadeState.fresh(2), pods=column(2.0, 2.0))  # of the second a pod has gone away
    >>> ends = Ends(column(3.0, 3.0), column(True, True), column(50.0, 50.0), column(30.0, 30.0), column(5.0, 5.0),
    ...             column(True, True), column(2.0, 1.0))
    >>> aborted(before, ends)[0].tolist()
    [15.0, 3.0]
    """
    left, balanced = balance(state, ends)
    left = np.where(balanced, left, -np.inf)
    counted = np.where(ends.counted_known, ends.counted_aborts, -np.inf)
    known = balanced | ends.counted_known
    return np.where(known, np.maximum(left, counted), 0.0), known


def follow(
    state: CascadeState,
    *,
    ends: Ends,
    arrived: Array,
    covered: Mask,
    waiting: Array,
    waits: Mask,
    now: float,
    elapsed_seconds: float,
) -> tuple[CascadeState, Array]:
    """The state after an interval, and how many distinct requests arrived in it; shape (services,).

    ``arrived`` are all that did, ``covered`` is where they and ``ends`` are of the time since the last tick,
    ``waiting`` how many wait, and ``waits`` where full replicas keep them waiting.

    Each that was given up asks again, so distinct are those that arrived less those; but at least as many as arrived
    before it began (if so many do), for those who have asked for the last time are not asked for again.
    """
    given_up, known = aborted(state, ends)
    learned = covered & known
    kept = float(np.exp(-min(elapsed_seconds / MEMORY_SECONDS, 60.0)))
    lost, done, came = (
        np.where(learned, dusted(total * kept + more), total)
        for total, more in ((state.aborted, given_up), (state.finished, ends.finished), (state.arrived, arrived))
    )
    seconds = np.where(learned, state.seconds * kept + elapsed_seconds, state.seconds)
    share, per_second = _share(lost, done), done / np.maximum(seconds, DUST)
    fading = float(np.exp(-min(elapsed_seconds / USUAL_SECONDS, 60.0)))
    peak = np.where(learned, dusted(np.maximum(state.peak * fading, per_second)), state.peak)
    began = learned & ~state.on & waits & (share >= state.usual + RISE) & (came > done)
    began &= ((per_second <= FEWER * peak) | (share >= HARDLY)) & (lost >= LEAST_REQUESTS)
    calm = state.on & ((share < state.usual + FALL) | ~waits)
    calm_seconds = np.where(calm, state.calm_seconds + elapsed_seconds, 0.0)
    since = np.where(began, now, np.where(calm_seconds >= CALM_SECONDS, 0.0, state.since))
    rate = arrived / max(elapsed_seconds, DUST)
    before = np.where(began, np.maximum(came - lost, 0.0) / np.maximum(seconds, DUST), state.before)
    before = np.where(learned & (since > 0), np.minimum(before, came / np.maximum(seconds, DUST)), before)
    floor = np.minimum(before, rate) * elapsed_seconds
    on = since > 0
    leaving = np.maximum(lost + done, DUST) / np.maximum(seconds, DUST)
    settled = on & learned & (now - since >= 2 * MEMORY_SECONDS)  # while ever more leave, their mean is behind
    wait = np.where(settled, np.minimum(waiting / leaving, LONGEST_SECONDS), 0.0)
    distinct = np.where(on & learned, np.maximum(arrived - np.maximum(given_up, 0.0), floor), arrived)
    after = CascadeState(
        aborted=lost,
        finished=done,
        arrived=came,
        seconds=seconds,
        usual=np.where(learned & ~on, dusted(share + (state.usual - share) * fading), state.usual),
        peak=peak,
        since=since,
        calm_seconds=np.where(on, calm_seconds, 0.0),
        before=before,
        patience_seconds=np.where(on, np.maximum(np.where(state.on, state.patience_seconds, 0.0), wait), 0.0),
        pods=ends.pods,
    )
    return after, distinct


def cascades(
    state: CascadeState, *, slots: Array, wait_seconds: Array, stay_seconds: Array, long_stay_seconds: Array
) -> dict[int, Cascade]:
    """What there is to say, by row, of the services that have a cascade.

    ``slots`` of the whole pool; ``wait_seconds`` is what a request may wait for one, ``stay_seconds`` how long it holds
    it, and all but one in twenty no longer than ``long_stay_seconds``. In a queue that nearly all give up, whoever
    comes to a slot has waited nearly as long as anybody would: the requests that wait over those that leave in a
    second (Little). Of a queue in front of C slots C / S leave in a second, so C x wait / S can be answered while
    their clients are there, where wait is their patience less a long stay, or what the objective allows if more.
    """
    wait = np.maximum(state.patience_seconds - long_stay_seconds, wait_seconds)
    return {
        row: Cascade(
            since=float(state.since[row]),
            aborted_per_second=max(float(state.aborted[row] / state.seconds[row]), 0.0),
            finished_per_second=float(state.finished[row] / state.seconds[row]),
            arrivals_per_second=float(state.arrived[row] / state.seconds[row]),
            distinct_per_second=max(
                float((state.arrived[row] - state.aborted[row]) / state.seconds[row]), float(state.before[row])
            ),
            patience_seconds=float(state.patience_seconds[row]),
            queue_limit=float(slots[row] * wait[row] / stay_seconds[row]),
        )
        for row in np.flatnonzero(state.on).tolist()
    }


def _share(lost: Array, done: Array) -> Array:
    ended = np.maximum(lost, 0.0) + done
    return np.divide(np.maximum(lost, 0.0), ended, out=np.zeros_like(ended), where=ended > DUST)
