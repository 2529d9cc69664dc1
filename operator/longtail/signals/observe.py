"""From tables to observations: what one service's pods reported, with age and quality. Pure.

Which pods count for what:

* Levels (requests, KV tokens) are summed over the pods that are not being deleted: work on a pod that
  goes away ends there, and no replica can take it over. Increases are summed over all pods: what
  happened, happened.
* Pods that *should report* are ready and not being deleted, and also those that were ready and no longer
  are: an engine too busy to answer its health check is often too busy to be scraped, and its work has not
  gone away.
* Of the pods that should report, those with a fresh sample make the value. If some have none the quality
  is PARTIAL; if none is fresh but some are old, STALE; if none has any, MISSING. With no pod that should
  report, an answered query means zero: a pool without servers serves nothing.
* A pod that has just become ready is not missed before its first scrape: every start of a replica would
  otherwise make the service PARTIAL, just when there is most to learn. It stays in ``ready_pods`` and out of
  ``reporting_pods``, so nothing shrinks meanwhile.
"""

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from longtail.demand.observation import MISSING, UNDIVIDED, Buckets, Classes, Observation, PodReading, Quality, Signal
from longtail.policy.fleet import Pod, ServiceKey
from longtail.signals import classes, gateway, gpu, litellm, sglang, vllm
from longtail.signals.counters import Cumulative, Increases
from longtail.signals.custom import CustomNames
from longtail.signals.samples import WHOLE, ObjectKey, SeriesKey, Snapshot
from longtail.signals.vocabulary import Series

FIRST_SCRAPE_SECONDS: Final = 60.0
"""Service discovery and the first scrape of a new pod take this long at most: two scrapes of 30 s."""
_UNKNOWN_AGE_SECONDS: Final = 300.0
"""Age of a sample whose age was not answered: an instant query looks back 5 minutes."""
_RATIO_SLACK: Final = 1e-6
"""A mean of ratios may exceed 1 by rounding; anything more is malformed."""


class Engine(enum.StrEnum):
    """What serves the model, as the resource says it."""

    AUTO = "Auto"
    """Whichever engine's series the pod has."""
    VLLM = "VLLM"
    SGLANG = "SGLang"
    CUSTOM = "Custom"


@dataclass(frozen=True, slots=True)
class ServiceSignals:
    """What is to be read for one service."""

    key: ServiceKey
    pods: Sequence[Pod]
    """From the caller's own watch; all of the target, ready or not."""
    source: str = "default"
    """Name of a metrics source."""
    engine: Engine = Engine.AUTO
    custom: CustomNames | None = None
    """Given exactly when the engine is Custom."""
    inference_pool: str | None = None
    """Name of the InferencePool in front, in the same namespace; None without a gateway."""
    gateway_model: str | None = None
    """What clients call the model at a LiteLLM proxy; None without one."""
    class_label: str | None = None
    """Label of the proxy's counters whose values are classes of requests; None where they are not told apart."""
    activation_query: str | None = None
    """PromQL of the user's own that tells of work at the door; None for a pool that no query wakes."""

    def __post_init__(self) -> None:
        if (self.engine is Engine.CUSTOM) != (self.custom is not None):
            raise ValueError(f"{self.key}: custom names go with engine Custom, and engine is {self.engine}")

    @property
    def engines(self) -> tuple[str, ...]:
        """Tags of the vocabularies that its pods may speak."""
        if self.custom is not None:
            return (self.custom.engine,)
        both = {Engine.VLLM: (vllm.ENGINE,), Engine.SGLANG: (sglang.ENGINE,)}
        return both.get(self.engine, (vllm.ENGINE, sglang.ENGINE))


def began_at(pod: Pod) -> float:
    """Time since which a pod can have served requests; ``inf`` for one that never was ready."""
    if pod.ready_at is not None:
        return pod.ready_at
    return pod.created_at if pod.ready else math.inf


def observe(
    service: ServiceSignals, snapshot: Snapshot, increases: Increases, *, freshness_limit_seconds: float
) -> Observation:
    """One service's observation. A signal whose query was not answered is MISSING."""
    view = _View(service, snapshot, increases, freshness_limit_seconds)
    readings = [view.reading(pod) for pod in service.pods]
    by_name = {reading.name: reading for reading in readings}

    def level(series: Sequence[Series], of: Callable[[PodReading], Signal]) -> Signal:
        pods = [(pod, of(by_name[pod.name])) for pod in service.pods if not pod.deleting]
        return view.total(pods, series)

    def increase(series: Series) -> Signal:
        return view.total([(pod, view.increase(pod, series)) for pod in service.pods], (series,), since=True)

    ready = [pod for pod in service.pods if pod.ready and not pod.deleting]
    return Observation(
        at_seconds=snapshot.at_seconds,
        interval_seconds=increases.interval_seconds,
        running_requests=level((Series.RUNNING,), lambda r: r.running_requests),
        waiting_requests=level((Series.WAITING,), lambda r: r.waiting_requests),
        gateway_waiting_requests=view.gateway_waiting(),
        kv_used_tokens=level((Series.KV_USED, Series.KV_USED_RATIO), lambda r: r.kv_used_tokens),
        kv_capacity_tokens=level((Series.KV_CAPACITY,), lambda r: r.kv_capacity_tokens),
        first_tokens=increase(Series.FIRST_TOKENS),
        arrivals=increase(Series.ARRIVALS),
        generated_tokens=increase(Series.GENERATED),
        finished_tokens=increase(Series.FINISHED_TOKENS),
        prompt_tokens=increase(Series.PROMPT_TOKENS),
        preemptions=increase(Series.PREEMPTIONS),
        aborted_requests=increase(Series.ABORTED),
        attained_tokens=level((Series.DECODE_SUM, Series.FINISHED_TOKENS), lambda r: r.attained_tokens),
        finished_output_tokens=view.buckets(Series.OUTPUT_LENGTH),
        queue_wait_seconds=view.buckets(Series.QUEUE_WAIT),
        first_token_seconds=view.buckets(Series.FIRST_TOKEN_WAIT),
        reasoning_share=view.reasoning_share(),
        classes=view.classes(),
        gpu_active_ratio=view.gpu_active(by_name),
        max_concurrent_requests=view.max_concurrent(),
        ready_pods=len(ready),
        reporting_pods=sum(by_name[pod.name].running_requests.fresh for pod in ready),
        pods=tuple(readings),
    )


def blind(service: ServiceSignals, at_seconds: float) -> Observation:
    """An observation of nothing: the source did not answer, or is not known."""
    ready = sum(pod.ready and not pod.deleting for pod in service.pods)
    readings = tuple(PodReading(name=pod.name) for pod in service.pods)
    return Observation(at_seconds=at_seconds, ready_pods=ready, pods=readings)


class _View:
    """The tables as one service sees them."""

    def __init__(self, service: ServiceSignals, snapshot: Snapshot, increases: Increases, limit_seconds: float) -> None:
        self._service = service
        self._snapshot = snapshot
        self._increases = increases
        self._limit_seconds = limit_seconds
        self._engine = {pod.name: self._engine_of(pod) for pod in service.pods}

    def reading(self, pod: Pod) -> PodReading:
        """What one pod reported."""
        engine = self._engine[pod.name]
        place = self._place(pod)
        active = self._snapshot.level(gpu.ENGINE, Series.GPU_ACTIVE, place)
        reading = PodReading(name=pod.name, gpu_active_ratio=self._ratio(active, gpu.ENGINE, place))
        if engine is None:
            return reading

        def level(series: Series) -> Signal:
            return self._signal(self._snapshot.level(engine, series, place), engine, place)

        generated = (self._increases.of(engine, Series.GENERATED, place) or {}).get(WHOLE)
        return replace(
            reading,
            running_requests=level(Series.RUNNING),
            waiting_requests=level(Series.WAITING),
            kv_used_tokens=self._signal(self._kv_used(engine, place), engine, place),
            kv_capacity_tokens=level(Series.KV_CAPACITY),
            generated_tokens=self._signal(generated, engine, place),
            attained_tokens=self._signal(self._attained(engine, place), engine, place),
        )

    def increase(self, pod: Pod, series: Series) -> Signal:
        """Increase of a plain counter on one pod."""
        engine = self._engine[pod.name]
        if engine is None:
            return MISSING
        place = self._place(pod)
        counts = self._increases.of(engine, series, place)
        return MISSING if counts is None else self._signal(counts.get(WHOLE), engine, place)

    def total(self, pods: Sequence[tuple[Pod, Signal]], series: Sequence[Series], *, since: bool = False) -> Signal:
        """Sum over pods, with the quality that the rules above give. ``since`` is for increases."""
        whole = self._answered(series)
        if whole is None or (since and self._increases.interval_seconds == 0.0):
            return MISSING
        expected = {pod.name for pod, _ in pods if _should_report(pod)}
        excused = {pod.name for pod, signal in pods if signal.value is None and self._awaits_first_scrape(pod)}
        fresh = [(pod, signal) for pod, signal in pods if signal.quality is Quality.FRESH]
        stale = [signal for pod, signal in pods if signal.quality is Quality.STALE and pod.name in expected]
        reporting = expected & {pod.name for pod, _ in fresh}
        if expected and not reporting:
            return _sum(stale, Quality.STALE) if stale else MISSING
        complete = whole and reporting >= expected - excused
        return _sum([signal for _, signal in fresh], Quality.FRESH if complete else Quality.PARTIAL)

    def _awaits_first_scrape(self, pod: Pod) -> bool:
        return pod.ready_at is not None and self._snapshot.at_seconds - pod.ready_at < FIRST_SCRAPE_SECONDS

    def buckets(self, series: Series) -> Buckets | None:
        """Increase of a histogram over all pods, by the bounds they have in common."""
        counts = []
        for pod in self._service.pods:
            engine = self._engine[pod.name]
            found = None if engine is None else self._increases.of(engine, series, self._place(pod))
            if found and WHOLE in found:
                counts.append(found)
        return _buckets(counts)

    def gateway_waiting(self) -> Signal:
        """Requests held back in front of the pool."""
        if self._service.inference_pool is None:
            return MISSING
        place = ObjectKey(self._service.key.namespace, self._service.inference_pool)
        value = self._snapshot.level(gateway.ENGINE, Series.GATEWAY_WAITING, place)
        signal = self._signal(value, gateway.ENGINE, place)
        whole = self._snapshot.answered.get(SeriesKey(gateway.ENGINE, Series.GATEWAY_WAITING), False)
        return signal if whole or not signal.fresh else replace(signal, quality=Quality.PARTIAL)

    def reasoning_share(self) -> Signal:
        """Share of the output that is reasoning, as the proxy counts it."""
        if self._service.gateway_model is None:
            return MISSING
        place = ObjectKey("", self._service.gateway_model)
        value = self._snapshot.level(litellm.ENGINE, Series.REASONING_SHARE, place)
        return self._ratio(value, litellm.ENGINE, place)

    def classes(self) -> Classes:
        """Requests by class, as the proxy counts them."""
        label, model = self._service.class_label, self._service.gateway_model
        if label is None or model is None:
            return UNDIVIDED
        counts = classes.counts(self._snapshot, label=label, model=model)
        if not counts:
            return UNDIVIDED
        known = self._signal(0.0, litellm.ENGINE, ObjectKey("", model))
        whole = self._snapshot.answered.get(SeriesKey(classes.engine(label), Series.CLASS_TOKENS), False)
        quality = known.quality if whole or not known.fresh else Quality.PARTIAL
        return Classes(counts, age_seconds=known.age_seconds, quality=quality)

    def gpu_active(self, readings: Mapping[str, PodReading]) -> Signal:
        """Mean over the pods; MISSING without pods, because a mean of nothing is not zero."""
        pods = [(pod, readings[pod.name].gpu_active_ratio) for pod in self._service.pods if not pod.deleting]
        known = [signal for _, signal in pods if signal.fresh]
        if not known:
            return MISSING
        complete = all(signal.fresh for pod, signal in pods if _should_report(pod))
        total = _sum(known, Quality.FRESH if complete else Quality.PARTIAL)
        assert total.value is not None
        return replace(total, value=total.value / len(known))

    def max_concurrent(self) -> Signal:
        """Slots of the smallest replica."""
        signals = []
        for pod in self._service.pods:
            engine = self._engine[pod.name]
            if engine is not None and not pod.deleting:
                place = self._place(pod)
                slots = self._snapshot.level(engine, Series.MAX_CONCURRENT, place)
                signals.append(self._signal(slots or None, engine, place))
        return min((s for s in signals if s.value is not None), key=lambda s: s.value or 0.0, default=MISSING)

    def _engine_of(self, pod: Pod) -> str | None:
        place = self._place(pod)
        for engine in self._service.engines:
            if place in self._snapshot.levels.get(SeriesKey(engine, Series.RUNNING), {}):
                return engine
        if len(self._service.engines) == 1:
            return self._service.engines[0]
        for engine in self._service.engines:
            if place in self._snapshot.levels.get(SeriesKey(engine, Series.SAMPLE_AGE), {}):
                return engine
        return None

    def _place(self, pod: Pod) -> ObjectKey:
        return ObjectKey(self._service.key.namespace, pod.name)

    def _signal(self, value: float | None, engine: str, place: ObjectKey) -> Signal:
        if value is None:
            return MISSING
        known = self._snapshot.level(engine, Series.SAMPLE_AGE, place)
        age = _UNKNOWN_AGE_SECONDS if known is None else known
        fresh = known is not None and age <= self._limit_seconds
        return Signal(value, age_seconds=age, quality=Quality.FRESH if fresh else Quality.STALE)

    def _ratio(self, value: float | None, engine: str, place: ObjectKey) -> Signal:
        if value is None or value > 1.0 + _RATIO_SLACK:
            return MISSING
        return self._signal(min(value, 1.0), engine, place)

    def _kv_used(self, engine: str, place: ObjectKey) -> float | None:
        tokens = self._snapshot.level(engine, Series.KV_USED, place)
        if tokens is not None:
            return tokens
        ratios = self._snapshot.ranks(engine, Series.KV_USED_RATIO, place)
        capacity = self._snapshot.ranks(engine, Series.KV_CAPACITY, place)
        if not ratios or any(rank not in capacity for rank in ratios):
            return None
        if any(ratio > 1.0 + _RATIO_SLACK for ratio in ratios.values()):
            return None
        return math.fsum(ratio * capacity[rank] for rank, ratio in ratios.items())

    def _attained(self, engine: str, place: ObjectKey) -> float | None:
        decoding = self._snapshot.level(engine, Series.DECODE_SUM, place)
        if decoding is not None or engine == sglang.ENGINE:
            return decoding
        generated = self._snapshot.raw(engine, Series.GENERATED, place)
        finished = self._snapshot.raw(engine, Series.FINISHED_TOKENS, place)
        return None if generated is None or finished is None else max(0.0, generated - finished)

    def _answered(self, series: Sequence[Series]) -> bool | None:
        """None when no query for any of these was answered, else whether all that were are whole."""
        keys = [SeriesKey(engine, one) for engine in self._service.engines for one in series]
        answers = [self._snapshot.answered[key] for key in keys if key in self._snapshot.answered]
        return all(answers) if answers else None


def _should_report(pod: Pod) -> bool:
    if pod.deleting:
        return False
    # A restarted container that is not ready yet is a new, empty engine that loads its model.
    return pod.ready or (pod.ready_at is not None and not pod.restarted)


def _sum(signals: Sequence[Signal], quality: Quality) -> Signal:
    value = math.fsum(signal.value for signal in signals if signal.value is not None)
    age = max((signal.age_seconds for signal in signals), default=0.0)
    return Signal(value, age_seconds=age, quality=quality)


def _buckets(counts: Sequence[Cumulative]) -> Buckets | None:
    """Cumulative counts, summed and differenced.

    A bound that a pod lacks is known all the same where the counts of its neighbours agree (sparse histograms leave
    empty buckets out), and is dropped where they do not (pods with other bounds).
    """
    if not counts:
        return None
    if len(counts) == 1 or all(one.keys() == counts[0].keys() for one in counts):
        return _of_equal_bounds(counts)
    bounds = sorted({bound for one in counts for bound in one if not math.isnan(bound)})
    columns = [_filled(one, bounds) for one in counts]
    known = [n for n, _ in enumerate(bounds) if all(column[n] is not None for column in columns)]
    cumulative = [math.fsum(column[n] or 0.0 for column in columns) for n in known]
    steps = [max(0.0, here - below) for below, here in zip([0.0, *cumulative], cumulative, strict=False)]
    return Buckets(upper_bounds=tuple(bounds[n] for n in known), counts=tuple(steps))


def _of_equal_bounds(counts: Sequence[Cumulative]) -> Buckets:
    """The same for pods of one kind, as nearly all are."""
    bounds = sorted(counts[0])
    cumulative = [math.fsum([one[bound] for one in counts]) for bound in bounds]
    steps = [max(0.0, here - below) for below, here in zip([0.0, *cumulative], cumulative, strict=False)]
    return Buckets(upper_bounds=tuple(bounds), counts=tuple(steps))


def _filled(one: Cumulative, bounds: Sequence[float]) -> list[float | None]:
    """The counts of one pod at all bounds; None where they are not known."""
    own = sorted(bound for bound in one if not math.isnan(bound))
    filled: list[float | None] = []
    place, below = 0, 0.0
    for bound in bounds:
        if place < len(own) and own[place] == bound:
            below = one[bound]
            place += 1
            filled.append(below)
        else:
            filled.append(below if place < len(own) and one[own[place]] == below else None)
    return filled
