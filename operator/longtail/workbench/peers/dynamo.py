"""Dynamo's planners as policies: by load (the default) and by predicted throughput.

Read from ai-dynamo/dynamo 1.6.1 as published on PyPI, ``dynamo/planner/``: ``core/state_machine.py``
(inventory, budget, starts), ``core/throughput_scaling.py`` (``_throughput_agg``),
``plugins/builtins/local_planner.py`` (the forecasts), ``config/planner_config.py`` (which modes go
together).

Quirks kept: the throughput planner looks one interval (180 s) ahead whatever a cold start takes; requests,
prompt and output lengths are forecast one by one, from requests that finished; an idle interval repeats the
last lengths; one observation moves the count by a bounded number of replicas; beside the load planner,
throughput is a lower bound and load decides alone; while replicas start nothing grows, but a smaller wish
cancels starts. The budget clamps from above only.

``max_replicas`` stands for ``max_gpu_budget`` over the GPUs of one replica. Prefix-cache hits are not
modelled (hit rate 0). The capacity of an engine is the regression of ``iteration_model``; the published
planner may start from profiles of the hardware instead. ``dynamo_load`` holds the load rules.
"""

import enum
import math
from dataclasses import dataclass, field, replace
from typing import Self

from longtail.errors import SettingsError
from longtail.workbench.peers.dynamo_load import (
    KV_THRESHOLDS,
    Engine,
    LatencyTargets,
    Target,
    by_latency,
    by_thresholds,
    while_starting,
)
from longtail.workbench.peers.iteration_model import IterationModel
from longtail.workbench.peers.predictors import Arima, Constant, Kalman, Predictor
from longtail.workbench.peers.view import PeerView


class PredictorKind(enum.StrEnum):
    """``load_predictor``. Prophet, the fourth, is left out: it needs pandas and a compiler."""

    CONSTANT = "constant"
    KALMAN = "kalman"
    ARIMA = "arima"


def new_predictor(kind: PredictorKind) -> Predictor:
    """An empty predictor. Raises SettingsError for ARIMA without statsmodels."""
    match kind:
        case PredictorKind.CONSTANT:
            return Constant()
        case PredictorKind.KALMAN:
            return Kalman()
        case PredictorKind.ARIMA:
            return Arima()


Counters = tuple[float, float, float, float]
"""Requests arrived and finished, prompt and output tokens of the finished ones, all since the beginning."""


@dataclass(frozen=True, slots=True)
class DynamoMemory:
    """Iteration model, the three forecasts, the counters of the last interval, and the lower bound."""

    model: IterationModel = field(default_factory=IterationModel)
    requests: Predictor | None = None
    prompts: Predictor | None = None
    outputs: Predictor | None = None
    counters: Counters | None = None
    lengths: tuple[float, float] | None = None
    """Mean prompt and output tokens of the last interval in which requests finished."""
    next_throughput: float | None = None
    lower_bound: int = 1


def engines_of(seen: PeerView) -> list[Engine]:
    """Engines that report; readiness is judged by their number."""
    return [
        Engine(pod.iteration, pod.kv_capacity_tokens)
        for pod in seen.pods
        if pod.ready and pod.iteration is not None and pod.kv_capacity_tokens
    ]


@dataclass(frozen=True, slots=True)
class DynamoLoad:
    """The load planner with static targets: what runs when nothing else is configured.

    ``kv_up`` and ``kv_down`` are the two thresholds of throughput (1.0, 0.6) or latency (0.4, 0.1); tuning
    moves the upper one and keeps their ratio, as ``decode_scale_up_kv_rate`` of target "load" allows.
    """

    target: Target = Target.THROUGHPUT
    kv_up: float | None = None
    min_replicas: int = 1
    max_replicas: int = 10
    knob: str = "KV pressure that adds a replica (ratio)"
    period_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.target not in KV_THRESHOLDS:
            raise SettingsError(f"DynamoLoad: target must be one of {sorted(KV_THRESHOLDS)}, got {self.target}")

    @property
    def name(self) -> str:
        """dynamo-load-throughput or dynamo-load-latency."""
        return f"dynamo-load-{self.target}"

    def tuned(self, value: float) -> Self:
        """The same policy with another upper threshold."""
        return replace(self, kv_up=value)

    def initial(self) -> None:
        """Nothing is remembered."""
        return

    def decide(self, *, seen: PeerView, memory: None, now: float) -> tuple[int, None]:
        """One step by the thresholds, when every ready replica reports and none drains."""
        del now, memory
        engines, starting = engines_of(seen), seen.spec_replicas - seen.ready_replicas
        if starting < 0 or len(engines) != seen.ready_replicas:
            return seen.spec_replicas, None
        default_up, default_down = KV_THRESHOLDS[self.target]
        up = default_up if self.kv_up is None else self.kv_up
        down = default_down * up / default_up
        wish = by_thresholds(engines, up=up, down=down, min_replicas=self.min_replicas, starting=starting > 0)
        wish = while_starting(wish, ready=len(engines), starting=starting)
        if wish is None:
            return seen.spec_replicas, None
        return min(max(wish, self.min_replicas), self.max_replicas), None


@dataclass(frozen=True, slots=True)
class DynamoSla:
    """``optimization_target: sla``: predicted throughput, predicted latency by load, or both.

    With both, throughput sets a lower bound every 180 s and load decides every 5 s.
    """

    predictor: PredictorKind = PredictorKind.ARIMA
    targets: LatencyTargets = field(default_factory=LatencyTargets)
    throughput_scaling: bool = True
    load_scaling: bool = False
    max_num_seqs: int | None = 256
    max_replicas: int = 10
    max_step_replicas: int = 8
    """``max_throughput_scaling_replicas``."""
    interval_seconds: float = 180.0
    knob: str = "inter-token latency target (s)"
    period_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not self.throughput_scaling and not self.load_scaling:
            raise SettingsError("DynamoSla: at least one of throughput_scaling, load_scaling must be on")
        if self.throughput_scaling:
            new_predictor(self.predictor)  # says at once when statsmodels is missing

    @property
    def name(self) -> str:
        """dynamo-throughput-<predictor>, dynamo-load-sla, or dynamo-sla-<predictor> for both."""
        if not self.throughput_scaling:
            return "dynamo-load-sla"
        return f"dynamo-{'sla' if self.load_scaling else 'throughput'}-{self.predictor}"

    def tuned(self, value: float) -> Self:
        """The same policy with another ITL target."""
        return replace(self, targets=replace(self.targets, token_seconds=value))

    def initial(self) -> DynamoMemory:
        """No samples; the first throughput decision comes an interval after the first view."""
        if not self.throughput_scaling:
            return DynamoMemory()
        empty = new_predictor(self.predictor)
        return DynamoMemory(requests=empty, prompts=empty, outputs=empty)

    def decide(self, *, seen: PeerView, memory: DynamoMemory, now: float) -> tuple[int, DynamoMemory]:
        """Learn from each engine, then load, then throughput where load had nothing to say."""
        engines = engines_of(seen)
        model = memory.model
        for engine in engines:
            model = model.observed(engine.iteration)
        memory = replace(memory, model=model)
        by_load = self._load(seen, engines=engines, memory=memory) if self.load_scaling else None
        by_throughput, memory = self._throughput(seen, engines=engines, memory=memory, now=now)
        wish = by_load if by_load is not None else by_throughput
        return seen.spec_replicas if wish is None else wish, memory

    def _bounded(self, wish: int) -> int:
        return min(max(wish, self.targets.min_replicas), self.max_replicas)

    def _load(self, seen: PeerView, *, engines: list[Engine], memory: DynamoMemory) -> int | None:
        starting = seen.spec_replicas - seen.ready_replicas
        if starting < 0 or len(engines) != seen.ready_replicas:
            return None
        wish = by_latency(
            engines,
            model=memory.model,
            line=memory.model.fit(),
            targets=self.targets,
            starting=starting > 0,
        )
        if wish is None or (starting and wish.replicas > len(engines)):
            return None
        floor = memory.lower_bound if self.throughput_scaling else 1
        replicas = self._bounded(max(wish.replicas, floor))
        if replicas == len(engines) and not wish.cancels_starts:
            return None
        return while_starting(replicas, ready=len(engines), starting=starting)

    def _throughput(
        self, seen: PeerView, *, engines: list[Engine], memory: DynamoMemory, now: float
    ) -> tuple[int | None, DynamoMemory]:
        if not self.throughput_scaling or (memory.next_throughput is not None and now < memory.next_throughput):
            return None, memory
        counters, before = _counters(seen), memory.counters
        memory = replace(memory, next_throughput=now + self.interval_seconds, counters=counters or before)
        if counters is None or before is None:  # the first view, or no answer: there is no interval
            return None, memory
        memory = _forecast(memory, counters=counters, before=before)
        wish = self._replicas(memory, engines=engines)
        if wish is None or seen.spec_replicas < seen.ready_replicas:
            return None, memory
        ready = seen.ready_replicas
        wish = min(max(wish, ready - self.max_step_replicas), ready + self.max_step_replicas)
        wish = self._bounded(wish)
        if self.load_scaling:
            return None, replace(memory, lower_bound=wish)
        return while_starting(wish, ready=ready, starting=seen.spec_replicas - ready), memory

    def _replicas(self, memory: DynamoMemory, *, engines: list[Engine]) -> int | None:
        line = memory.model.fit()
        if line is None:
            return None
        assert memory.requests is not None
        assert memory.prompts is not None
        assert memory.outputs is not None
        capacity = memory.model.best_requests_per_second(
            line,
            prompt=memory.prompts.forecast(),
            output=memory.outputs.forecast(),
            chunk_tokens=self.targets.chunk_tokens,
            first_token_seconds=self.targets.first_token_seconds,
            token_seconds=self.targets.token_seconds,
            kv_capacity_tokens=engines[0].kv_capacity_tokens if engines else None,
            max_num_seqs=self.max_num_seqs,
        )
        if capacity <= 0:
            return None
        demand = memory.requests.forecast() / self.interval_seconds
        return max(math.ceil(demand / capacity), self.targets.min_replicas)


def _counters(seen: PeerView) -> Counters | None:
    values = (
        seen.arrived_requests_total,
        seen.finished_requests_total,
        seen.finished_prompt_tokens_total,
        seen.finished_output_tokens_total,
    )
    if not seen.metrics_reachable or any(value is None for value in values):
        return None
    arrived, finished, prompt, output = (float(value or 0.0) for value in values)
    return arrived, finished, prompt, output


def _forecast(memory: DynamoMemory, *, counters: Counters, before: Counters) -> DynamoMemory:
    """With one interval's traffic in the predictors; lengths that are not known are not learned."""
    assert memory.requests is not None
    assert memory.prompts is not None
    assert memory.outputs is not None
    arrived, finished, prompt, output = (a - b for a, b in zip(counters, before, strict=True))
    lengths = memory.lengths
    if finished > 0:
        lengths = (prompt / finished, output / finished)
    memory = replace(memory, requests=memory.requests.observed(arrived), lengths=lengths)
    if lengths is None or (finished <= 0 and arrived > 0):
        return memory
    return replace(
        memory,
        prompts=memory.prompts.observed(lengths[0]) if memory.prompts else None,
        outputs=memory.outputs.observed(lengths[1]) if memory.outputs else None,
    )
