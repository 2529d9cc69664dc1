"""The client over real sockets: what is sent, and what every kind of failure becomes."""

import pytest
from kubernetes.aio.client import Configuration

from longtail.cluster.client import KubernetesApi, connect
from longtail.cluster.kinds import DEPLOYMENTS, PODS
from longtail.errors import ClusterError, ClusterUnavailable, Conflict, NotFound, Refused, SettingsError
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import deployment, pod

PATH = DEPLOYMENTS.path(namespace="inference", name="r1")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        pytest.param(403, Refused, id="forbidden"),
        pytest.param(404, NotFound, id="not-found"),
        pytest.param(409, Conflict, id="conflict"),
        pytest.param(422, Refused, id="invalid"),
        pytest.param(429, ClusterUnavailable, id="too-many-requests"),
        pytest.param(500, ClusterUnavailable, id="server-error"),
        pytest.param(503, ClusterUnavailable, id="unavailable"),
    ],
)
async def test_a_status_code_becomes_one_error_with_the_servers_words(
    server: KubernetesFake, api: KubernetesApi, status: int, error: type[ClusterError]
) -> None:
    server.fail("GET", PATH, status=status, answer={"message": "because the server says so"})
    with pytest.raises(error, match="because the server says so"):
        await api.get(PATH)


async def test_an_html_page_from_a_proxy_is_no_answer(server: KubernetesFake, api: KubernetesApi) -> None:
    server.fail("GET", PATH, status=200, answer="<html>Sign in</html>")
    with pytest.raises(ClusterUnavailable, match="not JSON"):
        await api.get(PATH)


async def test_a_refused_connection_is_no_answer() -> None:
    async with KubernetesApi(configuration=Configuration(host="http://127.0.0.1:1")) as nobody:
        with pytest.raises(ClusterUnavailable, match=r"127\.0\.0\.1:1"):
            await nobody.get(PATH)


async def test_every_answer_is_counted(server: KubernetesFake, api: KubernetesApi) -> None:
    seen: list[tuple[str, int]] = []
    api.on_response = lambda method, status: seen.append((method, status))
    server.put(deployment())
    await api.get(PATH)
    with pytest.raises(NotFound):
        await api.get(f"{PATH}x")
    assert seen == [("GET", 200), ("GET", 404)]


async def test_a_rotated_token_is_read_again_after_a_401(server: KubernetesFake) -> None:
    server.put(deployment())
    server.token = "new"
    configuration = server.configuration()
    configuration.api_key["BearerToken"] = "Bearer old"

    async def reload(target: Configuration) -> None:
        target.api_key["BearerToken"] = "Bearer new"

    async with KubernetesApi(configuration=configuration, reload=reload) as api:
        await api.get(PATH)
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer old", "Bearer new"]


async def test_a_token_that_stays_wrong_is_refused_after_one_more_try(server: KubernetesFake) -> None:
    server.token = "right"

    async def reload(_: Configuration) -> None:
        pass

    async with KubernetesApi(configuration=server.configuration(), reload=reload) as api:
        with pytest.raises(Refused, match="401"):
            await api.get(PATH)
    assert len(server.requests) == 2


async def test_a_long_list_arrives_in_pages(server: KubernetesFake, api: KubernetesApi) -> None:
    for number in range(1_200):
        server.put(pod(f"p-{number}"))
    pages = [len(page["items"]) async for page in api.pages(PODS.path())]
    assert pages == [500, 500, 200]


async def test_a_kubeconfig_that_is_not_there_is_a_settings_error_naming_it() -> None:
    with pytest.raises(SettingsError, match="/nowhere/kubeconfig"):
        await connect(kubeconfig="/nowhere/kubeconfig")


async def test_a_context_that_is_not_there_is_a_settings_error_naming_it(tmp_path, server) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        f"{{apiVersion: v1, kind: Config, current-context: here, contexts: [{{name: here, context: {{cluster: c, user: u}}}}],"
        f" clusters: [{{name: c, cluster: {{server: '{server.url}'}}}}], users: [{{name: u, user: {{token: t0ken}}}}]}}"
    )
    with pytest.raises(SettingsError, match="elsewhere"):
        await connect(kubeconfig=str(kubeconfig), context="elsewhere")
    async with await connect(kubeconfig=str(kubeconfig)) as api:
        server.put(deployment())
        await api.get(PATH)
        credentials = await api.credentials()
    assert server.requests[0].headers["Authorization"] == "Bearer t0ken"
    assert (credentials.scheme, credentials.token, credentials.server) == ("Bearer", "t0ken", server.url)
