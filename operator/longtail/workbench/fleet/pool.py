"""Pods with engines on them: the cluster as it truly is. What a policy asks for is carried out here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from longtail.workbench.fleet.accounts import Accounts
from longtail.workbench.fleet.answers import AnswerBooks
from longtail.workbench.fleet.arrivals import Arrivals
from longtail.workbench.fleet.deployment import Deployment, Replica
from longtail.workbench.fleet.engines import Engines
from longtail.workbench.fleet.engines_clients import EXPIRED_ARRIVAL, EXPIRED_AT, ClientEngines
from longtail.workbench.fleet.engines_kv import KvEngines
from longtail.workbench.fleet.meters import Columns, Meters, table_of
from longtail.workbench.fleet.setting import Drain, Requests, Setting
from longtail.workbench.fleet.waits import WaitSketch


@dataclass(frozen=True, slots=True)
class Orders:
    """What a policy wants done.

    Carried out in this order, as the operator's writer does: uncordon, cordon, the deletion of the named pods, then
    ``replicas``. The gateway hears of the limit of thinking at the same moment.
    """

    replicas: int
    """``spec.replicas``."""
    cordon: Sequence[str] = ()
    uncordon: Sequence[str] = ()
    commit: Sequence[str] = ()
    """Pods that go when ``replicas`` falls. A fall by more takes others, as a ReplicaSet chooses."""
    thinking_tokens: int | None = None
    """Most reasoning tokens of the requests that arrive from now on; None: no limit."""


class Pool:
    """One service. Times are seconds since the start of the trace, and must not go back."""

    def __init__(self, requests: Requests, setting: Setting) -> None:
        self.setting = setting
        self.columns = Columns(setting.max_model_len_tokens)
        self.engines = _engines(setting)
        self.meters = Meters(self.columns, setting.replica.seconds_per_token)
        self.deployment = Deployment(setting)
        self.waits = WaitSketch(setting.objective_seconds)
        self.finished_requests = 0
        self.accounts = Accounts(
            measured_from_seconds=setting.measured_from_seconds, until_seconds=requests.duration_seconds
        )
        self.answers = AnswerBooks(self.accounts.bins, setting.replica.seconds_per_token)
        self.now_seconds = 0.0
        self._arrivals = Arrivals(
            requests.chunks(), answer_tokens=setting.answer_tokens, window_seconds=requests.window_seconds
        )
        self._measuring = False
        self._arrived_before = 0
        self._settle()

    # ------------------------------------------------------------------ time

    @property
    def next_seconds(self) -> float:
        """When the set of pods changes by itself."""
        return self.deployment.next_seconds

    def advance(self, to_seconds: float) -> None:
        """Let time pass up to the next change of pods, at most; then let it happen."""
        self.engines.advance(self._arrivals, to_seconds)
        self.accounts.pass_time(to_seconds, self.deployment.phases(), self.deployment.wanted)
        self.now_seconds = to_seconds
        self._settle()

    def _settle(self) -> None:
        """Whatever is due now."""
        now = self.now_seconds
        while True:
            ready, gone = self.deployment.due(now)
            for pod in ready:
                self._serve(pod)
            self._clear(gone)
            self.deployment.schedule(now)  # GPUs of those that are gone serve those that wait
            if self.deployment.next_seconds > now:
                break
        self.engines.dispatch(now)

    def _serve(self, pod: Replica) -> None:
        self.count()
        pod.row = self.engines.add_row()
        self.meters.grow(self.engines.rows)
        self.meters.reset(pod.row)
        self.engines.open(pod.row)

    def _clear(self, gone: Iterable[Replica]) -> None:
        for pod in gone:
            if pod.row >= 0:
                self.count()
                self.engines.remove_row(pod.row)
                pod.row = -1

    def count(self) -> None:
        """Bring the meters up to date."""
        engines = self.engines
        waits = self.meters.count(engines.started, engines.finished)
        if self._measuring:
            self.waits.add(waits)
            self.finished_requests += len(engines.finished)
        self.answers.count(engines, self._arrivals)
        if isinstance(engines, ClientEngines):
            self._count_aborts(engines)
        engines.started.clear()
        engines.finished.clear()

    def _count_aborts(self, engines: ClientEngines) -> None:
        """What clients gave up, in the meters and as waits that were too long."""
        counted = self.setting.counts_aborts
        self.meters.abort(engines.aborted, counted=counted)
        if engines.expired:
            if counted and not self.setting.gateway:
                rows = [pod.row for pod in self.serving_pods() if pod.routable]
                self.meters.expire(np.array(rows, np.intp), len(engines.expired))
            if self._measuring:
                expired = table_of(engines.expired)
                self.waits.add(expired[:, EXPIRED_AT] - expired[:, EXPIRED_ARRIVAL])
        for ended in (engines.aborted, engines.expired, engines.asked, engines.lost):
            ended.clear()

    def start_measuring(self) -> None:
        """What happened until now is not counted."""
        self.count()
        self._measuring = True
        self.answers.open()
        self._arrived_before = self.engines.arrived_requests

    @property
    def arrived_requests(self) -> int:
        """Requests that arrived since measuring began; those sent again are not counted again."""
        return self.engines.arrived_requests - self._arrived_before

    # ------------------------------------------------------------------ what a policy does

    def carry_out(self, orders: Orders) -> None:
        """Do what a policy wants."""
        deployment, now = self.deployment, self.now_seconds
        wanted = deployment.wanted
        if orders.uncordon or orders.cordon:
            deployment.touch()
        for pod in deployment.named(orders.uncordon):
            pod.cordoned_seconds = None
            if pod.ready:
                self.engines.open(pod.row)
        for pod in deployment.named(orders.cordon):
            pod.cordoned_seconds = now
            if pod.ready:
                self.engines.close(pod.row)
        named = deployment.named(orders.commit) if orders.replicas < deployment.replicas else []
        for pod in named[: deployment.replicas - orders.replicas]:
            self._delete(pod)
        if orders.replicas != deployment.replicas:
            for pod in deployment.scale(orders.replicas, at_seconds=now):
                self._delete(pod)
        self.accounts.asked(deployment.wanted - wanted)
        if orders.thinking_tokens != self._arrivals.thinking_tokens:
            self._arrivals.limit(orders.thinking_tokens)
            self.accounts.bins.limit(now, orders.thinking_tokens)
            self.answers.level_changes += 1
        self._settle()

    def _delete(self, pod: Replica) -> None:
        now = self.now_seconds
        pod.deleting_seconds = pod.gone_due_seconds = now
        self.deployment.touch()
        if not pod.ready:
            self.deployment.forget([pod])
        elif self.setting.drain is Drain.GRACEFUL:
            self.engines.close(pod.row)
            pod.gone_due_seconds = self.engines.last_finish(pod.row, at_seconds=now)
        else:
            self.count()
            lost = self.engines.kill(pod.row, at_seconds=now)
            pace = self.setting.replica.seconds_per_token
            self.accounts.killed(len(lost), sum((now - request[2]) / pace for request in lost))

    # ------------------------------------------------------------------ what can be measured

    def serving_pods(self) -> list[Replica]:
        """Pods whose engine is up, in order of creation; those that finish their work included."""
        return [pod for pod in self.deployment.pods if pod.row >= 0]

    def tick(self) -> None:
        """Note the requests there are, for the timeline."""
        waiting = self.engines.waiting_requests
        self.accounts.tick(demand=waiting + self.engines.running_requests, waiting=waiting)

    def finish(self) -> None:
        """The end: who still waits, and has for longer than the objective, counts as having waited so long."""
        self.count()
        objective = self.setting.objective_seconds
        waited = np.array([self.now_seconds - queued[0] for queued in self.engines.queue])
        self.waits.add(waited[waited > objective] if len(waited) else np.zeros(0))


def _engines(setting: Setting) -> Engines | ClientEngines:
    if setting.clients is not None:
        return ClientEngines(setting.replica, setting.routing, setting.clients, queue_limit=setting.queue_limit)
    return (KvEngines if setting.replica.kv_limits else Engines)(setting.replica, setting.routing)
