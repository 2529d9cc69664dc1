"""One service over many ticks: nothing shrinks before it was watched, and what was carried out is remembered."""

from dataclasses import replace

from longtail.demand.observation import Observation, Signal
from longtail.policy.behavior import ScaleEvent
from longtail.policy.decision import Reason
from longtail.policy.fleet import Behavior
from longtail.policy.ladder import decide
from longtail.policy.memory import ServiceMemory
from longtail.policy.trust import GAP_SECONDS

from .worlds import AT_ONCE, NOW, TICK, WATCHED, decided, demand, plain, rules, seen, service, stale, unseen


def run(
    observations: list[Observation], *, replicas: int = 4, behavior: Behavior = AT_ONCE
) -> tuple[list[Reason], ServiceMemory]:
    """Fold over ticks of 15 s from a cold start, the target never following."""
    memory, reasons = ServiceMemory(), []
    for tick, observation in enumerate(observations):
        decision, memory = decide(
            service=service(replicas, behavior=behavior),
            observation=observation,
            demand=plain(observation),
            memory=memory,
            now=NOW + TICK * tick,
        )
        reasons.append(decision.reason)
    return reasons, memory


def test_nothing_shrinks_before_a_whole_window_was_watched() -> None:
    minute = Behavior(scale_down=replace(Behavior().scale_down, stabilization_window_seconds=60))
    reasons, _ = run([seen(3)] * 5, behavior=minute)
    assert reasons == [Reason.WARMING_UP] * 4 + [Reason.SCALE_DOWN]


def test_growth_needs_no_warm_up() -> None:
    assert decided(service(4), seen(60), memory=ServiceMemory()).desired == 8


def test_looking_away_for_long_starts_the_warm_up_again() -> None:
    minute = Behavior(scale_down=replace(Behavior().scale_down, stabilization_window_seconds=60))
    blind_ticks = int(GAP_SECONDS / TICK)
    reasons, _ = run([seen(3)] * 6 + [unseen()] * blind_ticks + [seen(3)] * 5, behavior=minute)
    assert reasons[5] is Reason.SCALE_DOWN
    assert reasons[6 : 6 + blind_ticks] == [Reason.METRICS_MISSING] * blind_ticks
    assert reasons[-5:] == [Reason.WARMING_UP] * 4 + [Reason.SCALE_DOWN]


def test_a_lost_scrape_does_not_start_the_warm_up_again() -> None:
    minute = Behavior(scale_down=replace(Behavior().scale_down, stabilization_window_seconds=60))
    reasons, _ = run([seen(3)] * 6 + [unseen()] + [seen(3)], behavior=minute)
    assert reasons[-2:] == [Reason.METRICS_MISSING, Reason.SCALE_DOWN]


def test_a_blind_tick_leaves_no_recommendation() -> None:
    _, memory = run([seen(30), unseen(), seen(stale(0), stale(0))], behavior=Behavior())
    assert [each.replicas for each in memory.recommendations] == [4]


def test_a_contradictory_tick_recommends_what_there_is() -> None:
    _, memory = run([seen(0, gpu_active_ratio=Signal(value=0.4))], behavior=Behavior())
    assert [each.replicas for each in memory.recommendations] == [4]


def test_what_windows_can_no_longer_see_is_forgotten() -> None:
    _, memory = run([seen(30)] * 100, behavior=Behavior())
    assert len(memory.recommendations) == 300 / TICK


def test_a_change_that_was_carried_out_uses_up_the_rate() -> None:
    slow = Behavior(scale_up=rules(policies=AT_ONCE.scale_up.policies[1:]))  # 4 pods in 15 s
    first, memory = decide(
        service=service(4, behavior=slow),
        observation=seen(200),
        demand=demand(200.0),
        memory=WATCHED,
        now=NOW,
    )
    assert first.desired == 8
    second, memory = decide(
        service=service(8, behavior=slow),
        observation=seen(200),
        demand=demand(200.0),
        memory=memory,
        now=NOW + 10,
    )
    assert memory.events == (ScaleEvent(at=NOW, change=4),)
    assert (second.desired, second.reason) == (8, Reason.SCALE_UP_LIMIT)


def test_a_change_that_was_not_carried_out_uses_up_nothing() -> None:
    _, memory = decide(service=service(4), observation=seen(200), demand=demand(200.0), memory=WATCHED, now=NOW)
    again, memory = decide(service=service(4), observation=seen(200), demand=demand(200.0), memory=memory, now=NOW + 10)
    assert (again.desired, memory.events) == (8, ())


def test_a_change_in_the_other_direction_is_somebody_elses() -> None:
    _, memory = decide(service=service(4), observation=seen(200), demand=demand(200.0), memory=WATCHED, now=NOW)
    _, memory = decide(service=service(2), observation=seen(200), demand=demand(200.0), memory=memory, now=NOW + 15)
    assert memory.events == ()


def test_a_change_made_while_the_target_was_out_of_sight_still_counts() -> None:
    _, memory = decide(service=service(4), observation=seen(200), demand=demand(200.0), memory=WATCHED, now=NOW)
    for tick, replicas in enumerate((None, 8), start=1):
        _, memory = decide(
            service=service(replicas),
            observation=seen(200),
            demand=demand(200.0),
            memory=memory,
            now=NOW + 5 * tick,
        )
    assert memory.events == (ScaleEvent(at=NOW, change=4),)
