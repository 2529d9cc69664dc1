"""A cluster for tests and demo: real control plane, simulated GPU nodes, real Prometheus; no root.

Used like this::

    with Cluster.start(nodes=2, gpus_per_node=8) as cluster:
        cluster.prometheus.set_targets([Target(url="http://127.0.0.1:9000/pods/a", labels={"pod": "a"})])
        print(cluster.kubectl("get", "nodes"))
"""

from longtail_e2e.build import ChartTools, Components, ensure_chart_tools, ensure_components, unavailable
from longtail_e2e.cluster import Cluster
from longtail_e2e.errors import BuildError, CommandError, HarnessError, NotYetError, ProcessError
from longtail_e2e.kwok import gpu_node, startup_annotations
from longtail_e2e.processes import Command, Outage, ProcessGroup, wait_until
from longtail_e2e.progress import PrintedProgress, Progress, silent
from longtail_e2e.prometheus import Prometheus, Target

__all__ = [
    "BuildError",
    "ChartTools",
    "Cluster",
    "Command",
    "CommandError",
    "Components",
    "HarnessError",
    "NotYetError",
    "Outage",
    "PrintedProgress",
    "ProcessError",
    "ProcessGroup",
    "Progress",
    "Prometheus",
    "Target",
    "ensure_chart_tools",
    "ensure_components",
    "gpu_node",
    "silent",
    "startup_annotations",
    "unavailable",
    "wait_until",
]
