"""Nodes and pods that are simulated by KWOK: real objects with a real life cycle, and nothing that runs.

Pods get made-up addresses: nothing may connect to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from longtail_e2e.build import Components
from longtail_e2e.kubectl import Kubectl
from longtail_e2e.processes import Command, ProcessGroup

KWOK: Final = "kwok"
_NODE_LEASE_SECONDS: Final = 40


def startup_annotations(
    *,
    create_seconds: float = 0.0,
    ready_seconds: float,
    create_seconds_at_most: float | None = None,
    ready_seconds_at_most: float | None = None,
) -> dict[str, str]:
    """Return the annotations of a pod template whose pods take so long to start.

    A pod is created (has its containers and an address, as after pulling an image) `create_seconds` after it
    was scheduled, and Ready (as after loading a model) `ready_seconds` after that. With `…_at_most` each pod
    draws its own delay, uniformly between the two.
    """
    drawn = {
        "pod-create": (create_seconds, create_seconds_at_most),
        "pod-ready": (ready_seconds, ready_seconds_at_most),
    }
    annotations = {}
    for stage, (least_seconds, most_seconds) in drawn.items():
        upper_seconds = least_seconds if most_seconds is None else most_seconds
        if not 0 <= least_seconds <= upper_seconds:
            raise ValueError(f"{stage}: a delay from {least_seconds} s to {upper_seconds} s")
        # KWOK's "jitter" is the upper end of the draw, not an addend: equal to the delay it means exactly
        # the delay.
        annotations[f"{stage}.stage.kwok.x-k8s.io/delay"] = _duration(least_seconds)
        annotations[f"{stage}.stage.kwok.x-k8s.io/jitter-delay"] = _duration(upper_seconds)
    return annotations


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def gpu_node(*, name: str, gpus: int, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the manifest of a simulated node with so many GPUs."""
    amounts = {"cpu": "256", "memory": "2Ti", "pods": "256", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "type": "kwok",
                "nvidia.com/gpu.present": "true",
                **(labels or {}),
            },
        },
        "status": {"capacity": amounts, "allocatable": amounts},
    }


class FakeNodes:
    """The KWOK process and the nodes it plays."""

    def __init__(
        self,
        *,
        components: Components,
        processes: ProcessGroup,
        kubectl: Kubectl,
        kubeconfig: Path,
    ) -> None:
        self._components = components
        self._processes = processes
        self._kubectl = kubectl
        self._kubeconfig = kubeconfig

    def start(self) -> None:
        """Start KWOK; it plays every node of the cluster, those of later `add` calls included."""
        self._processes.start(
            Command(
                name=KWOK,
                arguments=[
                    *self._components.command(KWOK),
                    f"--kubeconfig={self._kubeconfig}",
                    f"--config={self._components.kwok_stages}",
                    "--manage-all-nodes",
                    f"--node-lease-duration-seconds={_NODE_LEASE_SECONDS}",
                    # No server of its own: it would listen on every address.
                    "--server-address=",
                ],
            )
        )

    def add(
        self,
        *,
        count: int,
        gpus: int,
        prefix: str = "gpu",
        labels: Mapping[str, str] | None = None,
        timeout_seconds: float = 60.0,
    ) -> list[str]:
        """Add nodes `prefix-0` … and return their names once all are Ready."""
        names = [f"{prefix}-{number}" for number in range(count)]
        if not names:
            return names
        self._kubectl.apply(*(gpu_node(name=name, gpus=gpus, labels=labels) for name in names))
        self._kubectl(
            "wait",
            "--for=condition=Ready",
            f"--timeout={timeout_seconds:.0f}s",
            *(f"node/{name}" for name in names),
            timeout_seconds=timeout_seconds + 10,
        )
        return names

    def remove(self, *names: str) -> None:
        """Remove nodes, as a cloud takes back its machines: their pods are lost."""
        self._kubectl("delete", "--wait=true", *(f"node/{name}" for name in names))
