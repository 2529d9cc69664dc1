"""Other hands on the same number: whoever else sets spec.replicas is believed to have a reason.

The API server keeps who set a field, and when, in managedFields. So a change by hand is recognised after a
restart of ours too, and never confused with a late write of our own. Kinds that are known through /scale alone
do not tell; there the number is ours.

A number set by hand stands for `Service.manual_grace_seconds`: it is not shrunk, because somebody may scale up
for a launch that no metric shows yet, and it is not grown, because somebody may scale down in the middle of an
incident, unless requests wait: then growing helps more than it disturbs. A floor and a pause are orders too, and
are written in the resource.
"""

from dataclasses import replace

from longtail.policy.fleet import Mode, Service
from longtail.policy.memory import ServiceMemory

CONTEST_SECONDS = 3600.0
CONTEST_WRITES = 3
"""So many writes by the same manager within `CONTEST_SECONDS` are no correction any more but a controller."""


def look(memory: ServiceMemory, *, service: Service, now: float) -> ServiceMemory:
    """Remember who set the number since the last look."""
    writes = tuple(write for write in memory.foreign_writes if write.at > now - CONTEST_SECONDS)
    writer = service.target.writer if service.target is not None else None
    if writer is not None and _is_foreign(service) and writer not in writes and writer.at > now - CONTEST_SECONDS:
        writes = (*writes, writer)
    return replace(memory, foreign_writes=writes)


def manual(service: Service, *, now: float) -> str | None:
    """Why the number is not to be touched now, in words; None when it may be."""
    target = service.target
    if target is None or target.writer is None or not _is_foreign(service):
        return None
    ago = max(now - target.writer.at, 0.0)
    if ago >= service.manual_grace_seconds:
        return None
    return (
        f"{target.writer.name} set {target.replicas} replicas {ago:.0f} s ago, "
        f"which stand for {service.manual_grace_seconds:.0f} s"
    )


def contested_by(memory: ServiceMemory) -> str:
    """The manager that keeps setting our number; empty when nobody does."""
    names = [write.name for write in memory.foreign_writes]
    return next((name for name in names if names.count(name) >= CONTEST_WRITES), "")


def _is_foreign(service: Service) -> bool:
    """Whether the number was set by somebody else against us; who follows our advice does not."""
    if service.mode is not Mode.ACTIVE:
        return False
    writer = service.target.writer if service.target is not None else None
    return writer is not None and not writer.ours and writer.at > service.created_at
