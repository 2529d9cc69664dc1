"""The queue in front of the engines: flow control of the endpoint picker of llm-d and Gateway API.

With flow control the queue moves out of the engines: ``vllm:num_requests_waiting`` stays near 0 while the
pool drowns. The canonical prefix is ``llm_d_epp_``; releases since 0.9 expose the older
``inference_extension_`` twin in parallel, so the two are joined with ``or`` after aggregation, never
summed.

A queue's series appears with its first request. The pool's saturation is there from the start, so that, times
zero, tells "flow control is on and nobody waits" from "no gateway".
"""

from typing import Final

from longtail.signals.promql import aggregated
from longtail.signals.sources import LabelNames
from longtail.signals.vocabulary import Part, Series, age_of

ENGINE: Final = "gateway"
_POOL: Final = "inference_pool"
_PREFIXES: Final = ("llm_d_epp", "inference_extension")


def parts(labels: LabelNames) -> tuple[Part, ...]:
    """Waiting requests by (namespace, inference pool), summed over the picker's replicas, and their age."""
    by = (labels.namespace, _POOL)
    queues = [aggregated("sum", f"{prefix}_flow_control_queue_size", by) for prefix in _PREFIXES]
    open_gates = [f"0 * {aggregated('max', f'{prefix}_flow_control_pool_saturation', by)}" for prefix in _PREFIXES]
    ages = [
        aggregated("max", age_of(f"{prefix}_flow_control_{suffix}"), by)
        for suffix in ("queue_size", "pool_saturation")
        for prefix in _PREFIXES
    ]
    return (
        Part(ENGINE, Series.GATEWAY_WAITING, f"({' or '.join([*queues, *open_gates])})", object_label=_POOL),
        Part(ENGINE, Series.SAMPLE_AGE, f"({' or '.join(ages)})", object_label=_POOL),
    )
