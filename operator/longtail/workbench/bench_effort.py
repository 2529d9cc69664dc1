"""What thinking less buys when demand is twice what all GPUs can do, and clients give up and ask again.

One pool, request by request, with the lengths of DeepSeek-R1's production day: each request is drawn whole (prompt,
reasoning, answer) from it. Poisson arrivals step from 60 % of the GPUs that there are to twice as much for 15 minutes,
and back. Clients hang up 120 s after they asked, wait 5 s and ask again, twice. At 10 ms a token 98.9 % of the day's
answers take less than that in an empty pool; at 15 ms it would be 97.3 %, and the longest of them would be asked for in
vain at any size of pool.

The same requests are served without an effort policy, with levels of thinking published, and both with a queue that
is no longer than the operator recommends. Everything else is at its defaults.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from longtail.demand.estimate import Cascade
from longtail.policy.fleet import EffortLevel, EffortPolicy, EffortRules
from longtail.workbench.bench_cost import digest_of_model, machine_in_words
from longtail.workbench.fleet.pilots import Longtail, longtail
from longtail.workbench.fleet.pool import Orders
from longtail.workbench.fleet.run import Run, Timeline
from longtail.workbench.fleet.setting import Clients, ReplicaSize, Requests, Setting
from longtail.workbench.fleet.simulation import Sight, simulate
from longtail.workbench.traces import arrivals, catalogue
from longtail.workbench.traces.trace import Floats, Trace

SECONDS_PER_TOKEN = 0.010
GPUS = 8
"""Replicas that can have GPUs, of one GPU each."""
SLOTS = 24
USUAL, SURGE = 0.6, 2.0
"""Demand over all slots of these GPUs."""
STEP_SECONDS = 7200
"""Warm-up until then, for lengths, arrivals and the errors of the forecast to be known."""
BACK_SECONDS = STEP_SECONDS + 900
MEASURED_FROM_SECONDS = STEP_SECONDS - 1800
END_SECONDS = BACK_SECONDS + 4500
CLIENTS = Clients(timeout_seconds=120.0, retries=2, pause_seconds=5.0)
STEADY_MINUTES = 5
"""Attainment is back when it has been for so long."""
NEAR = 0.01
"""Back means: no more than this below what it was in the half hour before the step."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Way:
    """How the pool is run."""

    name: str
    effort: EffortRules | None = None
    limited: bool = False
    """Whether the queue is as long as the operator recommends, and no longer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way on the requests of one seed. Shares are 0..1, of distinct requests by the time of their first attempt."""

    way: str
    seed: int
    answered: float
    """Of those asked during the step: answered in time, at any attempt."""
    answered_first: float
    """Of those: at the first attempt."""
    answered_all: float
    """Of all that were measured, at any attempt."""
    goodput: float
    """Answered in time per GPU-hour."""
    gpu_hours: float
    recovery_minutes: float
    """From the end of the step until the share answered at the first attempt is back; infinite: not before the end."""
    cascade_minutes: float
    """For so long the operator saw a timeout cascade."""
    retries: int
    aborted_tokens: float
    level_changes: int
    level_turns: int
    """Changes in the other direction than the one before."""
    capped: float
    """Of those answered: share that had to think less than they would have."""
    cut_tokens: float
    """Mean tokens that each of these had to do without."""
    largest_after: int
    """Most replicas that were asked for from ten minutes after the end of the last cascade on, else of the step."""


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """All outcomes, and the timelines of the first seed by way."""

    setting: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    timelines: Mapping[str, Timeline]

    def as_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists of them only; None for what is infinite."""
        rows = [asdict(outcome) for outcome in self.outcomes]
        return {
            "setting": dict(self.setting),
            "outcomes": [{name: None if value == math.inf else value for name, value in row.items()} for row in rows],
            "timelines": {
                way: {name: column.tolist() for name, column in asdict(timeline).items()}
                for way, timeline in self.timelines.items()
            },
        }


def ways(defaults: EffortRules) -> Sequence[Way]:
    """What is compared; ``defaults`` are the levels of a user who writes none."""
    published = replace(defaults, policy=EffortPolicy.PUBLISH)
    two = (EffortLevel("high"), EffortLevel("medium", 8192), EffortLevel("low", 2048))
    return (
        Way("no effort policy"),
        Way("effort, down to 2048", replace(published, levels=two)),
        Way("effort, default levels", published),
        Way("no effort policy, queue limit", limited=True),
        Way("effort, default levels, queue limit", published, limited=True),
    )


def run_effort_benchmark(data: Path, *, defaults: EffortRules, seeds: int, progress: Progress) -> Effects:
    """Every way on the requests of every seed. Reads ``data``."""
    day, found, timelines = catalogue.r1_day(data), [], {}
    compared = ways(defaults)
    for seed in range(seeds):
        trace, limit = overload(day, seed=seed), 0
        for index, way in enumerate(compared):
            run, pilot = fly(trace, way, seed=seed, queue_limit=limit)
            # The first way is without a limit: what is said there is what the others are given.
            limit = limit or pilot.recommended_queue
            found.append(_outcome(way, seed, run, pilot))
            if seed == 0:
                timelines[way.name] = run.timeline
            progress(f"seed {seed}: {way.name}", (seed + (index + 1) / len(compared)) / seeds)
    setting = {
        "machine": machine_in_words(),
        "model": digest_of_model(),
        "seeds": seeds,
        "seconds_per_token": SECONDS_PER_TOKEN,
        "gpus": GPUS,
        "slots": GPUS * SLOTS,
        "levels": [level.thinking_tokens for level in defaults.levels],
        "in_time_unloaded": float((day.output_tokens * SECONDS_PER_TOKEN <= CLIENTS.timeout_seconds).mean()),
    }
    return Effects(setting, found, timelines)


def overload(day: Trace, *, seed: int) -> Trace:
    """Whole requests drawn from a day, as many as keep the slots busy at `USUAL` and `SURGE`."""
    rng = np.random.default_rng([seed, 8])
    per_second = GPUS * SLOTS / float(day.output_tokens.mean() * SECONDS_PER_TOKEN)
    usual = arrivals.constant(END_SECONDS, USUAL * per_second)
    rate = arrivals.burst(usual, STEP_SECONDS, BACK_SECONDS - STEP_SECONDS, SURGE / USUAL)
    at = arrivals.poisson(rate, rng)
    drawn = rng.integers(0, len(day), len(at))
    reasoning = None if day.reasoning_tokens is None else day.reasoning_tokens[drawn]
    return Trace("overload", at, day.input_tokens[drawn], day.output_tokens[drawn], reasoning)


@dataclass(slots=True)
class Watched:
    """longtail at the controls, and what it said."""

    longtail: Longtail
    cascades: list[tuple[float, Cascade]]
    """When there was one."""
    desired: list[tuple[float, int]]
    levels: list[int]
    """That were chosen since measuring began, in order; the same is not told twice."""
    period_seconds: float = 15.0
    name: str = "longtail"

    def decide(self, sight: Sight) -> Orders:
        """One tick."""
        orders = self.longtail.decide(sight)
        decision = self.longtail.pool.decision
        assert decision is not None
        self.desired.append((sight.at_seconds, decision.desired))
        if decision.demand is not None and decision.demand.cascade is not None:
            self.cascades.append((sight.at_seconds, decision.demand.cascade))
        level = 0 if decision.effort is None else decision.effort.index
        if sight.at_seconds >= MEASURED_FROM_SECONDS and (not self.levels or self.levels[-1] != level):
            self.levels.append(level)
        return orders

    @property
    def recommended_queue(self) -> int:
        """As told in the last cascade; 0 if there was none."""
        return round(self.cascades[-1][1].queue_limit) if self.cascades else 0


def fly(trace: Trace, way: Way, *, seed: int, queue_limit: int = 0) -> tuple[Run, Watched]:
    """One way, from the start to the end. A ``queue_limit`` of 0 is none."""
    setting = Setting(
        replica=ReplicaSize(slots=SLOTS, seconds_per_token=SECONDS_PER_TOKEN, kv_capacity_tokens=None),
        gpu_limit=((0.0, GPUS),),
        max_replicas=3 * GPUS,
        initial_replicas=math.ceil(USUAL * GPUS),
        measured_from_seconds=MEASURED_FROM_SECONDS,
        clients=CLIENTS,
        queue_limit=queue_limit if way.limited and queue_limit else None,
        seed=seed,
    )
    pilot = longtail(setting, max_output_tokens=32_768.0, startup_seconds=setting.cold_start_seconds, effort=way.effort)
    watched = Watched(pilot, [], [], [])
    return simulate(Requests.of(trace, duration_seconds=END_SECONDS), setting, watched), watched


def recovery_minutes(timeline: Timeline) -> float:
    """From the end of the step until as many are answered at their first attempt as before it."""
    before = _share(timeline, MEASURED_FROM_SECONDS, STEP_SECONDS, timeline.answered_first)
    minutes = (END_SECONDS - BACK_SECONDS) // 60 - STEADY_MINUTES
    for minute in range(minutes):
        start = BACK_SECONDS + 60 * minute
        end = start + 60 * STEADY_MINUTES
        if _share(timeline, start, end, timeline.answered_first) >= before - NEAR:
            return float(minute)
    return math.inf


def _outcome(way: Way, seed: int, run: Run, pilot: Watched) -> Outcome:
    timeline, answers = run.timeline, run.answers
    calm = max([BACK_SECONDS, *(at for at, _ in pilot.cascades)]) + 600.0
    steps = np.sign(np.diff(pilot.levels))
    return Outcome(
        way=way.name,
        seed=seed,
        answered=_share(timeline, STEP_SECONDS, BACK_SECONDS, timeline.answered),
        answered_first=_share(timeline, STEP_SECONDS, BACK_SECONDS, timeline.answered_first),
        answered_all=float(timeline.answered.sum() / timeline.asked.sum()),
        goodput=run.goodput,
        gpu_hours=run.gpu_hours.total,
        recovery_minutes=recovery_minutes(timeline),
        cascade_minutes=len(pilot.cascades) * pilot.period_seconds / 60.0,
        retries=answers.retries,
        aborted_tokens=answers.aborted_tokens,
        level_changes=answers.level_changes,
        level_turns=int((steps[1:] != steps[:-1]).sum()),
        capped=answers.capped_requests / max(answers.answered, 1),
        cut_tokens=answers.cut_tokens / max(answers.capped_requests, 1),
        largest_after=max((desired for at, desired in pilot.desired if at >= calm), default=0),
    )


def _share(timeline: Timeline, start: float, end: float, answered: Floats) -> float:
    """Of the requests that were first asked from start to end."""
    inside = (timeline.at_seconds >= start) & (timeline.at_seconds < end)
    return float(answered[inside].sum() / max(timeline.asked[inside].sum(), 1.0))
