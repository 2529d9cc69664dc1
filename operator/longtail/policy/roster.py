"""The pods of a target, told apart by what they are to it. Counts and names only, no judgement."""

from collections.abc import Sequence
from dataclasses import dataclass

from longtail.policy.fleet import Pod, Target


@dataclass(frozen=True, slots=True)
class Roster:
    """Each replica exactly once."""

    asked: int
    """spec.replicas."""
    working: tuple[Pod, ...]
    """Ready and in routing."""
    starting: tuple[Pod, ...]
    """Holds no work: never ready yet, so never given a request, or without a container that runs."""
    broken: tuple[Pod, ...]
    """Was ready once and is not now: may come back, and may hold open streams."""
    cordoned: tuple[Pod, ...]
    isolated: tuple[Pod, ...]
    deleting: tuple[Pod, ...]
    """On their way out already: replicas that nobody asks for any more."""
    unseen: int
    """Asked for, without a pod yet."""
    faceless: int
    """Replicas of a target of which no pod can be seen."""

    @property
    def everybody(self) -> tuple[Pod, ...]:
        """All pods that are not on their way out."""
        return (*self.working, *self.starting, *self.broken, *self.cordoned, *self.isolated)

    @property
    def serving(self) -> int:
        """Replicas that serve or are about to: what the ladder counts."""
        return max(self.asked - len(self.cordoned) - len(self.isolated), 0)


def roster(target: Target) -> Roster:
    """Sort the pods of a target.

    Where replicas were lowered a moment ago, the condemned pods may still look alive: as many of them as there
    are pods too many are taken as gone, for they cannot be called back.
    """
    alive = [pod for pod in target.pods if not pod.deleting]
    deleting = tuple(pod for pod in target.pods if pod.deleting) if len(alive) < len(target.pods) else ()
    leaving = max(len(alive) - target.replicas, 0)
    if leaving:
        gone = {pod.name for pod in [pod for pod in alive if pod.condemned][:leaving]}
        alive = [pod for pod in alive if pod.name not in gone]
    working: list[Pod] = []
    starting: list[Pod] = []
    broken: list[Pod] = []
    cordoned: list[Pod] = []
    isolated: list[Pod] = []
    for pod in alive:
        if pod.cordoned:
            cordoned.append(pod)
        elif pod.isolated:
            isolated.append(pod)
        elif pod.ready:
            working.append(pod)
        elif pod.ready_at is None or pod.stopped:
            starting.append(pod)
        else:
            broken.append(pod)
    # Without a single pod in sight nobody knows whether the replicas are on their way or at work.
    faceless = 0 if target.pods else target.replicas
    return Roster(
        asked=target.replicas,
        working=tuple(working),
        starting=tuple(starting),
        broken=tuple(broken),
        cordoned=tuple(cordoned),
        isolated=tuple(isolated),
        deleting=deleting,
        unseen=max(target.replicas - len(alive) - faceless, 0),
        faceless=faceless,
    )


def names(pods: Sequence[Pod]) -> tuple[str, ...]:
    """Names of pods, in their order."""
    return tuple(pod.name for pod in pods)
