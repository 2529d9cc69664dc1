"""A cluster with one real node, for tests that run in a sandbox (`make e2e` starts it; see longtail_e2e.sandbox)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from longtail_e2e import Cluster, ensure_chart_tools
from longtail_e2e.build import ensure_node_components
from longtail_e2e.helm import Helm
from longtail_e2e.image import ensure_image
from longtail_e2e.monitored import Monitored
from longtail_e2e.node import ADDRESS, PAUSE_IMAGE, Node, make_network
from longtail_e2e.sandbox import VARIABLE
from longtail_e2e.scratch_image import write_image


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, saying why, where there is no sandbox."""
    reason = os.environ.get(VARIABLE, "a real node needs a sandbox: python -m longtail_e2e.sandbox")
    if reason:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A control plane and a Prometheus that pods reach; every node is real."""
    make_network()
    with Cluster.start(host=ADDRESS, nodes=None, scrape_interval_seconds=1.0) as running:
        yield running


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> Node:
    """The machine as a node with eight GPUs that nobody uses, with the operator's image."""
    components = ensure_node_components()
    pause = cluster.directory / "pause.tar"
    write_image(pause, name=PAUSE_IMAGE, program=components.pause)
    running = Node(cluster, components=components)
    running.start(pause, ensure_image().archive, gpus=8)
    running.name("kubernetes", "default")
    return running


@pytest.fixture(scope="session")
def helm(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm on this cluster."""
    home: Path = tmp_path_factory.mktemp("helm")
    return Helm(ensure_chart_tools(), home=home, kubeconfig=cluster.kubeconfig)


@pytest.fixture(scope="session")
def monitored(cluster: Cluster) -> Iterator[Monitored]:
    """Prometheus scrapes what the monitors of the cluster select."""
    with Monitored(kubeconfig=cluster.kubeconfig, prometheus=cluster.prometheus) as running:
        yield running
