"""Dynamo: forecasts, capacity and decisions as its own code made them, and the cadence around them."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.errors import SettingsError
from longtail.workbench.peers import predictors
from longtail.workbench.peers.dynamo import DynamoLoad, DynamoSla, PredictorKind
from longtail.workbench.peers.dynamo_load import (
    KV_THRESHOLDS,
    Engine,
    LatencyTargets,
    LatencyWish,
    Target,
    by_latency,
    by_thresholds,
    while_starting,
)
from longtail.workbench.peers.iteration_model import IterationModel, Line
from longtail.workbench.peers.predictors import Arima, Constant, Kalman
from longtail.workbench.peers.view import Iteration, PeerView, PodView

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded" / "dynamo_1_6_1.json").read_text())
HAS_STATSMODELS = importlib.util.find_spec("statsmodels") is not None


def trained(iterations: list[list[float]]) -> IterationModel:
    model = IterationModel()
    for requests, tokens, decodes, kv, queued, queued_kv, seconds in iterations:
        model = model.observed(Iteration(seconds, requests, tokens, decodes, kv, queued, queued_kv))
    return model


@pytest.mark.parametrize("series", RECORDED["predictors"], ids=lambda s: f"log1p-{s['log1p']}")
@pytest.mark.parametrize("kind", ["constant", "kalman"])
def test_forecasts_are_those_of_dynamo(series: dict[str, Any], kind: str):
    predictor: Any = Constant() if kind == "constant" else Kalman(log1p=series["log1p"])
    for value, expected in zip(series["values"], series[kind], strict=True):
        predictor = predictor.observed(value)
        assert predictor.forecast() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("recorded", RECORDED["models"], ids=lambda m: f"{len(m['iterations'])}-iterations")
def test_capacity_and_latency_are_those_of_dynamo(recorded: dict[str, Any]):
    model = trained(recorded["iterations"])
    line = model.fit()
    assert line is not None
    for query, expected in recorded["capacities"]:
        got = model.best_requests_per_second(
            line,
            prompt=query["isl"],
            output=query["osl"],
            chunk_tokens=query["max_num_batched_tokens"],
            first_token_seconds=query["ttft_sla"] / 1000,
            token_seconds=query["itl_sla"] / 1000,
            kv_capacity_tokens=query["max_kv_tokens"],
            max_num_seqs=query["max_num_seqs"],
        )
        assert got == pytest.approx(expected), query
    for queued, kv, first, token in recorded["estimates"]:
        assert model.next_first_token_seconds(
            line, queued_prefill_tokens=queued, kv_tokens=kv, chunk_tokens=8192
        ) == pytest.approx(first)
        assert model.next_token_seconds(line, kv_tokens=kv) == pytest.approx(token)


def test_every_load_decision_is_that_of_dynamo():
    model = trained(RECORDED["models"][0]["iterations"])
    line = model.fit()
    targets = LatencyTargets(first_token_seconds=1.0, token_seconds=0.04)
    directions = set()
    for target, starting, rows, expected in RECORDED["decisions"]:
        engines = [
            Engine(
                Iteration(0.02, decode_kv_tokens=kv, queued_prefill_tokens=qp, queued_decode_kv_tokens=qd),
                4e5,
            )
            for kv, qp, qd in rows
        ]
        count, wish = len(engines), None
        if target == Target.SLA:
            verdict = by_latency(engines, model=model, line=line, targets=targets, starting=starting > 0)
            assert verdict is not None
            if verdict.replicas != count or verdict.cancels_starts:
                wish = verdict.replicas
        else:
            up, down = KV_THRESHOLDS[Target(target)]
            wish = by_thresholds(engines, up=up, down=down, min_replicas=1, starting=starting > 0)
        wish = while_starting(wish, ready=count, starting=starting)
        assert wish == expected, (target, starting, rows)
        directions.add((target, None if wish is None else (wish > count) - (wish < count)))
    assert {(t, d) for t in ("throughput", "latency", "sla") for d in (1, -1, None)} <= directions


def test_the_first_load_ends_the_skipping_of_zeros():
    for empty in (Constant(), Kalman()):
        assert empty.observed(0.0) == empty
        assert empty.observed(math.nan) == empty
        assert empty.observed(5.0).observed(math.inf).forecast() == 0.0


@pytest.mark.skipif(HAS_STATSMODELS, reason="statsmodels is installed")
def test_arima_without_statsmodels_says_what_is_missing():
    with pytest.raises(SettingsError, match="predictor arima: needs the package statsmodels"):
        DynamoSla(PredictorKind.ARIMA)


@pytest.mark.skipif(not HAS_STATSMODELS, reason="needs the extra package statsmodels")
@pytest.mark.parametrize("series", RECORDED["predictors"], ids=lambda s: f"log1p-{s['log1p']}")
def test_arima_forecasts_are_those_of_dynamo(series: dict[str, Any]):
    predictor = Arima(log1p=series["log1p"])
    ours, theirs = [], series["arima"]
    for value in series["values"]:
        predictor = predictor.observed(value)
        ours.append(predictor.forecast())
    assert ours[:5] == theirs[:5]  # the last value, until there are five
    assert ours == pytest.approx(theirs, rel=0.02)
    assert min(ours) >= 0


def test_arima_asks_for_statsmodels_by_name(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(predictors.importlib, "import_module", absent)
    with pytest.raises(SettingsError, match="pip install statsmodels"):
        Arima()


def test_more_work_in_less_time_is_no_model():
    model = IterationModel()
    for tokens, kv, seconds in [(0, 100, 9), (10, 200, 8), (0, 300, 7), (20, 400, 6), (5, 500, 5)]:
        model = model.observed(Iteration(seconds, 1, tokens, 1, kv))
    assert model.ready
    assert model.fit() is None
    engine = Engine(Iteration(0.1), 1000.0)
    verdict = by_latency([engine] * 3, model=model, line=None, targets=LatencyTargets())
    assert verdict == LatencyWish(3, cancels_starts=False)


def test_samples_retire_from_the_crowded_corner():
    model = IterationModel(max_samples=10)
    model = model.observed(Iteration(1.0, 1, 8000, 1, 500_000))
    for i in range(50):
        model = model.observed(Iteration(0.01, 1, 10 + i, 1, 100 + i))
    assert len(model.points) == 10
    assert (8000, 500_000, 1.0) in model.points


def test_an_idle_engine_teaches_nothing():
    model = IterationModel().observed(Iteration(0.0))
    assert not model.points
    assert not model.prefill_tokens


LINE = Line(per_prefill_token=1e-5, per_kv_token=1e-7, constant=0.01)


def pods(count: int, *, kv: float, queued: float = 0.0, silent: int = 0) -> tuple[PodView, ...]:
    def iteration(i: int) -> Iteration:
        tokens, load = 100.0 * (i % 3), kv * (1 + 0.1 * i)
        seconds = LINE.seconds(prefill_tokens=tokens, kv_tokens=load)
        return Iteration(seconds, 1, tokens, 10, load, queued)

    return tuple(
        PodView(f"p{i}", kv_capacity_tokens=400_000.0, iteration=None if i < silent else iteration(i))
        for i in range(count)
    )


def seen(replicas: tuple[PodView, ...], *, spec: int | None = None, at: float = 0.0, rate: float = 1.0) -> PeerView:
    ready = len(replicas)
    spec = ready if spec is None else spec
    return PeerView(
        spec,
        spec,
        ready,
        replicas,
        arrived_requests_total=rate * at,
        finished_requests_total=rate * at,
        finished_prompt_tokens_total=rate * at * 200,
        finished_output_tokens_total=rate * at * 2000,
    )


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        pytest.param(seen(pods(2, kv=399_000, queued=50_000)), 3, id="any-engine-over-full-grows"),
        pytest.param(seen(pods(2, kv=300_000)), 2, id="between-the-thresholds-holds"),
        pytest.param(seen(pods(4, kv=100_000)), 3, id="all-below-shrinks"),
        pytest.param(seen(pods(4, kv=100_000, silent=1)), 4, id="a-silent-engine-holds"),
        pytest.param(seen(pods(2, kv=399_000, queued=50_000), spec=3), 3, id="no-growing-while-starting"),
        pytest.param(seen(pods(2, kv=50_000), spec=4), 1, id="shrinking-cancels-starts"),
        pytest.param(seen(pods(3, kv=50_000), spec=2), 2, id="a-drain-under-way-holds"),
    ],
)
def test_the_default_planner_takes_one_step(view: PeerView, expected: int):
    policy = DynamoLoad()
    assert policy.decide(seen=view, memory=policy.initial(), now=0.0)[0] == expected


def test_a_load_planner_needs_static_targets():
    with pytest.raises(SettingsError, match="target must be one of"):
        DynamoLoad(Target.SLA)
    with pytest.raises(SettingsError, match="at least one of"):
        DynamoSla(throughput_scaling=False, load_scaling=False)


def test_throughput_decides_every_three_minutes_for_the_next_three():
    policy = DynamoSla(PredictorKind.CONSTANT, max_replicas=20)
    memory, current, changes = policy.initial(), 3, []
    for turn in range(120):
        now = 5.0 * turn
        wish, memory = policy.decide(seen=seen(pods(current, kv=100_000), at=now, rate=4.0), memory=memory, now=now)
        if wish != current:
            changes.append((now, wish))
        current = wish
    capacity = memory.model.best_requests_per_second(
        memory.model.fit() or LINE,
        prompt=200,
        output=2000,
        chunk_tokens=8192,
        first_token_seconds=0.5,
        token_seconds=0.05,
        kv_capacity_tokens=400_000,
        max_num_seqs=256,
    )
    assert changes == [(180.0, math.ceil(4.0 / capacity))]


def test_beside_the_load_planner_throughput_is_a_floor():
    policy = DynamoSla(PredictorKind.CONSTANT, load_scaling=True, max_replicas=20)
    memory, current, lowest = policy.initial(), 6, 6
    for turn in range(80):
        now = 5.0 * turn
        current, memory = policy.decide(seen=seen(pods(current, kv=1000), at=now, rate=10.0), memory=memory, now=now)
        lowest = min(lowest, current)
    assert lowest < memory.lower_bound <= current


def test_an_idle_interval_repeats_the_last_lengths():
    policy = DynamoSla(PredictorKind.CONSTANT, max_replicas=20)
    memory = policy.initial()
    busy = seen(pods(3, kv=100_000), at=300.0)
    for turn in range(120):
        now = 5.0 * turn
        view = seen(pods(3, kv=100_000), at=now) if now <= 300 else busy
        _, memory = policy.decide(seen=view, memory=memory, now=now)
    assert memory.requests is not None
    assert memory.requests.forecast() == 0.0
    assert memory.outputs is not None
    assert memory.outputs.forecast() == 2000.0


@given(
    loads=st.lists(st.tuples(st.floats(0, 4e5), st.floats(0, 50)), min_size=1, max_size=50),
    load_scaling=st.booleans(),
)
def test_bounds_hold_whatever_the_load(loads: list[tuple[float, float]], load_scaling: bool):
    policy = DynamoSla(
        PredictorKind.KALMAN,
        LatencyTargets(min_replicas=2),
        load_scaling=load_scaling,
        max_replicas=6,
        interval_seconds=20.0,
    )
    memory, current, arrived = policy.initial(), 4, 0.0
    for turn, (kv, rate) in enumerate(loads):
        arrived += 5 * rate
        view = seen(pods(current, kv=kv), at=arrived)
        current, memory = policy.decide(seen=view, memory=memory, now=5.0 * turn)
        assert 2 <= current <= 6
