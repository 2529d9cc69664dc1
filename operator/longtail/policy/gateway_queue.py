"""The queue of a gateway in front of several variants of a model: each reads all of it, and it is there once."""

from collections.abc import Sequence
from dataclasses import replace

from longtail.demand.observation import Observation
from longtail.policy.fleet import Service


def one_queue(services: Sequence[Service], seen: Sequence[Observation]) -> list[Observation]:
    """What was seen, with a queue of a gateway that several variants read divided among them by ready pods."""
    readers: dict[tuple[str, str, str], list[int]] = {}
    for place, service in enumerate(services):
        if service.variant is not None and service.variant.queue is not None:
            queue = (service.key.namespace, service.variant.of, service.variant.queue)
            readers.setdefault(queue, []).append(place)
    divided = list(seen)
    for places in readers.values():
        ready = sum(seen[place].ready_pods for place in places)
        for place in places:
            signal, part = seen[place].gateway_waiting_requests, 1 / len(places)
            if len(places) > 1 and signal.value is not None:
                part = seen[place].ready_pods / ready if ready else part
                signal = replace(signal, value=signal.value * part)
                divided[place] = replace(seen[place], gateway_waiting_requests=signal)
    return divided
