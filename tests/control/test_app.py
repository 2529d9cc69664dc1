"""The composition root: what is registered with kopf, when deciding may begin, and what logs look like."""

import asyncio
import json
import logging

import kopf
import pytest

from longtail.cluster.client import KubernetesApi
from longtail.cluster.kinds import DEPLOYMENTS, PODS, SERVINGS, WATCHED
from longtail.control.app import App
from longtail.control.handlers import operator_settings, register
from longtail.control.logs import JSONFormatter
from longtail.control.settings import Settings
from longtail.errors import NotLeading, SettingsError
from longtail.policy.fleet import ServiceKey
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import deployment, pod, serving


@pytest.fixture
def app(api: KubernetesApi, clock) -> App:
    return App(settings=Settings(prometheus_url="http://127.0.0.1:1"), api=api, clock=clock)


@pytest.fixture
def registry(app: App) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    register(registry, app)
    return registry


def test_only_handlers_that_write_nothing_are_registered(registry: kopf.OperatorRegistry) -> None:
    # Each of these would add finalizers or annotations, or need a webhook:
    for kind in ("_indexing", "_spawning", "_changing", "_webhooks"):
        assert list(getattr(registry, kind).get_all_handlers()) == []
    watched = {handler.selector.plural for handler in registry._watching.get_all_handlers()}
    assert watched == {kind.plural for kind in WATCHED}
    activities = {handler.activity.value for handler in registry._activities.get_all_handlers()}
    assert activities == {"authentication", "cleanup"}


@pytest.mark.parametrize("type_", [None, "ADDED", "MODIFIED"], ids=str)
async def test_an_event_fills_the_store_and_a_deletion_empties_it(app: App, registry, type_) -> None:
    (handler,) = (h for h in registry._watching.get_all_handlers() if h.selector.plural == SERVINGS.plural)
    assert await handler.fn(event={"type": type_, "object": serving()}) is None
    assert app.store.serving(ServiceKey("inference", "r1")) is not None
    await handler.fn(event={"type": "DELETED", "object": serving()})
    assert app.store.serving(ServiceKey("inference", "r1")) is None


async def test_a_new_list_is_followed_by_a_search_for_what_it_does_not_hold(
    server: KubernetesFake, app: App, registry, monkeypatch
) -> None:
    monkeypatch.setattr("longtail.control.app._RELIST_SECONDS", 0.0)
    (list_deployments,) = (h.fn for h in registry._watching.get_all_handlers() if h.selector.plural == "deployments")
    living = server.put(deployment())
    # Deleted while no watch was looking: kopf lists again, and says nothing of it.
    app.object_seen(SERVINGS, serving())
    searching = asyncio.create_task(app._sweep_for_ever())
    await list_deployments(event={"type": None, "object": living})
    await asyncio.sleep(0)
    assert not app._relisted.is_set()  # a first list proves nothing
    await list_deployments(event={"type": None, "object": living})
    async with asyncio.timeout(10):
        while app.store.size(SERVINGS):  # noqa: ASYNC110 - the search tells nobody
            await asyncio.sleep(0.01)
    assert app.store.size(DEPLOYMENTS) == 1
    searching.cancel()
    await asyncio.wait([searching])


async def test_without_an_election_whoever_runs_writes(api: KubernetesApi, clock) -> None:
    alone = App(settings=Settings(leader_elect=False), api=api, clock=clock)
    assert alone.metrics.registry.get_sample_value("longtail_leader") == 1.0
    assert api.write_seconds is None
    await alone.stop()


async def test_nobody_writes_before_the_election(api: KubernetesApi, app: App) -> None:
    assert app.metrics.registry.get_sample_value("longtail_leader") == 0.0
    assert app._role() == "standby: nobody leads"
    with pytest.raises(NotLeading):
        await api.merge_patch(DEPLOYMENTS.path(namespace="inference", name="r1", subresource="scale"), body={})


async def test_kopf_gets_our_credentials(server: KubernetesFake, clock) -> None:
    configuration = server.configuration()
    configuration.api_key["BearerToken"] = "Bearer t0ken"
    async with KubernetesApi(configuration=configuration) as api:
        connection = await App(settings=Settings(), api=api, clock=clock).connection()
    assert (connection.server, connection.scheme, connection.token) == (server.url, "Bearer", "t0ken")
    assert connection.as_http_headers() == {"Authorization": "Bearer t0ken"}


async def test_nothing_is_decided_on_half_a_list(server: KubernetesFake, app: App) -> None:
    for kind, body in ((SERVINGS, serving()), (DEPLOYMENTS, deployment()), (PODS, pod())):
        server.put(body)
        assert await app.unlisted() == [kind.kind]
        app.object_seen(kind, body)
    assert await app.unlisted() == []


async def test_missing_rights_on_other_peoples_autoscalers_do_not_stop_us(server: KubernetesFake, app: App) -> None:
    server.fail("GET", "/horizontalpodautoscalers", status=403)
    assert await app.unlisted() == []


async def test_missing_rights_on_pods_keep_us_waiting_and_say_so(server: KubernetesFake, app: App) -> None:
    server.fail("GET", "/pods", status=403, answer={"message": "cannot list pods"})
    (why,) = await app.unlisted()
    assert "cannot list pods" in why


def test_kopf_is_bounded_and_writes_nothing() -> None:
    settings = operator_settings(namespaced=True, pod_label_selector="serves=models")
    assert (settings.watching.chunk_size, settings.queueing.idle_timeout) == (500, 0.1)
    assert settings.queueing.worker_limit is None
    assert (settings.posting.enabled, settings.scanning.disabled) == (False, True)
    # An API server that is back is noticed within seconds, and one that is away for minutes does not end us.
    assert max(settings.networking.error_backoffs) <= 3
    assert sum(settings.networking.error_backoffs) >= 600
    # Kopf sends it as it is, and the API server refuses a float.
    assert isinstance(settings.watching.server_timeout, int)
    assert settings.watching.label_selectors["v1", "pods"] == "serves=models"
    assert operator_settings(namespaced=False, pod_label_selector="").scanning.disabled is False


async def test_a_metrics_source_that_cannot_be_used_ends_the_start(api: KubernetesApi, clock) -> None:
    with pytest.raises(SettingsError, match="nonsense"):
        App(settings=Settings(prometheus_url="nonsense"), api=api, clock=clock)


def test_a_log_line_is_one_json_object_with_its_extras() -> None:
    error = ValueError("two\nlines")
    record = logging.getLogger("longtail.test").makeRecord(
        "longtail.test",
        logging.INFO,
        "f",
        1,
        "decided %d",
        (4,),
        (ValueError, error, None),
        extra={"service": "a/b"},
    )
    line = JSONFormatter().format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["message"], parsed["level"], parsed["service"]) == ("decided 4", "INFO", "a/b")
    assert "ValueError: two" in parsed["exception"]


def test_a_gpu_budget_is_on_the_metrics_page_and_a_wrong_one_ends_the_start(api, clock, tmp_path) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text("budgets: [{class: H100, gpus: many}]")
    settings = Settings(gpu_budgets_file=file)
    with pytest.raises(SettingsError, match=r"budgets\.yaml: budgets\.0\.gpus: .*got 'many'"):
        App(settings=settings, api=api, clock=clock)
    file.write_text("budgets: [{class: H100, gpus: 64}]")
    names = {family.name for family in App(settings=settings, api=api, clock=clock).metrics.registry.collect()}
    assert {"longtail_gpu_budget_gpus", "longtail_gpu_budget_held_gpus"} <= names
