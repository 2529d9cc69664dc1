"""Other hands on the same number: whoever else sets spec.replicas is believed to have a reason.

The API server keeps who set a field in managedFields, so a change by hand is never confused with a late write of
our own. When it was set is told for an edit or an apply, and holds across a restart of ours; `kubectl scale` and
HPAs write through /scale, which leaves no time, so there it is when we first saw it. Kinds that are known through
/scale alone do not tell who; there the number is ours.

A number set by hand stands for `Service.manual_grace_seconds`: it is not shrunk, because somebody may scale up
for a launch that no metric shows yet, and it is not grown, because somebody may scale down in the middle of an
incident, unless requests wait: then growing helps more than it disturbs. A floor and a pause are orders too, and
are written in the resource.
"""

from dataclasses import replace

from longtail.policy.fleet import Mode, Service
from longtail.policy.memory import ForeignWrite, ServiceMemory

CONTEST_SECONDS = 3600.0
CONTEST_WRITES = 3
"""So many writes by the same manager within `CONTEST_SECONDS` are no correction any more but a controller."""


def look(memory: ServiceMemory, *, service: Service, now: float) -> ServiceMemory:
    """Remember who set the number since the last look."""
    target = service.target
    if target is None:
        return memory
    if target.writer is None:  # as it was made
        return _noted(memory, memory.foreign_writes, ("", target.replicas))
    oldest = now - max(CONTEST_SECONDS, service.manual_grace_seconds)
    writes = tuple(write for write in memory.foreign_writes if write.at > oldest)
    seen, writer = (target.writer.name, target.replicas), target.writer
    if _is_against_us(service) and (seen != memory.number_set or _is_set_anew(memory, service=service)):
        # At first sight only what has a time, and was not there before us, is known to be a change.
        at = writer.at if writer.at is not None else None if memory.number_set is None else now
        if at is not None and at > max(service.created_at, oldest):
            writes = (*writes, ForeignWrite(name=writer.name, replicas=target.replicas, at=at))
    return _noted(memory, writes, seen)


def _is_set_anew(memory: ServiceMemory, *, service: Service) -> bool:
    """Whether the number that we saw at the last look is there again, after one of ours that we never saw.

    A controller that puts its number back within seconds (Argo CD heals after five) is faster than our looks. Its
    entry in managedFields is younger then. It is also younger when it has applied anything else, so that alone proves
    nothing: the last decision must have been for another number.
    """
    assert service.target is not None
    assert service.target.writer is not None
    at, last = service.target.writer.at, memory.foreign_writes[-1:]
    return at is not None and bool(last) and at > last[0].at and memory.desired != service.target.replicas


def _noted(memory: ServiceMemory, writes: tuple[ForeignWrite, ...], seen: tuple[str, int]) -> ServiceMemory:
    if seen == memory.number_set and writes == memory.foreign_writes:
        return memory
    return replace(memory, foreign_writes=writes, number_set=seen)


def manual(service: Service, *, memory: ServiceMemory, now: float) -> str | None:
    """Why the number is not to be touched now, in words; None when it may be. ``memory`` has had its `look`."""
    target = service.target
    if target is None or not _is_against_us(service) or not memory.foreign_writes:
        return None
    write = memory.foreign_writes[-1]
    ago = max(now - write.at, 0.0)
    if write.replicas != target.replicas or ago >= service.manual_grace_seconds:
        return None
    stands = f"which stand for {service.manual_grace_seconds:.0f} s"
    return f"{write.name} set {write.replicas} replicas {ago:.0f} s ago, {stands}"


def contested_by(memory: ServiceMemory, *, now: float) -> str:
    """The manager that keeps setting our number; empty when nobody does."""
    names = [write.name for write in memory.foreign_writes if write.at > now - CONTEST_SECONDS]
    return next((name for name in names if names.count(name) >= CONTEST_WRITES), "")


def _is_against_us(service: Service) -> bool:
    """Whether the number is somebody else's while we are in charge; who follows our advice is not against us."""
    writer = service.target.writer if service.target is not None else None
    return service.mode is Mode.ACTIVE and writer is not None and not writer.ours
