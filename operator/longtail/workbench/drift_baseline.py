"""The rule that a dashboard would have: the mean length of the last ten minutes over that of the last six hours.

It is given the finished requests, as engines export them, and the same smallest factor and pause as the product.
"""

import numpy as np

from longtail.demand.drift import LEAST_FACTOR, SETTLING_SECONDS
from longtail.workbench.drift_truth import Alarm
from longtail.workbench.schedule import Schedule
from longtail.workbench.traces.trace import Floats

SHORT_SECONDS, LONG_SECONDS = 600.0, 6 * 3600.0
LEAST_REQUESTS = 30


def ratio_alarms(schedule: Schedule, at_seconds: Floats) -> list[Alarm]:
    """Alarms at ``at_seconds``, ascending: when the ratio leaves its band, at most one in `SETTLING_SECONDS`."""
    order = np.argsort(schedule.finish_seconds, kind="stable")
    finish, tokens = schedule.finish_seconds[order], schedule.trace.output_tokens[order]
    total = np.concatenate([[0.0], np.cumsum(tokens, dtype=np.float64)])
    now = np.searchsorted(finish, at_seconds, side="right")
    means = []
    for span in (SHORT_SECONDS, LONG_SECONDS):
        since = np.searchsorted(finish, at_seconds - span, side="right")
        count = now - since
        mean = (total[now] - total[since]) / np.maximum(count, 1)
        means.append(np.where(count >= LEAST_REQUESTS, mean, np.nan))
    ratio = means[0] / means[1]
    alarms: list[Alarm] = []
    armed = True
    for at, value in zip(at_seconds.tolist(), ratio.tolist(), strict=True):
        if at < LONG_SECONDS / 6 or np.isnan(value):  # an hour to begin with
            continue
        if 1 / LEAST_FACTOR < value < LEAST_FACTOR:
            armed = True
        elif not alarms or (
            at - alarms[-1].at_seconds >= SETTLING_SECONDS and (armed or alarms[-1].longer is not (value > 1))
        ):
            alarms.append(Alarm(at_seconds=at, longer=value > 1))
            armed = False
    return alarms
