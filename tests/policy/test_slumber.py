"""Scale to zero and back."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand.observation import MISSING, Observation, PodReading, Quality, Signal
from longtail.policy.decision import Decision, Reason, Rung
from longtail.policy.fleet import Fallback, Pod, Service, Target, ZeroRules
from longtail.policy.idle_gaps import GAPS, IdleClock, keep_awake_seconds, tick
from longtail.policy.ladder import decide
from longtail.policy.memory import ServiceMemory
from longtail.policy.slumber import BLIND_SECONDS

from .worlds import AT_ONCE, NOW, TICK, WATCHED, demand, plain, rung, seen, service, stale, unseen

RULES = ZeroRules(idle_seconds=300.0)
NOBODY, SOMEBODY = Signal(value=0.0), Signal(value=0.2)


def sleeper(replicas: int = 1, *, rules: ZeroRules = RULES, **over: Any) -> Service:
    of = replace(service(replicas, behavior=AT_ONCE, min_replicas=0), zero=rules, **over)
    if replicas == 0:
        return replace(of, target=Target(replicas=0, ready_replicas=0))
    assert of.target is not None
    return replace(of, target=replace(of.target, pods=tuple(replace(pod, switch=True) for pod in of.target.pods)))


def idle(replicas: int = 1, **over: Any) -> Observation:
    quiet = tuple(PodReading(name=f"r1-{n}", running_requests=NOBODY, waiting_requests=NOBODY) for n in range(replicas))
    fields = {"ready_pods": replicas, "reporting_pods": replicas, "activation": NOBODY, "pods": quiet}
    return seen(0, 0, **(fields | over))


def run(
    of: Service, observations: list[Observation], memory: ServiceMemory = WATCHED
) -> tuple[Decision, ServiceMemory]:
    """Fold over ticks of 15 s; the target does not follow."""
    for number, observation in enumerate(observations):
        now = NOW + TICK * number
        at = replace(observation, at_seconds=now)
        decision, memory = decide(service=of, observation=at, demand=plain(at), memory=memory, now=now)
    return decision, memory


FIVE_MINUTES = 21
"""Looks at 0, 15, ... 300 s."""


def test_a_pool_without_work_goes_to_sleep_through_its_drain() -> None:
    decision, _ = run(sleeper(), [idle()] * (FIVE_MINUTES - 1))
    assert decision.desired == 1
    decision, _ = run(sleeper(), [idle()] * FIVE_MINUTES)
    assert (decision.desired, decision.reason) == (0, Reason.SCALE_DOWN)
    assert rung(decision, Rung.ZERO).because == "no work for 300 s, and to stay awake is worth 300 s"
    assert decision.placement is not None
    assert (decision.placement.cordon, decision.placement.replicas) == (("r1-0",), 1)


def test_the_last_replica_goes_when_it_has_been_seen_empty_out_of_routing() -> None:
    of = sleeper()
    assert of.target is not None
    out = replace(of.target.pods[0], cordoned=True, cordoned_at=NOW - 60)
    decision, memory = run(replace(of, target=replace(of.target, pods=(out,))), [idle()] * 2)
    assert (decision.current, decision.desired) == (0, 0)
    assert decision.placement is not None
    assert (decision.placement.commit, decision.placement.replicas) == (("r1-0",), 0)
    woken, _ = decide(
        service=replace(of, target=replace(of.target, pods=(out,))),
        observation=idle(activation=SOMEBODY),
        demand=plain(idle()),
        memory=memory,
        now=NOW + 60,
    )
    assert woken.placement is not None
    assert (woken.desired, woken.placement.uncordon, woken.placement.replicas) == (1, ("r1-0",), 1)


@pytest.mark.parametrize(
    "look",
    [
        pytest.param(idle(running_requests=Signal(value=1.0)), id="a-long-thought-runs"),
        pytest.param(idle(waiting_requests=Signal(value=1.0)), id="a-request-waits"),
        pytest.param(idle(gateway_waiting_requests=Signal(value=2.0)), id="one-waits-in-the-gateway"),
        pytest.param(idle(activation=SOMEBODY), id="one-arrives-at-the-door"),
        pytest.param(idle(first_tokens=Signal(value=1.0)), id="one-came-and-went-between-two-looks"),
        pytest.param(idle(arrivals=Signal(value=1.0)), id="one-was-counted-at-the-door"),
        pytest.param(idle(gpu_active_ratio=Signal(value=0.4)), id="the-gpu-is-busy"),
    ],
)
def test_any_sign_of_work_keeps_a_pool_awake(look: Observation) -> None:
    looks = [idle()] * FIVE_MINUTES
    looks[10] = look
    decision, memory = run(sleeper(), looks)
    assert decision.desired == 1
    assert memory.idle_clock.gaps_seconds == (10 * TICK,)


@pytest.mark.parametrize(
    "look",
    [
        pytest.param(idle(activation=MISSING), id="nobody-knows-the-door"),
        pytest.param(unseen(), id="nothing-is-known"),
        pytest.param(idle(running_requests=stale(0.0)), id="the-engine-is-not-heard"),
        pytest.param(idle(replicas=2, reporting_pods=1), id="a-pod-is-silent"),
        pytest.param(idle(replicas=1, ready_pods=0, reporting_pods=0), id="no-pod-is-ready"),
    ],
)
def test_nobody_sleeps_who_is_not_known_to_be_idle(look: Observation) -> None:
    decision, _ = run(sleeper(), [look] * 2 * FIVE_MINUTES)
    assert decision.desired >= 1


def test_a_lost_scrape_does_not_start_the_clock_again_but_a_gap_does() -> None:
    looks = [idle()] * FIVE_MINUTES
    assert run(sleeper(), [*looks[:10], unseen(), *looks[11:]])[0].desired == 0
    assert run(sleeper(), [*looks[:8], *[unseen()] * 6, *looks[14:]])[0].desired == 1


def test_a_pool_that_could_not_be_woken_does_not_sleep_and_says_why() -> None:
    looks = [*[idle()] * FIVE_MINUTES, idle(activation=MISSING)]
    decision, _ = run(sleeper(), looks)
    assert decision.desired == 1
    assert "nobody can say whether some comes" in rung(decision, Rung.ZERO).because


def test_a_pool_of_many_goes_to_sleep_one_after_the_other() -> None:
    decision, _ = run(sleeper(4), [idle(4)] * FIVE_MINUTES)
    assert decision.desired == 0
    assert decision.placement is not None
    assert (len(decision.placement.cordon), decision.placement.replicas) == (1, 4)


def test_the_margin_of_a_forecast_does_not_keep_an_idle_pool_awake() -> None:
    of, memory = sleeper(2), WATCHED
    for number in range(FIVE_MINUTES):
        now = NOW + TICK * number
        need = demand(0.0, slots_forecast=0.0, slots_upper=10.0, slots_peak=10.0)
        look = replace(idle(2), at_seconds=now)
        decision, memory = decide(service=of, observation=look, demand=need, memory=memory, now=now)
        assert decision.desired == (0 if number == FIVE_MINUTES - 1 else 2)


def test_a_pool_with_a_minimum_keeps_it_while_awake_and_gives_it_up_asleep() -> None:
    of = sleeper(3)
    of = replace(of, limits=replace(of.limits, min_replicas=3))
    assert run(of, [idle(3)] * (FIVE_MINUTES - 1))[0].desired == 3
    assert run(of, [idle(3)] * FIVE_MINUTES)[0].desired == 0


ASLEEP = replace(WATCHED, idle_clock=IdleClock(since=NOW - 3600, confirmed_at=NOW - TICK))


def asleep(**over: Any) -> Observation:
    return idle(0, **over)


def test_a_sleeping_pool_stays_asleep_while_nobody_comes() -> None:
    decision, _ = run(sleeper(0), [asleep()] * 10, ASLEEP)
    assert (decision.desired, decision.reason, decision.hold) == (0, Reason.SCALED_TO_ZERO, False)


def test_work_at_the_door_wakes_a_pool_at_once() -> None:
    decision, memory = run(sleeper(0), [asleep(activation=SOMEBODY)], ASLEEP)
    assert (decision.desired, decision.reason) == (1, Reason.SCALE_UP)
    assert decision.placement is not None
    assert decision.placement.replicas == 1
    assert memory.idle_clock.gaps_seconds == (3600.0,)


def test_a_queue_in_the_gateway_wakes_as_many_as_it_needs() -> None:
    of = sleeper(0, rules=ZeroRules(idle_seconds=300.0, query=False, gateway=True))
    decision, _ = run(of, [asleep(activation=MISSING, gateway_waiting_requests=Signal(value=20.0))], ASLEEP)
    assert decision.desired == 3  # 20 requests of 8 a replica


def test_zero_without_sleep_is_somebodys_pause() -> None:
    of = replace(sleeper(0), zero=None)
    decision, _ = run(of, [asleep(activation=SOMEBODY)], ASLEEP)
    assert (decision.desired, decision.reason) == (0, Reason.SCALING_DISABLED)


def test_a_pool_that_was_woken_does_not_sleep_before_it_was_ready() -> None:
    """Whoever knocked has given up; the replica loads for ten minutes, and serves for idleSeconds after that."""
    loading = Target(replicas=1, ready_replicas=0, pods=(Pod(name="r1-0", created_at=NOW),))
    _, memory = run(sleeper(0), [asleep(activation=SOMEBODY)], ASLEEP)
    decision, memory = run(replace(sleeper(), target=loading), [idle(0)] * 40, memory)
    assert decision.desired == 1
    assert decision.placement is not None
    assert not decision.placement.changes
    decision, memory = run(sleeper(), [idle()] * (FIVE_MINUTES - 1), memory)
    assert decision.desired == 1


@pytest.mark.parametrize(
    ("fallback", "after", "replicas"),
    [
        pytest.param(None, BLIND_SECONDS, 1, id="to-one-after-three-minutes"),
        pytest.param(Fallback(after_seconds=60.0, replicas=6), 60.0, 6, id="to-the-fallback"),
        pytest.param(Fallback(after_seconds=60.0, replicas=600), 60.0, 20, id="never-above-the-maximum"),
    ],
)
@pytest.mark.parametrize(
    "lost",
    [
        pytest.param(MISSING, id="missing"),
        pytest.param(stale(0.0), id="stale"),
        pytest.param(Signal(value=0.0, quality=Quality.PARTIAL), id="partial"),
    ],
)
def test_a_sleeper_that_nobody_can_wake_wakes_by_itself(
    fallback: Fallback | None, after: float, replicas: int, lost: Signal
) -> None:
    ticks = int(after / TICK)
    of = sleeper(0, fallback=fallback)
    decision, _ = run(of, [asleep(activation=lost)] * ticks, ASLEEP)
    assert (decision.desired, decision.reason) == (0, Reason.ACTIVATION_MISSING)
    decision, _ = run(of, [asleep(activation=lost)] * (ticks + 1), ASLEEP)
    assert (decision.desired, decision.reason) == (replicas, Reason.SCALE_UP)


gaps = st.lists(st.floats(1.0, 1e5), max_size=GAPS)


@given(gaps=gaps, least=st.floats(60.0, 7200.0), price=st.floats(1.0, 7200.0))
def test_the_time_awake_is_between_what_the_user_says_and_one_price_more(
    gaps: list[float], least: float, price: float
) -> None:
    kept = keep_awake_seconds(gaps_seconds=gaps, idle_seconds=least, wake_price_seconds=price)
    assert least <= kept <= least + price


@given(gaps=gaps, least=st.floats(60.0, 7200.0), price=st.floats(1.0, 7200.0))
def test_no_other_time_would_have_cost_less(gaps: list[float], least: float, price: float) -> None:
    def cost(awake: float) -> float:
        return sum(min(gap, awake) + (price if gap > awake else 0.0) for gap in gaps)

    kept = keep_awake_seconds(gaps_seconds=gaps, idle_seconds=least, wake_price_seconds=price)
    if len(gaps) >= 4:
        for other in (least, least + price / 3, least + price, *(gap for gap in gaps if least <= gap <= least + price)):
            assert cost(kept) <= cost(other) * (1 + 1e-9)


def test_the_clock_remembers_a_bounded_number_of_gaps() -> None:
    clock = IdleClock()
    for number in range(2 * GAPS):
        clock = tick(clock, idle=number % 2 == 0, now=float(number))
        clock = tick(clock, idle=False, now=number + 0.5)
    assert len(clock.gaps_seconds) <= GAPS
