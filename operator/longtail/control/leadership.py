"""Keeps the Lease, and says before each write whether it may be done.

All operators watch, look and decide; the one that holds the Lease writes. The others are hot standbys: with a warm
store and a warm memory, they take over with their next look. The rules, and why they hold, are in
``longtail.cluster.election``; here is their clock and their I/O.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from longtail.cluster.election import Candidacy, Timing, given_back
from longtail.cluster.lease import Lease, StoredLease
from longtail.control.clock import Clock, rfc3339_micro
from longtail.errors import ClusterError, Conflict

logger = logging.getLogger(__name__)

_RELEASE_ATTEMPTS: Final = 2
_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NAMESPACE: Final = "longtail-system"


class Leadership:
    """This process in the election. ``keep`` runs as a task; the rest may be called at any time."""

    def __init__(
        self, *, lease: Lease, instance: str, timing: Timing, clock: Clock, elected: Callable[[], None]
    ) -> None:
        """Stand for election as ``instance``; ``elected`` is called when a leadership of ours begins."""
        self._lease = lease
        self._clock = clock
        self._elected = elected
        # A process that restarts under the same name is somebody else: it knows nothing of what it wrote.
        self._candidacy = Candidacy(identity=f"{instance}_{uuid.uuid4()}", timing=timing)
        self._stored: StoredLease | None = None
        """As we know it to be stored; None: read it first."""
        self._announced = ""
        """When the leadership began that was announced; empty: none."""
        self._last_term = ""
        self._complaint = ""

    @property
    def identity(self) -> str:
        """Who we are in the Lease: the instance's name, and an id of this process."""
        return self._candidacy.identity

    def may_write(self) -> bool:
        """Whether a write may begin now. False by itself when the Lease was not renewed in time."""
        return self._candidacy.may_write(now=self._clock.monotonic_seconds())

    def write_seconds(self) -> float:
        """For how long a write that begins now may be waited for; 0 or less: it may not begin."""
        return self._candidacy.writes_end_at - self._clock.monotonic_seconds()

    @property
    def role(self) -> str:
        """In words, for people who ask: ``leader``, or ``standby: longtail-7d4b9_… leads``."""
        if self.may_write():
            return "leader"
        seen = self._candidacy.seen
        leads = f"{seen.holder} leads" if seen is not None and seen.holder else "nobody leads"
        return ", ".join(filter(None, (f"standby: {leads}", self._complaint)))

    async def keep(self) -> None:
        """Try to get the Lease and to keep it, for ever. No failure of the API server ends this."""
        while True:
            began = self._clock.monotonic_seconds()
            await self.attempt()
            due = self._candidacy.next_attempt_at(began=began)
            await asyncio.sleep(max(0.0, due - self._clock.monotonic_seconds()))

    async def attempt(self) -> None:
        """Renew the Lease, or look whether it can be had and take it."""
        try:
            await self._attempt()
        except Conflict as overtaken:
            # Somebody else changed the Lease first: look at it anew, a retry period later.
            self._stored = None
            logger.debug("the Lease was not written", extra={"why": str(overtaken)})
        except ClusterError as failed:
            # Whether it was written nobody knows: read it before the next claim.
            self._stored = None
            self._complain(f"Lease {self._lease} cannot be kept: {failed}")
        else:
            self._complaint = ""
        self._announce()

    async def release(self) -> None:
        """Stop writing, and give the Lease back so that the next leader need not wait for its end."""
        self._candidacy = self._candidacy.resigned()
        for _ in range(_RELEASE_ATTEMPTS):
            try:
                # Read: a renewal that was cut off by our end may have been served all the same.
                stored = await self._lease.read()
                if stored is not None and stored.record.holder == self.identity:
                    record = given_back(stored.record, time=self._time())
                    await self._lease.replace(record, resource_version=stored.resource_version)
                    logger.info("the Lease was given back")
            except Conflict:
                continue
            except ClusterError as failed:
                logger.warning("the Lease was not given back, it will expire", extra={"why": str(failed)})
            return

    async def _attempt(self) -> None:
        if self._stored is None:
            self._stored = await self._lease.read()
            record = self._stored.record if self._stored is not None else None
            self._candidacy = self._candidacy.observed(record, now=self._clock.monotonic_seconds())
        began = self._clock.monotonic_seconds()
        claim = self._candidacy.claim(now=began, time=self._time())
        if claim is None:
            self._stored = None
            return
        if self._stored is None:
            self._stored = await self._lease.create(claim)
        else:
            self._stored = await self._lease.replace(claim, resource_version=self._stored.resource_version)
        self._candidacy = self._candidacy.won(self._stored.record, began=began, now=self._clock.monotonic_seconds())

    def _announce(self) -> None:
        seen = self._candidacy.seen
        term = seen.acquired if seen is not None and self.may_write() else ""
        if term == self._announced:
            return
        self._announced = term
        if not term:
            logger.warning("we do not lead any more: decisions are made, not written", extra={"role": self.role})
        elif term == self._last_term:
            logger.info("we lead again: nobody else did meanwhile", extra={"identity": self.identity})
        else:
            self._last_term = term
            logger.info("we lead: decisions are written from now on", extra={"identity": self.identity})
            self._elected()

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            # Once: the next attempts, seconds apart, fail in the same way.
            logger.warning("no election", extra={"why": complaint})
        self._complaint = complaint

    def _time(self) -> str:
        return rfc3339_micro(self._clock.unix_seconds())


def home_namespace(*, in_cluster: bool) -> str:
    """Where the Lease is unless somebody says otherwise: the pod's own namespace, else ``longtail-system``.

    Not the namespace of a kubeconfig's context: two people with two contexts would both lead.
    """
    if in_cluster and _POD_NAMESPACE.is_file():
        return _POD_NAMESPACE.read_text().strip()
    return _NAMESPACE
