"""The demand model once more, one service and one number at a time: slow, obvious, and only for comparison.

It keeps every cohort of every tick (the model merges old ones) and sums piece by piece.
"""

import math
from dataclasses import dataclass, field

from longtail.demand import experts, lengths
from longtail.demand.buckets import EDGES
from longtail.demand.observation import Observation, Signal
from longtail.demand.parameters import ServiceParameters

LOWER = EDGES.tolist()
UPPER = [*LOWER[1:], math.inf]
BUCKETS = len(LOWER)
SCALES = (60.0, 180.0, 600.0, 1800.0)


class Curve:
    """A survival function with a constant hazard in each bucket, cut at a limit."""

    def __init__(self, hazard, limit):
        self.hazard, self.limit = hazard, limit

    def pieces(self, until):
        """Of each bucket up to an age: its lower edge, what is left there, its hazard, the width covered."""
        alive = 1.0
        for low, high, hazard in zip(LOWER, UPPER, self.hazard, strict=True):
            width = min(high, until, self.limit) - low
            if width <= 0 or alive < 1e-26:
                return
            yield low, alive, hazard, min(width, 60 / hazard)  # nobody is left beyond
            alive *= math.exp(-min(hazard * width, 60))

    def depth(self, age):
        """Cumulative hazard, 60 more from the limit on."""
        until = min(age, self.limit)
        widths = (max(min(high, until) - low, 0.0) for low, high in zip(LOWER, UPPER, strict=True))
        return sum(h * width for h, width in zip(self.hazard, widths, strict=True)) + 60 * (age >= self.limit)

    def left(self, age):
        """S."""
        return 0.0 if age >= self.limit else math.exp(-min(self.depth(age), 60))

    def mass(self, age=math.inf):
        """I: sum of alive (1 - e^-hx)/h."""
        return sum(alive * -math.expm1(-hazard * width) / hazard for _, alive, hazard, width in self.pieces(age))

    def moment(self, age=math.inf):
        """J: low I + sum of alive (1 - (1 + hx) e^-hx)/h^2; by series where hx is so small that it cancels."""
        total = 0.0
        for low, alive, hazard, width in self.pieces(age):
            x = hazard * width
            first = width**2 * (0.5 - x / 3) if x < 1e-4 else (1 - (1 + x) * math.exp(-x)) / hazard**2
            total += alive * (low * -math.expm1(-x) / hazard + first)
        return total

    def residual(self, age):
        """Mean tokens still to come."""
        alive, tokens = 1.0, 0.0
        for low, high, hazard in zip(LOWER, UPPER, self.hazard, strict=True):
            width = min(high, self.limit) - max(low, age)
            if width > 0:
                tokens += alive * -math.expm1(-hazard * width) / hazard
                alive *= math.exp(-min(hazard * width, 60))
        return tokens


@dataclass
class Cohort:
    requests: float
    age: float
    started: float
    before: float = 0.0
    """Requests before the tick."""
    born: float = 0.0
    """Age before the tick."""
    depth: float = 0.0
    expected: float = 0.0


def fresh(signal: Signal) -> bool:
    return signal.value is not None and signal.fresh


@dataclass
class ScalarService:
    """State of one service; `tick` is the fold."""

    parameters: ServiceParameters
    cohorts: list[Cohort] = field(default_factory=list)
    ended: list[float] = field(default_factory=lambda: [0.0] * BUCKETS)
    exposed: list[float] = field(default_factory=lambda: [0.0] * BUCKETS)
    recent_ended: list[float] = field(default_factory=lambda: [0.0] * BUCKETS)
    recent_exposed: list[float] = field(default_factory=lambda: [0.0] * BUCKETS)
    requests: list[float] = field(default_factory=lambda: [0.0] * len(SCALES))
    seconds: list[float] = field(default_factory=lambda: [0.0] * len(SCALES))
    busy: float = 0.0
    tokens: float = 0.0
    running: float = 0.0
    running_fresh: bool = False
    waiting: float = 0.0
    waiting_fresh: bool = False
    now: float | None = None

    def curves(self) -> tuple[Curve, Curve]:
        """Settled and recent lengths."""
        limit, mean = self.parameters.max_output_tokens, self.parameters.mean_output_tokens
        share = lengths.PRIOR_REQUESTS / BUCKETS
        hazard = []
        for b in range(BUCKETS):
            weight = min(UPPER[b] - LOWER[b], mean) * share
            hazard.append(min((self.ended[b] + weight / mean) / (self.exposed[b] + weight), 1.0))
        settled = Curve(hazard, limit)
        recent = []
        for b in range(BUCKETS):
            weight = min(UPPER[b] - LOWER[b], settled.mass()) * share
            raw = (self.recent_ended[b] + weight * hazard[b]) / (self.recent_exposed[b] + weight)
            recent.append(min(max(raw, 1e-9), 1.0))
        return settled, Curve(recent, limit)

    def rate(self, scale: int) -> float:
        return self.requests[scale] / self.seconds[scale] if self.seconds[scale] > 0 else 0.0

    def tick(self, seen: Observation, now: float):
        """Advances to ``now`` and returns what the model should say."""
        settled, recent = self.curves()
        first = self.now is None
        elapsed = 0.0 if self.now is None else now - self.now
        covers = 0 < elapsed <= 600 and 0.5 * elapsed <= seen.interval_seconds <= 2 * elapsed
        n, q, generated = seen.running_requests, seen.waiting_everywhere, seen.generated_tokens
        if covers and fresh(n) and self.running_fresh and fresh(generated) and generated.value > 0:
            kept = math.exp(-elapsed / 120)
            self.busy = self.busy * kept + 0.5 * (self.running + n.value) * seen.interval_seconds
            self.tokens = self.tokens * kept + generated.value
        per_token = self.parameters.objective.time_per_output_token_seconds
        if self.tokens > 1e-6 and self.busy > 1e-6:
            per_token = min(max(self.busy / self.tokens, 1e-3), 10.0)
        started, exposed = 0.0, [0.0] * BUCKETS
        if elapsed > 0:
            started, exposed = self.flow(seen, recent, elapsed / per_token, elapsed, covers, first)
        if fresh(n):
            self.match(n.value, recent, seen.attained_tokens, elapsed)
        if elapsed > 0:
            self.expose(exposed, elapsed / per_token)
        self.learn_lengths(seen, settled, recent, exposed, elapsed, covers)
        self.learn_arrivals(seen, started, elapsed, covers)
        if fresh(n):
            self.running = n.value
        self.running_fresh = fresh(n)
        if fresh(q):
            self.waiting = q.value
        self.waiting_fresh = fresh(q)
        self.now = now
        return self.say(seen, settled, recent, per_token)

    def flow(self, seen, curve, step, elapsed, covers, first):
        """Ages the cohorts by a step in tokens and adds the newborn; returns starts and their tokens by bucket.

        Twice: first to see how many tokens were written in each bucket, which with the endings gives the tick's own
        hazards, then with those.
        """
        for cohort in self.cohorts:
            cohort.before, cohort.born = cohort.requests, cohort.age
        self.age_all(curve, step)
        if first:
            started = 0.0
        elif covers and fresh(seen.first_tokens):
            started = seen.first_tokens.value * elapsed / seen.interval_seconds
        elif fresh(seen.running_requests):
            survivors = sum(cohort.requests for cohort in self.cohorts)
            started = max(seen.running_requests.value - survivors, 0.0) * step / curve.mass(step)
        else:
            started = self.rate(2) * elapsed
        if covers and fresh(seen.running_requests) and seen.finished_output_tokens is not None:
            guess = self.newborn_tokens(curve, step, started)
            self.expose(guess, step)
            hazard = []
            for b in range(BUCKETS):
                weight = lengths.TICK_REQUESTS * min(UPPER[b] - LOWER[b], curve.mass())
                ended = seen.finished_output_tokens.counts[b]
                raw = (ended + weight * curve.hazard[b]) / (guess[b] + weight)
                hazard.append(min(max(raw, 1e-9), 1.0))
            curve = Curve(hazard, curve.limit)
        self.age_all(curve, step)
        alive = curve.mass(step)
        exposed = self.newborn_tokens(curve, step, started)
        self.cohorts.append(Cohort(started * alive / step, curve.moment(step) / alive, started))
        return started, exposed

    def age_all(self, curve, step):
        for cohort in self.cohorts:
            cohort.depth = min(max(curve.depth(cohort.born + step) - curve.depth(cohort.born), 0.0), 60)
            cohort.requests = cohort.expected = cohort.before * math.exp(-cohort.depth)
            cohort.age = cohort.born + step

    @staticmethod
    def newborn_tokens(curve, step, started):
        tokens = []
        for b in range(BUCKETS):
            low, high = min(LOWER[b], step), min(UPPER[b], step)
            mass = curve.mass(high) - curve.mass(low)
            tokens.append(started * (mass - (curve.moment(high) - curve.moment(low)) / step))
        return tokens

    def expose(self, exposed, step):
        """Adds the tokens written by the cohorts that were there before."""
        for cohort in self.cohorts:
            if cohort.before <= 0:
                continue
            depth = cohort.depth
            if cohort.expected > 1e-6 and cohort.requests > 1e-6:
                depth = min(max(depth - math.log(cohort.requests / cohort.expected), 0.0), depth + 3)
            average = cohort.before * (-math.expm1(-depth) / depth if depth > 1e-5 else 1.0)
            for b in range(BUCKETS):
                inside = min(UPPER[b], cohort.born + step) - max(LOWER[b], cohort.born)
                exposed[b] += average * max(inside, 0.0)

    def match(self, running, curve, attained, elapsed):
        """Cohorts add up to the gauge."""
        bounded = elapsed > 0 and self.running_fresh
        newborn = self.cohorts[-1] if self.cohorts else None
        most = [(c.started if c is newborn else c.before) if bounded else math.inf for c in self.cohorts]
        low, high = 0.0, 1e12
        for _ in range(200):  # the factor by which all grow or shrink, by bisection
            factor = math.sqrt(low * high) if low > 0 else high / 1e3
            total = sum(min(c.requests * factor, m) for c, m in zip(self.cohorts, most, strict=True))
            low, high = (factor, high) if total < running else (low, factor)
            if high < 1e-12:
                break
        for cohort, bound in zip(self.cohorts, most, strict=True):
            cohort.requests = min(cohort.requests * high, bound)
        total = sum(cohort.requests for cohort in self.cohorts)
        if bounded or total > 1e-6:
            newborn.requests += max(running - total, 0.0)
        elif running > 0:
            many = 32 if self.now is None else 33
            ages = [self.age_at(curve, (i + 0.5) / many) for i in range(many)]
            stretch = 1.0
            if fresh(attained):
                stretch = min(max(attained.value / running / (sum(ages) / many), 0.25), 4.0)
            self.cohorts = [
                Cohort(
                    running / many,
                    min(age * stretch, curve.limit),
                    running / many,
                    c.before,
                    c.born,
                    c.depth,
                    c.expected,
                )
                for age, c in zip(ages, [*reversed(self.cohorts), *[Cohort(0, 0, 0)] * many][:many], strict=True)
            ]

    @staticmethod
    def age_at(curve, share):
        """Age below which a share of the requests in flight is, by bisection."""
        low, high = 0.0, curve.limit
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if curve.mass(middle) < share * curve.mass() else (low, middle)
        return low

    def learn_lengths(self, seen, settled, recent, exposed, elapsed, covers):
        if not (covers and self.running_fresh and fresh(seen.running_requests) and fresh(seen.waiting_everywhere)):
            return
        if seen.finished_output_tokens is None:
            return
        ended = list(seen.finished_output_tokens.counts)  # on the grid already
        finished = sum(ended)
        last = max(b for b in range(BUCKETS) if LOWER[b] < settled.limit)
        ended[last] *= -math.expm1(-settled.hazard[last] * (settled.limit - LOWER[last]))
        kept = 0.5 ** min(elapsed / lengths.HALF_LIFE_SECONDS, finished / lengths.HALF_LIFE_REQUESTS)
        kept_recent = 0.5 ** (elapsed / lengths.RECENT_SECONDS)
        for b in range(BUCKETS):
            self.ended[b] = self.ended[b] * kept + ended[b]
            self.exposed[b] = self.exposed[b] * kept + exposed[b]
            self.recent_ended[b] = self.recent_ended[b] * kept_recent + ended[b]
            self.recent_exposed[b] = self.recent_exposed[b] * kept_recent + exposed[b]

    def learn_arrivals(self, seen, started, elapsed, covers):
        gauges = fresh(seen.running_requests) and fresh(seen.waiting_everywhere)
        if not covers or not (fresh(seen.arrivals) or (gauges and self.waiting_fresh and self.running_fresh)):
            return
        growth = seen.waiting_everywhere.value - self.waiting if gauges and self.waiting_fresh else 0.0
        span, arrived = elapsed, max(started + growth, 0.0)
        if fresh(seen.arrivals):
            span, arrived = seen.interval_seconds, seen.arrivals.value
        for i, scale in enumerate(SCALES):
            kept = math.exp(-span / scale)
            self.requests[i] = self.requests[i] * kept + arrived / span * scale * (1 - kept)
            self.seconds[i] = self.seconds[i] * kept + scale * (1 - kept)

    def say(self, seen, settled, recent, per_token):
        """The answers, with the experts' first weights and all the room in the world."""
        n, q = seen.running_requests, seen.waiting_everywhere
        known = n.value is not None and q.value is not None
        running = n.value if known else sum(cohort.requests for cohort in self.cohorts)
        waiting = q.value if known else self.waiting
        step = self.parameters.startup_seconds / per_token
        last = 0.0
        for cohort in self.cohorts:
            last += cohort.requests * math.exp(-min(recent.depth(cohort.age + step) - recent.depth(cohort.age), 60))
        if waiting:  # there is room: they start within the first of twelve steps
            last += waiting * (recent.mass(step) - recent.mass(step * 11 / 12)) / (step / 12)
        paths = [last + self.rate(i) * per_token * recent.mass(step) for i in range(len(SCALES))]
        roots = [math.sqrt(max(d, 0.0) + 0.25) for d in (running + waiting, *paths)]
        blends = [sum(b * r for b, r in zip(blend, roots, strict=True)) for blend in experts.BLENDS.tolist()]
        return {
            "slots_now": n.value + q.value if known else None,
            "mean_tokens": settled.mass(),
            "owed_tokens": waiting * recent.mass() + sum(c.requests * recent.residual(c.age) for c in self.cohorts),
            "arrivals_per_second": self.rate(1) if self.seconds[0] > 0 else None,
            "slots_forecast": (sum(blends) / len(blends)) ** 2 - 0.25 if self.seconds[0] > 0 else None,
        }
