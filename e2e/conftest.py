"""One cluster for all end-to-end tests of a session, and a namespace of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from longtail_e2e import ChartTools, Cluster, PrintedProgress, ensure_chart_tools, unavailable
from longtail_e2e.helm import Helm
from longtail_e2e.image import Image, ensure_image
from longtail_e2e.image import unavailable as image_unavailable
from longtail_e2e.operator import ENGINES, OPERATOR, Engines, Operator, apply_definition
from longtail_e2e.world import World

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, saying why, what needs components that this machine cannot build."""
    reason = unavailable()
    if reason is None:
        return
    for item in items:
        if item.get_closest_marker("e2e") is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A control plane with an audit log, two nodes of eight GPUs, and a Prometheus that scrapes each second.

    It is shared: work in a `namespace`, and put back what you stop.
    """
    with Cluster.start(
        nodes=2,
        gpus_per_node=8,
        scrape_interval_seconds=1.0,
        audit=True,
        progress=_Uncaptured(request.config),
    ) as running:
        yield running


@pytest.fixture(scope="session")
def chart_tools(request: pytest.FixtureRequest) -> ChartTools:
    """Helm and promtool."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    return ensure_chart_tools(progress=_Uncaptured(request.config))


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Image:
    """The operator's image, of this checkout."""
    reason = image_unavailable()
    if reason is not None:
        pytest.skip(reason)
    return ensure_image(progress=_Uncaptured(request.config))


@pytest.fixture(scope="session")
def helm(chart_tools: ChartTools, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm without a cluster: it lints and renders."""
    return Helm(chart_tools, home=tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def engine_speed() -> float:
    """How much faster than real ones the engines are; a module of tests may say otherwise."""
    return 50.0


@pytest.fixture(scope="module")
def engines(cluster: Cluster, engine_speed: float) -> Iterator[Engines]:
    """Simulated inference servers that Prometheus scrapes with their GPUs."""
    running = Engines(cluster, speed=engine_speed)
    running.start()
    cluster.prometheus.set_http_discovery(f"{running.url}/sd", f"{running.url}/sd/witnesses")
    yield running
    cluster.prometheus.set_http_discovery()
    cluster.processes.stop(ENGINES)


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> Iterator[Operator]:
    """The operator with its own small role, looking once a second; a module of tests may have another."""
    apply_definition(cluster, crds=ROOT / "crds")
    running = Operator(cluster)
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    running.start(kubeconfig=running.install(), sources={"default": source})
    yield running
    cluster.processes.stop(OPERATOR)


@pytest.fixture
def world(cluster: Cluster, engines: Engines, operator: Operator, namespace: str) -> World:
    """Shorthand for a namespace with pools and resources of its own."""
    return World(cluster=cluster, operator=operator, engines=engines, namespace=namespace)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that ends with the test, and all that is in it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


class _Uncaptured:
    """Progress that reaches the terminal although pytest captures output: a first build takes minutes."""

    def __init__(self, config: pytest.Config) -> None:
        self._capture = config.pluginmanager.getplugin("capturemanager")
        self._printed = PrintedProgress()

    def __call__(self, step: str, detail: str = "", *, done: bool = False) -> None:
        with self._capture.global_and_fixture_disabled():
            self._printed(step, detail, done=done)
