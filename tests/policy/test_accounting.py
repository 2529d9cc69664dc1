"""Where the GPU-seconds of an interval go: each has one phase, whatever the pods do."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.demand.observation import MISSING, Buckets, Observation, PodReading, Signal
from longtail.policy.accounting import LONGEST_SECONDS, NOTHING, PHASES, Account, Phase, account, held_gpus
from longtail.policy.fleet import GpuShape, Pod

NOW = 1_795_507_200.0
EIGHT = GpuShape("H100", 8)


def at_work(name: str = "p", **over) -> Pod:
    fields = {"created_at": NOW - 900, "scheduled_at": NOW - 890, "ready_at": NOW - 600, "ready": True} | over
    return Pod(name=name, **fields)


def seen(**over) -> Observation:
    return Observation(at_seconds=NOW, interval_seconds=15.0, **over)


def of(*pods: Pod, since: float = NOW - 15, gpus: GpuShape = EIGHT, **over) -> Account:
    given = {"observation": seen(), "slots_used": 8.0, "slots_per_replica": 8.0} | over
    return account(pods=pods, gpus=gpus, since=since, now=NOW, **given)


def by_phase(one: Account) -> dict[str, float]:
    return {str(phase): value for phase, value in zip(PHASES, one.by_phase, strict=True) if value}


@pytest.mark.parametrize(
    ("pods", "phases"),
    [
        pytest.param([at_work()], {"serving": 120}, id="full"),
        pytest.param([at_work("a"), at_work("b")], {"serving": 120, "headroom": 120}, id="half-full"),
        pytest.param([at_work(ready_at=NOW - 5)], {"starting": 80, "serving": 40}, id="became-ready"),
        pytest.param([at_work(ready_at=None, ready=False)], {"starting": 120}, id="loads"),
        pytest.param([at_work(ready_at=None, ready=False, deleting=True)], {"starting": 120}, id="start-given-up"),
        pytest.param(
            [at_work(scheduled_at=NOW - 4, ready_at=None, ready=False)], {"starting": 32}, id="got-its-node-just-now"
        ),
        pytest.param([at_work(scheduled_at=None, ready_at=None, ready=False)], {}, id="waits-for-a-node"),
        pytest.param([at_work(cordoned=True)], {"draining": 120}, id="drains"),
        pytest.param([at_work(deleting=True, ready=False)], {"draining": 120}, id="is-being-deleted"),
        pytest.param([at_work(isolated=True)], {"unavailable": 120}, id="isolated"),
        pytest.param([at_work(ready=False)], {"unavailable": 120}, id="lost-its-readiness"),
        pytest.param([], {}, id="none"),
    ],
)
def test_each_gpu_second_has_one_phase(pods: list[Pod], phases: dict[str, float]) -> None:
    assert by_phase(of(*pods)) == pytest.approx(phases)


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param({"slots_used": None}, id="demand"),
        pytest.param({"slots_per_replica": None}, id="capacity"),
    ],
)
def test_what_nobody_counts_is_neither_use_nor_headroom(unknown) -> None:
    assert by_phase(of(at_work(), **unknown)) == {"unknown": 120}


def test_requests_on_draining_replicas_use_no_slot_of_the_others() -> None:
    readings = (PodReading("stays", Signal(2.0)), PodReading("goes", Signal(6.0)))
    found = of(at_work("stays"), at_work("goes", cordoned=True), observation=seen(pods=readings), slots_used=8.0)
    assert by_phase(found) == {"serving": 30, "headroom": 90, "draining": 120}


@pytest.mark.parametrize(
    "since",
    [
        pytest.param(NOW, id="no-time"),
        pytest.param(NOW + 5, id="a-clock-that-went-back"),
        pytest.param(NOW - LONGEST_SECONDS - 1, id="a-gap"),
    ],
)
def test_what_cannot_be_told_from_now_is_not_counted(since: float) -> None:
    assert of(at_work(), since=since) == NOTHING


def test_the_product_is_counted_with_the_time_that_it_is_known_of() -> None:
    finished = Buckets((100.0, math.inf), (3.0, 1.0))
    known = of(
        at_work(),
        observation=seen(
            finished_output_tokens=finished,
            generated_tokens=Signal(4000.0),
            reasoning_share=Signal(0.75),
            gpu_active_ratio=Signal(0.9),
        ),
    )
    assert known[6:] == pytest.approx((12.0, 120.0, 4.0, 120.0, 4000.0, 120.0, 3000.0, 4000.0))
    both = known + of(at_work(), observation=seen())
    assert both.gpu_seconds == 240
    # Half of the time nobody counted answers: it is not divided by them.
    assert both.gpu_hours_per_answer == pytest.approx(120 / 3600 / 4)
    assert both.gpu_hours_per_output_token == pytest.approx(120 / 3600 / 4000)
    assert both.gpu_hours_per_reasoning_token == pytest.approx(120 / 3600 / 3000)
    assert both.idle_share == pytest.approx(0.1)
    assert both.share(Phase.SERVING) == 1


def test_an_increase_over_two_looks_stands_for_the_time_of_both() -> None:
    late = Observation(at_seconds=NOW, interval_seconds=30.0, generated_tokens=Signal(8000.0))
    assert of(at_work(), observation=late).output_over == 240


def test_without_an_answer_nothing_costs_anything_per_answer() -> None:
    assert NOTHING.gpu_hours_per_answer is None
    assert NOTHING.gpu_hours_per_output_token is None
    assert NOTHING.gpu_hours_per_reasoning_token is None
    assert NOTHING.idle_share is None
    assert NOTHING.share(Phase.HEADROOM) == 0
    assert of(at_work(), observation=seen(generated_tokens=Signal(5.0))).gpu_hours_per_reasoning_token is None
    assert of(at_work(), observation=None).gpu_seconds == 120


def test_gpus_are_held_from_the_node_on() -> None:
    pods = [at_work(), at_work(scheduled_at=None, ready_at=None, ready=False), at_work(deleting=True)]
    assert held_gpus(pods, EIGHT, now=NOW) == 16


ages = st.floats(0, 1200)
times = st.one_of(st.none(), ages.map(lambda age: NOW - age))
any_pod = st.builds(
    Pod,
    name=st.text(st.characters(codec="ascii"), min_size=1, max_size=3),
    created_at=ages.map(lambda age: NOW - age),
    scheduled_at=times,
    ready_at=times,
    ready=st.booleans(),
    deleting=st.booleans(),
    cordoned=st.booleans(),
    isolated=st.booleans(),
)
signals = st.one_of(st.just(MISSING), st.builds(Signal, value=st.floats(0, 1e6)))
observations = st.one_of(
    st.none(),
    st.builds(
        Observation,
        at_seconds=st.just(NOW),
        generated_tokens=signals,
        reasoning_share=signals,
        gpu_active_ratio=signals,
        finished_output_tokens=st.one_of(st.none(), st.just(Buckets((math.inf,), (3.0,)))),
        pods=st.lists(st.builds(PodReading, name=st.sampled_from("abc"), running_requests=signals), max_size=3),
    ),
)


@settings(deadline=None)
@given(
    pods=st.lists(any_pod, max_size=6),
    gpus=st.integers(1, 64),
    seconds=st.floats(0.001, LONGEST_SECONDS),
    observation=observations,
    used=st.one_of(st.none(), st.floats(0, 1e5)),
    slots=st.one_of(st.none(), st.floats(0.5, 512)),
)
def test_the_phases_add_up_to_pods_by_gpus_by_time(pods, gpus, seconds, observation, used, slots) -> None:
    found = account(
        pods=pods,
        gpus=GpuShape("H100", gpus),
        observation=observation,
        slots_used=used,
        slots_per_replica=slots,
        since=NOW - seconds,
        now=NOW,
    )
    held = [pod.scheduled_at if pod.scheduled_at is not None else pod.ready_at for pod in pods]
    elapsed = NOW - (NOW - seconds)
    expected = gpus * sum(min(elapsed, NOW - since) for since in held if since is not None)
    assert found.gpu_seconds == pytest.approx(expected, abs=1e-3)
    assert all(value >= 0 and math.isfinite(value) for value in found)
    assert found.idle <= found.watched <= found.gpu_seconds + 1e-6
    assert found.reasoning_tokens <= found.told_tokens <= found.output_tokens
    # Ready time is either known as use and headroom, or not known at all.
    assert found.unknown == 0 or found.serving + found.headroom == 0


@settings(deadline=None)
@given(
    pods=st.lists(any_pod.filter(lambda pod: not pod.cordoned or pod.ready_at), max_size=4),
    first=st.floats(1, 100),
    second=st.floats(1, 100),
)
def test_two_intervals_are_as_much_as_one(pods, first, second) -> None:
    """As long as nobody changes what he is, it does not matter how often one looks."""

    def between(since: float, now: float) -> Account:
        return account(
            pods=[pod for pod in pods if (pod.ready_at or 0) <= now],
            gpus=EIGHT,
            observation=None,
            slots_used=None,
            slots_per_replica=None,
            since=since,
            now=now,
        )

    start, middle = NOW - first - second, NOW - second
    pods = [pod for pod in pods if pod.ready_at is None or pod.ready_at <= middle]
    split = between(start, middle) + between(middle, NOW)
    assert split.by_phase == pytest.approx(between(start, NOW).by_phase, abs=1e-2)
