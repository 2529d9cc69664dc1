"""Continuous batching of one replica, in closed form between events.

Between two events (an arrival, a finish, a full KV cache, an abort) the batch is constant, so every running
request gains one token per step and the KV cache grows by ``batch`` tokens per step. Step k of such a *run*
lasts ``a + b * batch + c * (KV + k * batch)``: an arithmetic series, so the time of n steps and the steps in
a given time have closed forms, and a replica costs nothing between events, however many tokens it writes.

A virtual clock counts steps. A request scheduled at step v that needs n tokens finishes at step v + n, which
is known when it is scheduled: a heap of finish steps replaces all per-request bookkeeping.

Scheduling happens at step boundaries, as in vLLM: finished and aborted requests leave; if the next step does
not fit in the KV cache, the youngest return to the head of the queue, keep their tokens and are computed
again; else requests are admitted first come first served while slot, KV cache and the step's prefill budget
allow. A step that admits also computes their prompts, which delays everybody in the batch.

Time is an argument. ``advance`` changes state at events only, so any partition of it gives the same bits.
"""

import math
from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush

from longtail.workbench.engine.profiles import EngineProfile
from longtail.workbench.engine.request import Outcome, Reading, Recorder, Request, StepRun
from longtail.workbench.engine.segment import Segment, Sequence

_BUSY_MEMORY_SECONDS = 300.0
"""How far back ``busy_share`` can look."""


class Replica:
    """One engine. Times given to its methods must not go back."""

    def __init__(
        self, *, profile: EngineProfile, start_seconds: float = 0.0, recorders: Iterable[Recorder] = ()
    ) -> None:
        self.profile = profile
        self.started_seconds = start_seconds
        self.now_seconds = start_seconds
        self.idle_since_seconds = start_seconds
        self.last_busy_requests = self.last_busy_kv_tokens = 0
        """Batch and KV tokens of the last step before the replica became idle; SGLang keeps showing them."""
        self._recorders = tuple(recorders)
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}
        self._finish_heap: list[tuple[int, int, int]] = []
        self._aborting: set[int] = set()
        self._segment: Segment | None = None
        self._step = 0
        self._kv_tokens = 0
        self._live_output_tokens = 0
        self._generated = self._finished_tokens = self._aborted_tokens = 0
        self._prompt_tokens = self._prefill_tokens = 0
        self._preemptions = self._preempted_tokens = 0
        self._arrived = self._first_tokens = self._finished = self._aborted = 0
        self._busy_since: float | None = None
        self._busy_spells: deque[tuple[float, float]] = deque()

    # ------------------------------------------------------------------ what goes in

    def advance(self, to_seconds: float) -> None:
        """Let time pass."""
        if to_seconds < self.now_seconds:
            raise ValueError(f"Replica: time went back from {self.now_seconds} to {to_seconds}")
        while self._segment is not None and self._segment.end_seconds <= to_seconds:
            self._close(self._segment)
        self.now_seconds = to_seconds

    def submit(self, request: Request, *, at_seconds: float) -> None:
        """Queue a request.

        Raises:
            ValueError: prompt and output together exceed the model length.
        """
        length = request.prompt_tokens + request.output_tokens
        if length > self.profile.max_model_len_tokens:
            raise ValueError(
                f"Request {request.id}: prompt_tokens + output_tokens = {length} exceeds "
                f"max_model_len_tokens {self.profile.max_model_len_tokens}"
            )
        self.advance(at_seconds)
        self._arrived += 1
        self._live_output_tokens += request.output_tokens
        self._waiting.append(Sequence(request=request, queued_seconds=at_seconds))
        for recorder in self._recorders:
            recorder.arrived(request)
        self._reschedule(at_seconds)

    def abort(self, request_id: int, *, at_seconds: float) -> bool:
        """The client gives up. A running request leaves at the end of the step under way.

        Returns:
            False when there is no such request (any more).
        """
        self.advance(at_seconds)
        if request_id in self._running:
            self._aborting.add(request_id)
            self._cut(at_seconds)
            return True
        for position, sequence in enumerate(self._waiting):
            if sequence.request.id == request_id:
                del self._waiting[position]
                self._forget(sequence, generated=sequence.generated)
                self._reschedule(at_seconds)
                return True
        return False

    def kill(self, *, at_seconds: float) -> list[tuple[Request, int]]:
        """The process dies. Returns the requests it held, oldest first, with the tokens lost by each."""
        self.advance(at_seconds)
        segment, done = self._segment, self._steps_done()
        if segment is not None:
            self._step += done
            self._generated += done * segment.batch
        for request_id in sorted(self._aborting & self._running.keys()):
            sequence = self._running.pop(request_id)
            self._forget(sequence, generated=self._step - sequence.base_step)
        lost = [(s.request, self._step - s.base_step) for s in self._running.values()]
        lost += [(s.request, s.generated) for s in self._waiting]
        self._segment = None
        self._go_idle(at_seconds)
        self._running.clear()
        self._waiting.clear()
        self._kv_tokens = 0
        # Nothing is owed any more; the tokens of the lost stay counted as generated.
        self._live_output_tokens = sum(tokens for _, tokens in lost)
        return sorted(lost, key=lambda pair: (pair[0].arrived_seconds, pair[0].id))

    # ------------------------------------------------------------------ what can be seen

    @property
    def next_event_seconds(self) -> float:
        """When ``advance`` next has something to do; infinity when idle."""
        return math.inf if self._segment is None else self._segment.end_seconds

    @property
    def load(self) -> int:
        """Requests here, running or waiting."""
        return len(self._running) + len(self._waiting)

    @property
    def free_slots(self) -> int:
        """Slots that neither a running nor a waiting request will take."""
        return max(0, self.profile.slots - self.load)

    @property
    def kv_used_tokens(self) -> int:
        """Tokens in the KV cache now."""
        segment = self._segment
        return self._kv_tokens + (0 if segment is None else segment.done(self.now_seconds) * segment.batch)

    def kv_used_blocks(self, block_tokens: int) -> int:
        """Blocks of so many tokens that a paged KV cache holds now: each running request's context, rounded up."""
        step = self._step + self._steps_done()
        contexts = (s.request.prompt_tokens + step - s.base_step for s in self._running.values())
        return sum(-(-context // block_tokens) for context in contexts)

    @property
    def kv_claimed_tokens(self) -> int:
        """Tokens in the KV cache and in the contexts of those that wait."""
        return self.kv_used_tokens + sum(s.request.prompt_tokens + s.generated for s in self._waiting)

    @property
    def request_ids(self) -> list[int]:
        """Ids of running requests (oldest admission first), then waiting ones in order."""
        return [*self._running, *(s.request.id for s in self._waiting)]

    @property
    def waiting_since_seconds(self) -> float | None:
        """When the client sent the oldest request that has not had a slot yet; None when none waits."""
        return min((s.request.arrived_seconds for s in self._waiting if s.admissions == 0), default=None)

    def open_run(self) -> StepRun | None:
        """Steps completed in the run under way, which no recorder has been told of yet."""
        segment, done = self._segment, self._steps_done()
        if segment is None or done == 0:
            return None
        return segment.run(done)

    def busy_share(self, *, window_seconds: float) -> float:
        """Share of the last ``window_seconds`` (or of the life so far, if shorter) in which steps ran."""
        now = self.now_seconds
        since = max(self.started_seconds, now - window_seconds)
        if now <= since:
            return 0.0 if self._segment is None else 1.0
        spells = [*self._busy_spells]
        if self._busy_since is not None:
            spells.append((self._busy_since, now))
        busy = sum(max(0.0, end - max(start, since)) for start, end in spells)
        return min(1.0, busy / (now - since))

    def reading(self) -> Reading:
        """The replica now."""
        segment, done = self._segment, self._steps_done()
        written = done * segment.batch if segment else 0
        generated = self._generated + written
        in_flight = generated - self._finished_tokens - self._aborted_tokens
        return Reading(
            at_seconds=self.now_seconds,
            running_requests=len(self._running),
            waiting_requests=len(self._waiting),
            kv_used_tokens=self._kv_tokens + written,
            generated_tokens=generated,
            finished_tokens=self._finished_tokens,
            aborted_tokens=self._aborted_tokens,
            owed_tokens=self._live_output_tokens - in_flight,
            prompt_tokens=self._prompt_tokens,
            prefill_tokens=self._prefill_tokens,
            preemptions=self._preemptions,
            preempted_tokens=self._preempted_tokens,
            arrived_requests=self._arrived,
            first_tokens=self._first_tokens,
            finished_requests=self._finished,
            aborted_requests=self._aborted,
        )

    # ------------------------------------------------------------------ step boundaries

    def _steps_done(self) -> int:
        return 0 if self._segment is None else self._segment.done(self.now_seconds)

    def _close(self, segment: Segment) -> None:
        """Book a completed run, let the done leave, and schedule the next one."""
        at = segment.end_seconds
        self.now_seconds = at
        self._step += segment.steps
        self._kv_tokens += segment.steps * segment.batch
        self._generated += segment.steps * segment.batch
        run = segment.run(segment.steps)
        for recorder in self._recorders:
            recorder.stepped(run)
        self._prefill_tokens += segment.prefill_tokens
        for sequence in segment.fresh:
            self._greet(sequence, at)
        kv_tokens = self._kv_tokens
        while self._finish_heap and self._finish_heap[0][0] <= self._step:
            _, admissions, request_id = heappop(self._finish_heap)
            leaving = self._running.get(request_id)
            # A preempted request was put on the heap again with its next admission: the older entry is void.
            if leaving is not None and leaving.admissions == admissions:
                self._finish(leaving, at)
        for request_id in sorted(self._aborting & self._running.keys()):
            sequence = self._running.pop(request_id)
            generated = self._step - sequence.base_step
            self._kv_tokens -= sequence.request.prompt_tokens + generated
            self._forget(sequence, generated=generated)
        self._aborting.clear()
        self._segment = None
        self._schedule(at)
        if len(self._running) == 0:
            self.last_busy_requests, self.last_busy_kv_tokens = segment.batch, kv_tokens

    def _greet(self, sequence: Sequence, at: float) -> None:
        """A request admitted in the last step has written a token."""
        if sequence.generated:
            for recorder in self._recorders:
                recorder.resumed(gap_seconds=at - sequence.last_token_seconds)
            return
        sequence.first_token_seconds = at
        self._first_tokens += 1
        self._prompt_tokens += sequence.request.prompt_tokens
        for recorder in self._recorders:
            recorder.first_token(sequence.request, after_seconds=at - sequence.queued_seconds)

    def _finish(self, sequence: Sequence, at: float) -> None:
        request = sequence.request
        del self._running[request.id]
        self._kv_tokens -= request.prompt_tokens + request.output_tokens
        self._live_output_tokens -= request.output_tokens
        self._finished += 1
        self._finished_tokens += request.output_tokens
        outcome = Outcome(
            request=request,
            queued_seconds=sequence.queued_seconds,
            scheduled_seconds=sequence.scheduled_seconds,
            first_token_seconds=sequence.first_token_seconds,
            finished_seconds=at,
            preemptions=sequence.preemptions,
        )
        for recorder in self._recorders:
            recorder.finished(outcome)

    def _forget(self, sequence: Sequence, *, generated: int) -> None:
        """Book an abort. The engine has counted its tokens and keeps them."""
        self._live_output_tokens -= sequence.request.output_tokens
        self._aborted += 1
        self._aborted_tokens += generated
        for recorder in self._recorders:
            recorder.aborted(sequence.request, generated_tokens=generated)

    def _schedule(self, at: float) -> None:
        """Decide who is in the next step and start it, or become idle."""
        capacity = self.profile.kv_capacity_tokens
        fresh: list[Sequence] = []
        if self._kv_tokens + len(self._running) > capacity:
            while self._kv_tokens + len(self._running) > capacity:
                self._preempt_youngest(at)
        else:
            fresh = self._admit(at)
        batch = len(self._running)
        if batch == 0:
            self._go_idle(at)
            return
        if self._busy_since is None:
            self._busy_since = at
        prefill = sum(s.request.prompt_tokens + s.generated for s in fresh)
        profile = self.profile
        segment = Segment(
            start_seconds=at,
            steps=1 if fresh else self._steps_until_event(batch),
            batch=batch,
            first_seconds=profile.step_seconds(batch=batch, kv_tokens=self._kv_tokens)
            + prefill / profile.prefill_tokens_per_second,
            growth_seconds=profile.step_seconds_per_kv_token * batch,
            fresh=fresh,
            prefill_tokens=prefill,
        )
        segment.cut(segment.steps)
        self._segment = segment

    def _steps_until_event(self, batch: int) -> int:
        """Steps until somebody finishes or the KV cache is full; at least 1."""
        heap = self._finish_heap
        while heap[0][2] not in self._running or self._running[heap[0][2]].admissions != heap[0][1]:
            heappop(heap)
        return min(heap[0][0] - self._step, (self.profile.kv_capacity_tokens - self._kv_tokens) // batch)

    def _admit(self, at: float) -> list[Sequence]:
        budget = self.profile.prefill_budget_tokens
        fresh: list[Sequence] = []
        while self._waiting and self._fits(self._waiting[0], extra_tokens=0, batch=len(self._running)):
            sequence = self._waiting[0]
            need = sequence.request.prompt_tokens + sequence.generated
            if fresh and need > budget:
                break
            budget -= need
            self._waiting.popleft()
            sequence.admissions += 1
            if sequence.admissions == 1:
                sequence.scheduled_seconds = at
                for recorder in self._recorders:
                    recorder.started(
                        sequence.request,
                        at_seconds=at,
                        waited_seconds=at - sequence.queued_seconds,
                    )
            sequence.base_step = self._step - sequence.generated
            request = sequence.request
            self._running[request.id] = sequence
            self._kv_tokens += need
            finish_step = sequence.base_step + request.output_tokens
            heappush(self._finish_heap, (finish_step, sequence.admissions, request.id))
            fresh.append(sequence)
        return fresh

    def _fits(self, sequence: Sequence, *, extra_tokens: int, batch: int) -> bool:
        """Whether a waiting request can join: a slot, and room for its context and the step's tokens."""
        need = sequence.request.prompt_tokens + sequence.generated
        room = self.profile.kv_capacity_tokens - self._kv_tokens - extra_tokens
        return batch < self.profile.slots and need + batch + 1 <= room

    def _preempt_youngest(self, at: float) -> None:
        _, sequence = self._running.popitem()
        sequence.generated = self._step - sequence.base_step
        sequence.preemptions += 1
        sequence.last_token_seconds = at
        self._kv_tokens -= sequence.request.prompt_tokens + sequence.generated
        self._preemptions += 1
        self._preempted_tokens += sequence.generated
        self._waiting.appendleft(sequence)

    # ------------------------------------------------------------------ between boundaries

    def _reschedule(self, at: float) -> None:
        """Something changed in the queue: start at once when idle, else at the end of the step under way."""
        segment = self._segment
        if segment is None:
            self._schedule(at)
        elif self._waiting:
            extra = segment.boundary(at) * segment.batch
            if self._fits(self._waiting[0], extra_tokens=extra, batch=segment.batch):
                self._cut(at)

    def _cut(self, at: float) -> None:
        segment = self._segment
        if segment is not None:
            segment.cut(min(segment.steps, segment.boundary(at)))

    def _go_idle(self, at: float) -> None:
        if self._busy_since is not None:
            self._busy_spells.append((self._busy_since, at))
            while len(self._busy_spells) > 1 and self._busy_spells[0][1] < at - _BUSY_MEMORY_SECONDS:
                self._busy_spells.popleft()
            self._busy_since = None
            self.idle_since_seconds = at
