"""Variants of one model with the loop closed: two workloads behind one gateway, and the operator looks at both."""

import itertools
from dataclasses import replace

from longtail.policy.fleet import Fleet
from longtail.policy.memory import Memory
from longtail.policy.step import step

from .pools import variant
from .replica_set import COLD_START_SECONDS, ReplicaSet
from .worlds import NOW, TICK


class Pair:
    """Two workloads whose pods get the requests of one gateway, the least loaded first; the operator looks at both."""

    def __init__(self, h100: int, l40s: int, *, gpus: int = 40) -> None:
        self.sets = {"h100": ReplicaSet(now=NOW, replicas=h100, gpus=gpus), "l40s": ReplicaSet(now=NOW, replicas=l40s)}
        for each in self.sets.values():
            each.settle()
            each.pass_time(COLD_START_SECONDS)
        self.memory = Memory.empty()
        self.sizes: list[tuple[int, int]] = []

    def run(self, minutes: int, *, requests_a_tick: int) -> None:
        """Requests of a minute each come, decisions are carried out, time passes."""
        for _ in range(4 * minutes):
            for _ in range(requests_a_tick):
                self.arrive()
            services = [replace(variant(name, 1), target=each.target()) for name, each in self.sets.items()]
            now = self.sets["h100"].now
            seen = {of.key: self.sets[of.key.name].observation() for of in services}
            decisions, self.memory = step(fleet=Fleet(services), observations=seen, memory=self.memory, now=now)
            for key, decision in decisions.items():
                assert decision.placement is not None
                self.sets[key.name].carry_out(decision.placement)
            for each in self.sets.values():
                each.settle()
                each.pass_time(TICK)
            self.sizes.append((self.routed("h100"), self.routed("l40s")))

    def arrive(self) -> None:
        def load(name: str) -> float:
            pods = [pod for pod in self.sets[name].pods.values() if pod.ready and pod.routed]
            return min((len(pod.work) + pod.waiting for pod in pods), default=1e9)

        self.sets[min(self.sets, key=load)].arrive([60.0])

    def routed(self, name: str) -> int:
        return sum(pod.ready and pod.routed for pod in self.sets[name].pods.values())

    @property
    def waiting(self) -> int:
        return sum(pod.waiting for each in self.sets.values() for pod in each.pods.values())

    @property
    def killed(self) -> list[str]:
        return [cause for each in self.sets.values() for cause in each.killed]


def test_a_steady_load_moves_to_the_cheaper_variant_and_stays_there() -> None:
    """32 requests at a time: four replicas of either. Nobody waits meanwhile, nothing is cut, nothing flaps."""
    pair = Pair(2, 4)
    for _ in range(60):
        pair.run(1, requests_a_tick=8)
        assert pair.waiting == 0
    h100, l40s = pair.sizes[-1]
    assert l40s == 1
    assert 3 <= h100 <= 5
    assert len(set(pair.sizes[-80:])) == 1
    turns = sum(one != other for one, other in itertools.pairwise(pair.sizes))
    assert turns < 10
    assert pair.killed == []


def test_in_a_shortage_the_dearer_variant_serves_and_leaves_when_the_cheaper_one_comes() -> None:
    pair = Pair(2, 1, gpus=2)
    pair.run(30, requests_a_tick=10)
    h100, l40s = pair.sizes[-1]
    assert (h100, l40s >= 3, pair.waiting) == (2, True, 0)
    assert pair.sets["h100"].replicas > 2  # a pending pod keeps on asking
    pair.sets["h100"].gpus = 40
    pair.run(60, requests_a_tick=10)
    assert pair.sizes[-1] == (pair.sizes[-1][0], 1)
    assert pair.sizes[-1][0] >= 4
    assert pair.waiting == 0
    assert pair.killed == []
