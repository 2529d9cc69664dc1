"""Variants of one model: whose next replica starts, whose goes first, and that the group never has less than it needs."""

from dataclasses import replace
from typing import Any

import pytest

from longtail.demand.observation import MISSING, Observation, Signal
from longtail.demand.parameters import ServiceParameters
from longtail.policy.decision import Decision, Reason, Rung, Shortage, ShortageReason
from longtail.policy.fleet import (
    DrainPolicy,
    DrainRules,
    Fleet,
    GpuBudget,
    GpuShape,
    Limits,
    Mode,
    Pod,
    SelectPolicy,
    Service,
    ServiceKey,
    Variant,
)
from longtail.policy.gateway_queue import one_queue
from longtail.policy.memory import Memory, RanOut, ServiceMemory
from longtail.policy.roster import roster
from longtail.policy.step import step
from longtail.policy.variants import learn

from .pools import load, pool, ticks, variant
from .worlds import AT_ONCE, NOW, rung


def pending(of: Service, count: int, *, since: float) -> Service:
    """The same with replicas more that no node takes."""
    target = of.target
    assert target is not None
    more = tuple(
        Pod(f"{of.key.name}-pending-{n}", created_at=since, unschedulable_message="0/9 nodes are available")
        for n in range(count)
    )
    return replace(of, target=replace(target, replicas=target.replicas + count, pods=(*target.pods, *more)))


def sizes(decided: dict[str, Decision]) -> dict[str, int]:
    return {name: decision.desired for name, decision in decided.items()}


def test_the_next_replica_starts_on_the_cheapest_and_both_say_why() -> None:
    decided = ticks([variant("h100", 3), variant("l40s", 3)], {"h100": 24, "l40s": 30}, count=1)
    h100, l40s = decided["h100"], decided["l40s"]
    assert (l40s.desired, l40s.limited_by, l40s.reason) == (3, Reason.VARIANTS, Reason.VARIANTS)
    assert (h100.desired, h100.limited_by, h100.reason) == (4, None, Reason.SCALE_UP)
    why = "variants of r1: 4 replicas here; a token here costs 0.75 of one on l40s"
    assert rung(h100, Rung.VARIANTS).because.startswith(why)
    assert why in h100.message
    assert "a token here costs 1.33 of one on h100" in l40s.message


def test_the_dearest_shrinks_first_and_by_the_reversible_way() -> None:
    """Each would take 7: 12 that are ready and 2 are those 14. One more on the cheaper, and the dearer has its least."""
    alone = ticks([variant("h100", 12), variant("l40s", 5, variant=None)], {"h100": 16, "l40s": 16})
    assert sizes(alone) == {"h100": 7, "l40s": 7}
    decided = ticks([variant("h100", 12), variant("l40s", 5)], {"h100": 16, "l40s": 16})
    assert sizes(decided) == {"h100": 13, "l40s": 2}
    l40s = decided["l40s"].placement
    assert l40s is not None
    assert (len(l40s.cordon), l40s.commit, l40s.replicas) == (1, (), 5)


@pytest.mark.parametrize(
    "over",
    [
        pytest.param({"drain": DrainRules(policy=DrainPolicy.IMMEDIATE)}, id="immediate-drain"),
        pytest.param({"mode": Mode.ADVISE}, id="advised"),
        pytest.param({"variant": None}, id="no-variant"),
        pytest.param({"variant": Variant("v3", 4.0)}, id="of-another-model"),
        pytest.param({"key": ServiceKey("elsewhere", "l40s")}, id="in-another-namespace"),
    ],
)
def test_who_is_not_shrunk_for_others(over: dict[str, Any]) -> None:
    decided = ticks([variant("h100", 12), variant("l40s", 5, **over)], {"h100": 16, "l40s": 16})
    assert decided["l40s"].desired >= 5


def test_what_holds_nobody_knows_how_much_takes_no_part() -> None:
    services = [variant("h100", 12), variant("l40s", 5, parameters=ServiceParameters())]
    loads = {"h100": 16.0, "l40s": 16.0}
    assert ticks(services, loads) == ticks([replace(of, variant=None) for of in services], loads)


def test_while_requests_wait_in_its_engines_a_variant_is_not_shrunk() -> None:
    services = [variant("h100", 9), variant("l40s", 2)]
    assert ticks(services, {"h100": 8, "l40s": 18})["l40s"].desired == 2


def test_what_cannot_be_had_is_served_by_others_and_still_asked_for() -> None:
    """Two of five replicas have found no node for an hour: two more on the dearer GPUs, and the two stay asked for."""
    services = [pending(variant("h100", 3), 2, since=NOW - 3600), variant("l40s", 1)]
    decided = ticks(services, {"h100": 40, "l40s": 8}, count=1)
    assert sizes(decided) == {"h100": 5, "l40s": 3}
    assert decided["h100"].supply_short
    assert "3 replicas here, as h100 cannot have what is needed" in decided["l40s"].message


def test_once_others_serve_it_what_cannot_be_had_stays_asked_for() -> None:
    """The load has moved: what is left of it on the cheaper variant is served by what is there."""
    services = [pending(variant("h100", 3), 2, since=NOW - 3600), variant("l40s", 8)]
    alone = ticks([replace(of, variant=None) for of in services], {"h100": 2, "l40s": 24})
    assert sizes(alone) == {"h100": 3, "l40s": 8}
    assert sizes(ticks(services, {"h100": 2, "l40s": 24})) == {"h100": 5, "l40s": 8}


def test_when_it_comes_the_dearer_ones_leave() -> None:
    decided = ticks([variant("h100", 20), variant("l40s", 3)], {"h100": 28, "l40s": 18})
    assert decided["l40s"].desired == 1


def test_what_a_budget_does_not_give_is_served_by_others() -> None:
    services = [variant("h100", 3), variant("l40s", 1)]
    decided = ticks(services, {"h100": 40, "l40s": 8}, GpuBudget("H100", 24), count=1)
    assert sizes(decided) == {"h100": 3, "l40s": 3}
    assert decided["h100"].limited_by is Reason.GPU_BUDGET
    both = ticks(services, {"h100": 40, "l40s": 8}, GpuBudget("H100", 24), GpuBudget("L40S", 16), count=1)
    assert sizes(both) == {"h100": 3, "l40s": 2}
    assert both["h100"].limited_by is Reason.GPU_BUDGET


def test_what_is_above_the_highest_number_is_served_by_others() -> None:
    services = [variant("h100", 3, limits=Limits(1, 4, AT_ONCE)), variant("l40s", 1)]
    assert sizes(ticks(services, {"h100": 40, "l40s": 8}, count=1)) == {"h100": 4, "l40s": 2}


def test_growing_for_others_is_as_fast_as_behavior_allows() -> None:
    services = [variant("h100", 3, limits=Limits(1, 3, AT_ONCE)), variant("l40s", 1)]
    decided = ticks(services, {"h100": 120, "l40s": 8}, count=1)
    assert decided["l40s"].desired == 5  # 4 pods in 15 s
    assert "behavior allows" in rung(decided["l40s"], Rung.VARIANTS).because


def test_a_variant_that_cannot_be_seen_keeps_what_it_has() -> None:
    decided = ticks([variant("h100", 4), variant("l40s", 5)], {"h100": 16})
    assert (decided["l40s"].desired, decided["l40s"].hold) == (5, True)
    alone = ticks([variant("h100", 4)], {"h100": 16})
    assert decided["h100"].desired == alone["h100"].desired


def test_without_prices_gpus_count_alike_and_without_gpus_replicas() -> None:
    dear = {"gpus": GpuShape("L40S", 4), "variant": Variant("r1")}
    loads = {"h100": 24, "l40s": 30}
    assert sizes(ticks([variant("h100", 3), variant("l40s", 3, **dear)], loads, count=1)) == {"h100": 3, "l40s": 6}
    alike = {"gpus": None, "variant": Variant("r1")}
    assert sizes(ticks([variant("h100", 3), variant("l40s", 3, **alike)], loads, count=1)) == {"h100": 4, "l40s": 3}


def test_a_group_that_is_only_advised_is_advised_as_a_group() -> None:
    services = [variant(name, 3, mode=Mode.ADVISE) for name in ("h100", "l40s")]
    assert sizes(ticks(services, {"h100": 30, "l40s": 24}, count=1)) == {"h100": 6, "l40s": 3}


def test_a_variant_needs_another_one() -> None:
    alone = {"h100": 40.0}
    assert ticks([variant("h100", 3)], alone) == ticks([pool("h100", 3, gpus=GpuShape("H100", 8))], alone)


def test_the_queue_of_one_gateway_is_counted_once() -> None:
    services = [
        variant(name, count, variant=Variant("r1", queue="r1-pool")) for name, count in (("h100", 3), ("l40s", 1))
    ]
    waiting = Signal(12.0)
    seen = [replace(load(of, 8), gateway_waiting_requests=waiting) for of in services]
    assert [each.gateway_waiting_requests for each in one_queue(services, seen)] == [Signal(9.0), Signal(3.0)]
    apart = [services[0], replace(services[1], variant=Variant("r1", queue="other"))]
    assert one_queue(apart, seen) == seen
    blind = [seen[0], Observation(at_seconds=NOW)]
    assert [each.gateway_waiting_requests for each in one_queue(services, blind)] == [Signal(12.0), MISSING]


def test_where_a_variant_ran_out_is_asked_on_both_at_once_until_more_is_had() -> None:
    """It had 3 when capacity was short. Two more are asked for there, and the others do not wait for them to fail."""
    services = [variant("h100", 3), variant("l40s", 1)]
    memory = replace(Memory.empty(), services={services[0].key: ServiceMemory(ran_out=RanOut(3, NOW - 3600))})
    seen = {of.key: load(of, requests) for of, requests in zip(services, (40, 8), strict=True)}
    decisions, after = step(fleet=Fleet(services), observations=seen, memory=memory, now=NOW)
    assert {key.name: each.desired for key, each in decisions.items()} == {"h100": 5, "l40s": 3}
    assert after.services[services[0].key].ran_out == RanOut(3, NOW - 3600)


@pytest.mark.parametrize(
    ("ready", "waiting", "since", "known"),
    [
        pytest.param(3, 2, 3600.0, RanOut(3, NOW), id="short-again"),
        pytest.param(4, 0, 3600.0, None, id="one-more-works"),
        pytest.param(2, 0, 3600.0, RanOut(3, NOW - 3600), id="fewer-are-needed"),
        pytest.param(2, 0, 90_000.0, None, id="a-day-later"),
    ],
)
def test_what_is_remembered_of_having_run_out(ready: int, waiting: int, since: float, known: RanOut | None) -> None:
    of = pending(variant("h100", ready), waiting, since=NOW - 600)
    assert of.target is not None
    shortage = Shortage(ShortageReason.UNSCHEDULABLE, "0/9", since=NOW - 600, declared_at=NOW - 400, retry_at=NOW)
    memory = ServiceMemory(ran_out=RanOut(3, NOW - since), shortage=shortage if waiting else None)
    assert learn(memory, pool=roster(of.target), now=NOW).ran_out == known


def test_a_number_that_the_target_does_not_take_is_passed_on() -> None:
    """What was written at the last tick is not there: the API server refuses it, say."""
    services = [variant("h100", 3), variant("l40s", 1)]
    decided = ticks(services, {"h100": 40, "l40s": 8}, count=1)
    assert sizes(decided) == {"h100": 5, "l40s": 1}
    assert sizes(ticks(services, {"h100": 40, "l40s": 8}, count=2))["l40s"] >= 3


@pytest.mark.parametrize(
    ("policies", "l40s"),
    [
        pytest.param(SelectPolicy.DISABLED, 3, id="never"),
        pytest.param(SelectPolicy.MAX, 1, id="fast-enough"),
    ],
)
def test_what_behavior_does_not_let_grow_is_passed_on(policies: SelectPolicy, l40s: int) -> None:
    behavior = replace(AT_ONCE, scale_up=replace(AT_ONCE.scale_up, select_policy=policies))
    services = [variant("h100", 3, limits=Limits(1, 20, behavior)), variant("l40s", 1)]
    assert ticks(services, {"h100": 40, "l40s": 8}, count=1)["l40s"].desired == l40s
