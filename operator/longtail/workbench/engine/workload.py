"""What clients ask: lengths of a published reasoning service, arrivals at a rate that varies in time."""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from longtail.workbench.engine.request import Request

_BATCH = 512
"""Draws made at a time; a draw's value depends on its index only."""


@dataclass(frozen=True, slots=True)
class LengthLaw:
    """A mixture of lognormals, rounded, at least 1; values above the cap become the cap."""

    weights: tuple[float, ...]
    mu: tuple[float, ...]
    sigma: tuple[float, ...]
    cap_tokens: int

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Draw ``count`` lengths in tokens."""
        part = rng.choice(len(self.weights), size=count, p=np.asarray(self.weights) / math.fsum(self.weights))
        drawn = np.exp(np.asarray(self.mu)[part] + np.asarray(self.sigma)[part] * rng.standard_normal(count))
        return np.clip(np.rint(drawn), 1, self.cap_tokens).astype(np.int64)


R1_OUTPUT = LengthLaw(
    weights=(0.595, 0.194, 0.211), mu=(6.156, 7.228, 8.101), sigma=(0.543, 0.182, 0.775), cap_tokens=32_768
)
"""Output of DeepSeek-R1 in production (ServeGen, Alibaba Cloud, Apache-2.0, arXiv 2505.09999), fitted to one
day of 1.38 M requests: mean 1,526, p50 792, p99 12,607, cap 32,768."""

R1_PROMPT = LengthLaw(weights=(1.0,), mu=(math.log(208),), sigma=(1.901,), cap_tokens=57_284)
"""Prompts of the same day: median 208 and mean 1,268 are matched (sigma^2 = 2 ln(1268 / 208)), the cap is the
longest seen. The 99th percentile comes out at 17 k, not at the 23 k that was seen."""


@dataclass(frozen=True)
class RateProfile:
    """Requests per second as a piecewise linear function of time: points (seconds, requests per second).

    Before the first point the rate is the first one's, after the last the last one's. Two points at the same
    time make a step. With ``repeat`` the profile starts again after its last point.
    """

    points: tuple[tuple[float, float], ...]
    repeat: bool = False

    def __post_init__(self) -> None:
        times = [at for at, _ in self.points]
        if not self.points or times != sorted(times) or times[0] < 0:
            raise ValueError(f"RateProfile: points must be at ascending times >= 0, got {self.points!r}")
        for at, rate in self.points:
            if not (math.isfinite(at) and math.isfinite(rate) and rate >= 0):
                raise ValueError(f"RateProfile: rates must be finite and >= 0, got {rate!r} at {at!r} s")
        if self.repeat and times[-1] <= 0:
            raise ValueError(f"RateProfile: a repeated profile needs a last point after 0 s, got {times[-1]}")

    @classmethod
    def steady(cls, rate: float) -> "RateProfile":
        """One rate for ever."""
        return cls(points=((0.0, rate),))

    @classmethod
    def step(cls, *, low: float, high: float, at_seconds: float) -> "RateProfile":
        """From one rate to another at once."""
        return cls(points=((0.0, low), (at_seconds, low), (at_seconds, high)))

    @classmethod
    def rise_and_fall(
        cls, *, low: float, high: float, lead_seconds: float, ramp_seconds: float, plateau_seconds: float
    ) -> "RateProfile":
        """Low, a linear rise, a plateau, a linear fall, low again."""
        top = lead_seconds + ramp_seconds
        fall = top + plateau_seconds
        return cls(points=((0.0, low), (lead_seconds, low), (top, high), (fall, high), (fall + ramp_seconds, low)))

    @classmethod
    def burst(cls, *, low: float, high: float, at_seconds: float, seconds: float) -> "RateProfile":
        """A rectangle on a steady rate."""
        end = at_seconds + seconds
        return cls(points=((0.0, low), (at_seconds, low), (at_seconds, high), (end, high), (end, low)))

    def faster(self, speed: float) -> "RateProfile":
        """The same requests in ``1 / speed`` of the time."""
        return RateProfile(points=tuple((at / speed, rate * speed) for at, rate in self.points), repeat=self.repeat)

    def rate(self, seconds: float) -> float:
        """Requests per second at a time."""
        if self.repeat:
            seconds %= self.points[-1][0]
        right = bisect_right([at for at, _ in self.points], seconds)
        if right == 0 or right == len(self.points):
            return self.points[min(right, len(self.points) - 1)][1]
        (t0, r0), (t1, r1) = self.points[right - 1], self.points[right]
        return r0 + (r1 - r0) * (seconds - t0) / (t1 - t0)

    def expected(self, seconds: float) -> float:
        """Expected arrivals in the first ``seconds``: the integral of the rate."""
        period = self.points[-1][0]
        if self.repeat:
            cycles, seconds = divmod(seconds, period)
            return cycles * self._integral(period) + self._integral(seconds)
        return self._integral(seconds)

    def when(self, arrivals: float) -> float:
        """The inverse of ``expected``: when so many have arrived; infinity when never."""
        start = 0.0
        if self.repeat:
            per_cycle = self._areas[-1] if self._areas else 0.0
            if per_cycle == 0:
                return math.inf
            cycles = math.floor(arrivals / per_cycle)
            start, arrivals = cycles * self.points[-1][0], arrivals - cycles * per_cycle
        piece = bisect_left(self._areas, arrivals)
        if piece < len(self._areas):
            t0, r0, t1, r1 = self._pieces[piece]
            rest = arrivals - (self._areas[piece - 1] if piece else 0.0)
            return start + t0 + _ramp_time(rest, rate=r0, slope=(r1 - r0) / (t1 - t0))
        last_time, last_rate = self.points[-1]
        if last_rate == 0:
            return math.inf
        return start + last_time + (arrivals - (self._areas[-1] if self._areas else 0.0)) / last_rate

    @cached_property
    def _pieces(self) -> list[tuple[float, float, float, float]]:
        """Start, rate there, end, rate there, for every piece that takes time."""
        ends = [(0.0, self.points[0][1]), *self.points]
        return [(*left, *right) for left, right in pairwise(ends) if right[0] > left[0]]

    @cached_property
    def _areas(self) -> list[float]:
        """Expected arrivals up to the end of each piece."""
        return list(accumulate((r0 + r1) / 2 * (t1 - t0) for t0, r0, t1, r1 in self._pieces))

    def _integral(self, seconds: float) -> float:
        piece = bisect_right([t1 for _, _, t1, _ in self._pieces], seconds)
        done = self._areas[piece - 1] if piece else 0.0
        if piece < len(self._pieces):
            t0, r0, t1, r1 = self._pieces[piece]
            x = seconds - t0
            return done + r0 * x + (r1 - r0) / (t1 - t0) * x * x / 2
        last_time, last_rate = self.points[-1]
        return done + (seconds - last_time) * last_rate


def _ramp_time(area: float, *, rate: float, slope: float) -> float:
    """Find x with rate * x + slope * x^2 / 2 = area, in the form that does not cancel for a small slope."""
    if area == 0:
        return 0.0
    return 2 * area / (rate + math.sqrt(max(0.0, rate * rate + 2 * slope * area)))


class Arrivals:
    """A renewal process under a change of time: Gamma gaps of mean 1, run at the profile's rate.

    ``gap_cv`` 1 is Poisson; ServeGen's R1 clients have a request-weighted 2.28, their sum about 1.3 to 1.6.
    """

    def __init__(
        self,
        *,
        profile: RateProfile,
        seed: int,
        gap_cv: float = 1.0,
        start_seconds: float = 0.0,
        max_model_len_tokens: int = 65_536,
        output: LengthLaw = R1_OUTPUT,
        prompt: LengthLaw = R1_PROMPT,
    ) -> None:
        if not (math.isfinite(gap_cv) and gap_cv > 0):
            raise ValueError(f"Arrivals: gap_cv must be finite and > 0, got {gap_cv!r}")
        self._gap_rng, self._length_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
        self._shape = gap_cv**-2
        self._output, self._prompt = output, prompt
        self._max_model_len_tokens = max_model_len_tokens
        self._profile, self._origin_seconds = profile, start_seconds
        self._gaps: list[float] = []
        self._lengths: list[tuple[int, int]] = []
        self._taken = 0
        self._paused_at: float | None = None
        self._target = self._draw_gap()
        """Expected arrivals, counted from the profile's beginning, at which the next request comes."""
        self.next_seconds = start_seconds + profile.when(self._target)
        """When the next request arrives; infinity when never, or paused."""

    def take(self) -> Request:
        """The next request, which arrives at ``next_seconds``."""
        prompt, output = self._draw_lengths()
        prompt = min(prompt, self._max_model_len_tokens // 2)
        max_tokens = min(self._output.cap_tokens, self._max_model_len_tokens - prompt)
        request = Request(
            id=self._taken,
            arrived_seconds=self.next_seconds,
            prompt_tokens=prompt,
            output_tokens=min(output, max_tokens),
            max_tokens=max_tokens,
        )
        self._taken += 1
        self._target += self._draw_gap()
        # Never earlier than the last one: the inverse of the rate's integral is exact to rounding only.
        self.next_seconds = max(self.next_seconds, self._origin_seconds + self._profile.when(self._target))
        return request

    def follow(self, profile: RateProfile, *, at_seconds: float) -> None:
        """Another profile from now on, counted from now. What was left of the current gap is kept."""
        now = at_seconds if self._paused_at is None else self._paused_at
        passed = self._profile.expected(now - self._origin_seconds)
        self._target = max(0.0, self._target - passed)
        self._profile, self._origin_seconds = profile, now
        if self._paused_at is None:
            self._place(at_seconds)

    def pause(self, *, at_seconds: float) -> None:
        """No arrivals, and the profile's own time stands still, until ``resume``."""
        if self._paused_at is None:
            self._paused_at = at_seconds
            self.next_seconds = math.inf

    def resume(self, *, at_seconds: float) -> None:
        """Go on where ``pause`` stopped."""
        if self._paused_at is not None:
            self._origin_seconds += at_seconds - self._paused_at
            self._paused_at = None
            self._place(at_seconds)

    def _place(self, not_before_seconds: float) -> None:
        at = self._origin_seconds + self._profile.when(self._target)
        self.next_seconds = max(not_before_seconds, at)

    def _draw_gap(self) -> float:
        if not self._gaps:
            self._gaps = (self._gap_rng.standard_gamma(self._shape, _BATCH) / self._shape).tolist()[::-1]
        return self._gaps.pop()

    def _draw_lengths(self) -> tuple[int, int]:
        if not self._lengths:
            prompts = self._prompt.sample(self._length_rng, _BATCH).tolist()
            outputs = self._output.sample(self._length_rng, _BATCH).tolist()
            self._lengths = list(zip(prompts, outputs, strict=True))[::-1]
        return self._lengths.pop()
