"""What the GPUs of services were held for in the past, out of Prometheus, window by window.

Two witnesses. Where the operator's own counters (``longtail_gpu_seconds_total`` and the others) were there when a
window began, they tell all of it: pods on their way and on their way out too. Where they were not, the engines' series
do: a replica is there from its first to its last sample, so that cold starts and drains are not seen, and what is
serving and what is headroom follows from the requests and from the slots that the recording teaches (as in a backtest).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from longtail.errors import MetricsUnavailable
from longtail.policy.accounting import NOTHING, PHASES, Account, account
from longtail.policy.fleet import GpuShape, Service
from longtail.signals.history import Ranges, Segment
from longtail.signals.promql import quoted
from longtail.workbench.backtest import Look, Progress, learn

_GPU_SECONDS: Final = "longtail_gpu_seconds_total"
_PRICES: Final = "longtail_gpu_hourly_cost"
_SUMS: Final[Mapping[str, str]] = {
    "idle": "longtail_gpu_idle_seconds_total",
    "answered_requests": "longtail_answered_requests_total",
    "output_tokens": "longtail_output_tokens_total",
    "reasoning_tokens": "longtail_reasoning_tokens_total",
}
_PIECE_SECONDS: Final = 86_400
"""Pieces of whole days: those that are over are the same questions in the next run, which a cache may have answered."""

ByClass = Mapping[str, Account]
"""Accounts by class of GPU."""

ByWindow = Mapping[int, ByClass]
"""The same for each window that is known, by its end."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Times that follow one another without a gap, each named by its end, in Unix seconds."""

    start_seconds: int
    end_seconds: int
    seconds: int

    @property
    def ends(self) -> range:
        """The end of each window."""
        return range(self.start_seconds + self.seconds, self.end_seconds + 1, self.seconds)

    def without(self, known: Mapping[int, object], *, step_seconds: int) -> list[Segment]:
        """The times of the windows that are not known, first and last included.

        >>> gaps = Windows(0, 1200, 300).without({600: None}, step_seconds=60)
        >>> [(gap.start_seconds, gap.end_seconds) for gap in gaps]
        [(0, 300), (600, 1200)]
        """
        found: list[Segment] = []
        for end in self.ends:
            if end in known:
                continue
            start = end - self.seconds
            if found and found[-1].end_seconds == start:
                start = found.pop().start_seconds
            found.append(Segment(start, end, step_seconds))
        return found


class OperatorHistory:
    """The counters of all operators of a namespace, added up: each second was counted by the one that led."""

    def __init__(self, ranges: Ranges, *, namespace: str, windows: Windows) -> None:
        self._ranges = ranges
        self._namespace = namespace
        self._windows = windows

    async def read(self, *, advance: Callable[[int], None] = lambda _: None) -> Mapping[str, ByWindow]:
        """Accounts by service, window and class of GPU; a window that the counters do not cover is not there.

        Args:
            advance: told how many windows more have been read.

        Raises:
            MetricsError: the source does not answer.
        """
        found: dict[str, dict[int, dict[str, Account]]] = {}
        for times in self._pieces():
            phases: dict[tuple[str, int, str], dict[str, float]] = {}
            # What was there when the window began was counting all the time; what was not, began later.
            covered = f"and on (namespace, name) {self._series(_GPU_SECONDS)} offset {self._windows.seconds}s"
            increase = self._increase(_GPU_SECONDS, "name, gpu_class, phase", covered)
            for labels, at, value in await self._ask(increase, times):
                place = phases.setdefault((labels.get("name", ""), at, labels.get("gpu_class", "")), {})
                place[labels.get("phase", "")] = value
            sums: dict[str, dict[tuple[str, int], float]] = {}
            for field, metric in _SUMS.items():
                answer = await self._ask(self._increase(metric, "name"), times)
                sums[field] = {(labels.get("name", ""), at): value for labels, at, value in answer}
            _put_together(found, phases, sums)
            advance(len(times))
        return found

    async def prices(self) -> dict[str, tuple[str, float]]:
        """Currency and price of a GPU-hour by class, as the operator published them last in these windows."""
        found: dict[str, tuple[int, str, float]] = {}
        for times in self._pieces():
            for labels, at, value in await self._ask(f"max by (gpu_class, currency) ({_PRICES})", times):
                known = found.get(labels.get("gpu_class", ""))
                if known is None or known[0] <= at:
                    found[labels.get("gpu_class", "")] = (at, labels.get("currency", ""), value)
        return {gpu_class: (currency, value) for gpu_class, (_, currency, value) in found.items()}

    def _series(self, metric: str) -> str:
        return f"{metric}{{namespace={quoted(self._namespace)}}}"

    def _increase(self, metric: str, by: str, condition: str = "") -> str:
        series = f"{self._series(metric)}[{self._windows.seconds}s]"
        return f"sum by ({by}) (increase({series}) {condition})".replace(" )", ")")

    def _pieces(self) -> list[range]:
        ends, pieces = self._windows.ends, []
        while ends:
            boundary = (ends[0] // _PIECE_SECONDS + 1) * _PIECE_SECONDS
            inside = [end for end in ends if end < boundary] or [ends[0]]
            pieces.append(ends[: len(inside)])
            ends = ends[len(inside) :]
        return pieces

    async def _ask(self, promql: str, times: range) -> list[tuple[Mapping[str, str], int, float]]:
        answer = await self._ranges.query_range(promql, times[0], times[-1], self._windows.seconds)
        try:
            return [(item["metric"], round(at), float(value)) for item in answer.result for at, value in item["values"]]
        except (KeyError, TypeError, ValueError) as error:
            raise MetricsUnavailable(f"malformed sample in a matrix: {error!r}") from error


def _put_together(
    found: dict[str, dict[int, dict[str, Account]]],
    phases: Mapping[tuple[str, int, str], Mapping[str, float]],
    sums: Mapping[str, Mapping[tuple[str, int], float]],
) -> None:
    for (name, at, gpu_class), gpu_seconds in phases.items():
        by_phase = (gpu_seconds.get(phase, 0.0) for phase in PHASES)
        found.setdefault(name, {}).setdefault(at, {})[gpu_class] = Account(*by_phase)
    for name, at in {(name, at) for name, at, _ in phases}:
        # What came out of a window is one sum for all its classes: noted with the first of them.
        classes = found[name][at]
        first = min(classes)
        product = {field: known.get((name, at)) for field, known in sums.items()}
        classes[first] = _with_product(classes[first], product, altogether(classes))


def _with_product(one: Account, product: Mapping[str, float | None], total: Account) -> Account:
    idle, answered = product["idle"], product["answered_requests"]
    output, reasoning = product["output_tokens"], product["reasoning_tokens"]
    return one._replace(
        idle=idle or 0.0,
        watched=0.0 if idle is None else total.serving + total.headroom + total.unknown,
        answered_requests=answered or 0.0,
        answered_over=0.0 if answered is None else total.gpu_seconds,
        output_tokens=output or 0.0,
        output_over=0.0 if output is None else total.gpu_seconds,
        reasoning_tokens=reasoning or 0.0,
        told_tokens=0.0 if reasoning is None else output or 0.0,
    )


def from_looks(
    looks: Sequence[Look],
    segments: Sequence[Segment],
    service: Service,
    gpus: GpuShape,
    *,
    progress: Progress = lambda _: None,
) -> Account:
    """What the engines' series tell of some times, which begin anew with each segment."""
    if not looks:
        return NOTHING
    learned = learn(looks, service, progress=progress)
    starts = {float(segment.start_seconds) for segment in segments}
    total = NOTHING
    for before, look in itertools.pairwise(looks):
        at = look.observation.at_seconds
        if at in starts:
            continue
        running, waiting = look.observation.running_requests.value, look.observation.waiting_requests.value
        total += account(
            pods=look.pods,
            gpus=gpus,
            observation=look.observation,
            slots_used=None if running is None else running + (waiting or 0.0),
            slots_per_replica=learned.slots_per_replica,
            since=before.observation.at_seconds,
            now=at,
        )
    return total


def summed(windows: ByWindow, rest: ByClass) -> dict[str, Account]:
    """All windows of a service, and what the engines tell of the rest, by class."""
    total: dict[str, Account] = {}
    for classes in (*windows.values(), rest):
        for gpu_class, one in classes.items():
            total[gpu_class] = total.get(gpu_class, NOTHING) + one
    return total


def altogether(classes: ByClass) -> Account:
    """Of all classes."""
    total = NOTHING
    for one in classes.values():
        total += one
    return total
