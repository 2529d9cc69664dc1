"""What a scrape tells about GPU budgets."""

from dataclasses import replace

from longtail.control.budget_metrics import BudgetCollector
from longtail.demand.parameters import ServiceParameters
from longtail.policy.fleet import Fleet, GpuBudget, GpuShape, Limits, Mode, Pod, Service, ServiceKey, Target

H100 = GpuShape("H100", 8)


def service(namespace: str, *, asked: int, going: int = 0, gpus: GpuShape | None = H100) -> Service:
    pods = tuple(Pod(f"p-{n}", created_at=0.0, deleting=n >= asked) for n in range(asked + going))
    target = Target(replicas=asked, ready_replicas=0, pods=pods)
    key = ServiceKey(namespace, f"s{asked}")
    return Service(key, Mode.ACTIVE, ServiceParameters(), Limits(), target, gpus=gpus)


def scraped(fleet: Fleet) -> dict[tuple[str, ...], float]:
    families = BudgetCollector(fleet=lambda: fleet).collect()
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_each_budget_says_what_it_allows_and_what_is_held_of_it() -> None:
    services = [
        service("a", asked=2, going=1),
        service("b", asked=3),
        service("b", asked=5, gpus=GpuShape("L40S", 1)),
        service("b", asked=7, gpus=None),
        replace(service("a", asked=1), target=None),
    ]
    fleet = Fleet(services, [GpuBudget("H100", 64), GpuBudget("H100", 24, "a")])
    assert scraped(fleet) == {
        ("longtail_gpu_budget_gpus", "H100", ""): 64,
        ("longtail_gpu_budget_gpus", "H100", "a"): 24,
        ("longtail_gpu_budget_held_gpus", "H100", ""): 48,
        ("longtail_gpu_budget_held_gpus", "H100", "a"): 24,
    }


def test_without_a_budget_there_is_no_series() -> None:
    assert scraped(Fleet([service("a", asked=2)])) == {}
