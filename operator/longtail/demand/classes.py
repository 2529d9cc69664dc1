"""How the work of a service divides among classes of requests.

A class that sends r requests a second of m tokens each holds r m d slots, d being the seconds a token takes (Little),
and d is the same for all in one batch. So its part of the work is its part of r m. Of a few answers the mean says
little: each class is given `PRIOR_ANSWERS` of the common length besides.

No memory: the counts are averages of Prometheus already (see `signals.classes`).
"""

from longtail.demand.estimate import ClassDemand
from longtail.demand.observation import CLASS_RATE_SECONDS, ClassCount, Classes, Quality

PRIOR_ANSWERS = 10.0
"""Lengths of R1 have a standard deviation of 1.2 means: the mean of ten is good to 40 %."""


def divide(classes: Classes) -> tuple[ClassDemand, ...]:
    """The work by class; empty where it is not known, or nothing was answered.

    >>> counted = (ClassCount("chat", 60.0, 400.0, 400_000.0, 200_000.0), ClassCount("", 30.0, 200.0, 1e6, 9e5))
    >>> [(each.name, each.requests_per_second, round(each.mean_tokens), round(each.work_share, 2))
    ...  for each in divide(Classes(counted, 3.0, Quality.FRESH))]
    [('chat', 0.1, 1033, 0.3), ('', 0.05, 4873, 0.7)]
    """
    answers = sum(each.answers for each in classes.counts)
    tokens = sum(each.output_tokens for each in classes.counts)
    if classes.quality is not Quality.FRESH or answers < 1 or tokens < 1:
        return ()
    means = [_mean(each, common=tokens / answers) for each in classes.counts]
    # Nobody for ten minutes: as in the hour before.
    seldom = not any(each.requests > 0 for each in classes.counts)
    sent = [each.answers if seldom else each.requests for each in classes.counts]
    work = [requests * mean for requests, mean in zip(sent, means, strict=True)]
    total = sum(work)
    if not total > 0:
        return ()
    return tuple(
        ClassDemand(
            name=each.name,
            requests_per_second=each.requests / CLASS_RATE_SECONDS,
            mean_tokens=mean,
            reasoning_share=_reasoning(each),
            work_share=part / total,
        )
        for each, mean, part in zip(classes.counts, means, work, strict=True)
    )


def _mean(count: ClassCount, *, common: float) -> float:
    return (count.output_tokens + PRIOR_ANSWERS * common) / (count.answers + PRIOR_ANSWERS)


def _reasoning(count: ClassCount) -> float | None:
    """Not known where the engine tells no reasoning: LiteLLM counts that as none."""
    if not (count.output_tokens > 0 and count.reasoning_tokens > 0):
        return None
    return min(count.reasoning_tokens / count.output_tokens, 1.0)
