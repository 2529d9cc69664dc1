"""Witnesses beside the engines: GPU activity as dcgm-exporter writes it, the queue of an llm-d gateway."""

import hashlib
from collections.abc import Iterable

from longtail.workbench.engine.exposition import Family, Template, label_set
from longtail.workbench.engine.pool import Pod

BUSY_WINDOW_SECONDS = 30.0
"""dcgm-exporter's default collection interval: a profiling value is the mean over it."""

_GPU_FAMILIES = (
    ("DCGM_FI_DEV_GPU_UTIL", "Share of time in which a kernel ran (in %)."),
    ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "Share of time in which the graphics engine was active."),
)


def gpu_page(services: Iterable[tuple[str, Iterable[Pod]]]) -> str:
    """Activity of every GPU of every pod; services as (namespace, pods).

    The labels are the ones of the exporter since May 2026 (``hostname`` in small letters), with the pod the
    GPU is lent to. A scrape without ``honor_labels`` turns ``pod`` and ``namespace`` into ``exported_*``, as
    in real life.
    """
    rows: list[tuple[str, float]] = []
    for namespace, pods in services:
        for pod in pods:
            busy = max(engine.busy_share(window_seconds=BUSY_WINDOW_SECONDS) for engine in pod.engines)
            profile = pod.engines[0].profile
            labels = (_gpu_labels(namespace, pod.name, gpu, profile.gpu_model) for gpu in range(profile.gpus))
            rows += [(label, busy) for label in labels]
    text = []
    for family, documentation in _GPU_FAMILIES:
        text.append(f"# HELP {family} {documentation}\n# TYPE {family} gauge\n")
        if family == "DCGM_FI_DEV_GPU_UTIL":
            text += [f"{family}{label} {round(100 * busy)}\n" for label, busy in rows]
        else:
            text += [f"{family}{label} {busy:.6f}\n" for label, busy in rows]
    return "".join(text)


def _gpu_labels(namespace: str, pod: str, gpu: int, model: str) -> str:
    digest = hashlib.sha256(f"{namespace}/{pod}/{gpu}".encode()).hexdigest()
    return label_set(
        {
            "UUID": f"GPU-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}",
            "container": "server",
            "device": f"nvidia{gpu}",
            "gpu": str(gpu),
            "hostname": f"node-{digest[:4]}",
            "modelName": model,
            "namespace": namespace,
            "pod": pod,
        }
    )


def gateway_page(*, inference_pool: str, model_name: str, queued_requests: int) -> str:
    """The flow-control queue of one endpoint picker."""
    family = Family(
        name="llm_d_epp_flow_control_queue_size",
        kind="gauge",
        documentation="Requests held back by flow control.",
    )
    labels = {
        "fairness_id": "default-flow",
        "inference_pool": inference_pool,
        "model_name": model_name,
        "priority": "0",
        "target_model_name": model_name,
    }
    return Template([family], engines=[labels]).render([{family.name: (queued_requests,)}])
