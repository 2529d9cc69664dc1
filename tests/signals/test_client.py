"""The client against a server on a real socket: every way of not answering ends in one error tree."""

import asyncio
import base64
import gzip
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from longtail.errors import MetricsError, MetricsUnavailable, QueryRejected
from longtail.signals.client import PrometheusClient
from longtail.signals.exchange import Answer
from longtail.signals.sources import BasicFile, BearerFile, MetricsSource

from .conftest import Asked, FakePrometheus, Reply, success, vector


@asynccontextmanager
async def client(url: str, **settings: object) -> AsyncIterator[PrometheusClient]:
    opened = PrometheusClient(MetricsSource(name="main", url=url, **settings))  # type: ignore[arg-type]  # by name
    try:
        yield opened
    finally:
        opened.close()


async def test_the_query_travels_in_the_body_with_its_time_and_the_servers_own_timeout(
    prometheus: FakePrometheus,
) -> None:
    async with client(prometheus.url, timeout_seconds=3.5) as opened:
        await opened.query("up == 1", 1_700_000_000.1254)
    (asked,) = prometheus.asked
    assert (asked.method, asked.path) == ("POST", "/api/v1/query")
    assert asked.form == {"query": "up == 1", "time": "1700000000.125", "timeout": "3500ms"}


async def test_a_path_prefix_and_headers_of_the_source_are_kept(prometheus: FakePrometheus) -> None:
    async with client(prometheus.url + "/prometheus/", headers={"X-Scope-OrgID": "team-a"}) as opened:
        await opened.query("up", 1.0)
    assert prometheus.asked[0].path == "/prometheus/api/v1/query"
    assert prometheus.asked[0].headers["X-Scope-OrgID"] == "team-a"


async def test_samples_come_back_as_they_were_sent(prometheus: FakePrometheus) -> None:
    prometheus.answer = lambda _: vector(({"pod": "a"}, 2.0))
    async with client(prometheus.url) as opened:
        answer = await opened.query("up", 1.0)
    assert answer.result == [{"metric": {"pod": "a"}, "value": [1.0, "2.0"]}]
    assert answer.warnings == ()


async def test_a_compressed_answer_is_read(prometheus: FakePrometheus) -> None:
    def compressed(_: Asked) -> Reply:
        plain = vector(({"pod": "a"}, 2.0))
        return Reply(body=gzip.compress(plain.body), headers={"Content-Encoding": "gzip"})

    prometheus.answer = compressed
    async with client(prometheus.url) as opened:
        assert len((await opened.query("up", 1.0)).result) == 1


async def test_warnings_are_kept_beside_the_data(prometheus: FakePrometheus) -> None:
    prometheus.answer = lambda _: vector(({"pod": "a"}, 2.0), warnings=["store 3 is down"])
    async with client(prometheus.url) as opened:
        answer = await opened.query("up", 1.0)
    assert answer.warnings == ("store 3 is down",)
    assert len(answer.result) == 1


async def test_a_range_is_asked_for_as_a_matrix(prometheus: FakePrometheus) -> None:
    prometheus.answer = lambda _: success("matrix", [{"metric": {}, "values": [[60, "1"], [120, "2"]]}])
    async with client(prometheus.url) as opened:
        answer = await opened.query_range("up", 60, 120, 60)
    assert answer.result[0]["values"] == [[60, "1"], [120, "2"]]
    (asked,) = prometheus.asked
    assert asked.path == "/api/v1/query_range"
    assert {key: asked.form[key] for key in ("start", "end", "step")} == {
        "start": "60",
        "end": "120",
        "step": "60",
    }


_PROBLEM = b'{"status":"error","errorType":"execution","error":"would load too many samples"}'


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        pytest.param(Reply(503, b"no healthy upstream"), MetricsUnavailable, "503", id="503"),
        pytest.param(Reply(500, _PROBLEM), MetricsUnavailable, "too many samples", id="500-json"),
        pytest.param(Reply(429, b"slow down"), MetricsUnavailable, "429", id="429-is-about-now"),
        pytest.param(Reply(422, _PROBLEM), QueryRejected, "too many samples", id="422"),
        pytest.param(Reply(400, _PROBLEM), QueryRejected, "400", id="400"),
        pytest.param(Reply(403, b"<html>forbidden"), QueryRejected, "forbidden", id="403-html"),
        pytest.param(
            Reply(200, b"<html><title>Sign in", "text/html"),
            MetricsUnavailable,
            "text/html",
            id="sign-in-page",
        ),
        pytest.param(Reply(200, b'{"status":"succ'), MetricsUnavailable, "instead of JSON", id="cut-short"),
        pytest.param(Reply(200, b""), MetricsUnavailable, "instead of JSON", id="empty"),
        pytest.param(Reply(200, b"[]"), MetricsUnavailable, "instead of JSON", id="not-an-object"),
        pytest.param(Reply(200, _PROBLEM), MetricsUnavailable, "without success", id="error-with-200"),
        pytest.param(Reply(200, b'{"status":"success"}'), MetricsUnavailable, "None", id="no-data"),
        pytest.param(success("scalar", []), MetricsUnavailable, "scalar", id="scalar"),
        pytest.param(success("matrix", []), MetricsUnavailable, "matrix", id="matrix-for-a-vector"),
        pytest.param(
            Reply(302, headers={"Location": "http://127.0.0.1:1/login"}),
            MetricsUnavailable,
            "redirected",
            id="302",
        ),
    ],
)
async def test_a_bad_answer_becomes_one_error_that_names_the_source(
    prometheus: FakePrometheus, reply: Reply, error: type[MetricsError], says: str
) -> None:
    prometheus.answer = lambda _: reply
    async with client(prometheus.url) as opened:
        with pytest.raises(error, match=says) as caught:
            await opened.query("up", 1.0)
    assert "'main'" in str(caught.value)
    assert prometheus.url in str(caught.value)
    assert len(prometheus.asked) == 1, "a tick asks again by itself; a retry here would only pile up"


async def test_a_redirect_never_takes_the_token_elsewhere(prometheus: FakePrometheus, tmp_path: Path) -> None:
    thief = FakePrometheus()
    try:
        (tmp_path / "token").write_text("secret")
        prometheus.answer = lambda _: Reply(307, headers={"Location": thief.url + "/api/v1/query"})
        async with client(prometheus.url, authentication=BearerFile(tmp_path / "token")) as opened:
            with pytest.raises(MetricsUnavailable, match="redirected"):
                await opened.query("up", 1.0)
        assert thief.asked == []
    finally:
        thief.close()


async def test_a_refused_connection_is_unavailable_and_says_why() -> None:
    with socket.socket() as reserved:  # bound and not listening: nobody else gets the port meanwhile
        reserved.bind(("127.0.0.1", 0))
        async with client(f"http://127.0.0.1:{reserved.getsockname()[1]}") as opened:
            with pytest.raises(MetricsUnavailable, match="refused"):
                await opened.query("up", 1.0)


async def test_a_connection_cut_before_the_answer_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        async with client(f"http://127.0.0.1:{listener.getsockname()[1]}") as opened:
            with pytest.raises(MetricsUnavailable, match=r"closed|reset|aborted"):
                await opened.query("up", 1.0)
        thread.join()


async def test_a_silent_server_is_given_up_and_its_thread_comes_back(prometheus: FakePrometheus) -> None:
    release = threading.Event()
    replies = iter([Reply(before=lambda: release.wait(10)), vector()])
    prometheus.answer = lambda _: next(replies)
    async with client(prometheus.url, timeout_seconds=0.2, concurrency=1) as opened:
        with pytest.raises(MetricsUnavailable, match=r"no answer within|timed out"):
            await opened.query("up", 1.0)
        release.set()
        assert (await _eventually(lambda: opened.query("up", 1.0))).result == []


async def test_a_dripping_server_holds_no_thread(prometheus: FakePrometheus) -> None:
    """Each byte comes before the read timeout, for ever."""
    stop = threading.Event()
    replies = iter([Reply(drip=lambda: not stop.wait(0.02)), vector()])
    prometheus.answer = lambda _: next(replies)
    try:
        async with client(prometheus.url, timeout_seconds=0.3, concurrency=1) as opened:
            with pytest.raises(MetricsUnavailable, match="no answer within"):
                await opened.query("up", 1.0)
            assert (await _eventually(lambda: opened.query("up", 1.0))).result == []
    finally:
        stop.set()


async def _eventually(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """The single thread is busy until it notices that nobody waits."""
    for _ in range(50):
        try:
            return await ask()
        except MetricsUnavailable:
            continue
    return await ask()


async def test_queries_run_side_by_side_up_to_the_limit(prometheus: FakePrometheus) -> None:
    together = threading.Barrier(4, timeout=5)

    def meet(_: Asked) -> Reply:
        together.wait()
        return vector()

    prometheus.answer = meet
    async with client(prometheus.url, concurrency=4) as opened:
        await asyncio.gather(*(opened.query(f"up == {number}", 1.0) for number in range(4)))


async def test_a_token_that_changed_is_read_again_before_the_next_request(
    prometheus: FakePrometheus, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    async with client(prometheus.url, authentication=BearerFile(token)) as opened:
        await opened.query("up", 1.0)
        (tmp_path / "next").write_text("second\n")
        (tmp_path / "next").rename(token)  # as the kubelet does it
        await opened.query("up", 1.0)
    assert [asked.headers["Authorization"] for asked in prometheus.asked] == ["Bearer first", "Bearer second"]


async def test_a_401_has_the_token_read_again_even_if_its_time_did_not_change(
    prometheus: FakePrometheus, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    before = token.stat()

    def guarded(asked: Asked) -> Reply:
        return vector() if asked.headers["Authorization"] == "Bearer new" else Reply(401, b"who are you")

    prometheus.answer = lambda _: vector()
    async with client(prometheus.url, authentication=BearerFile(token)) as opened:
        await opened.query("up", 1.0)
        token.write_text("new")
        os.utime(token, ns=(before.st_atime_ns, before.st_mtime_ns))
        prometheus.answer = guarded
        await opened.query("up", 1.0)
    assert [asked.headers["Authorization"] for asked in prometheus.asked[1:]] == ["Bearer old", "Bearer new"]


async def test_a_401_that_stays_is_refused_after_one_more_try(prometheus: FakePrometheus, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    prometheus.answer = lambda _: Reply(401, b"who are you")
    async with client(prometheus.url, authentication=BearerFile(tmp_path / "token")) as opened:
        with pytest.raises(QueryRejected, match="401"):
            await opened.query("up", 1.0)
    assert len(prometheus.asked) == 2


async def test_basic_authentication_reads_its_password_from_the_file(
    prometheus: FakePrometheus, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("pässword\n")
    async with client(prometheus.url, authentication=BasicFile("admin", tmp_path / "password")) as opened:
        await opened.query("up", 1.0)
    scheme, encoded = prometheus.asked[0].headers["Authorization"].split()
    assert (scheme, base64.b64decode(encoded).decode()) == ("Basic", "admin:pässword")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "No such file", id="absent"),
        pytest.param("", "empty", id="empty"),
        pytest.param("one\ntwo", "more than one line", id="two-lines"),
    ],
)
async def test_unusable_credentials_name_their_file(
    prometheus: FakePrometheus, tmp_path: Path, content: str | None, says: str
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
    async with client(prometheus.url, authentication=BearerFile(token)) as opened:
        with pytest.raises(MetricsUnavailable, match=says) as caught:
            await opened.query("up", 1.0)
    assert str(token) in str(caught.value)
    assert prometheus.asked == []


async def test_a_ca_file_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    async with client("https://127.0.0.1:9", ca_file=tmp_path / "ca.crt") as opened:
        with pytest.raises(MetricsUnavailable, match=r"ca\.crt"):
            await opened.query("up", 1.0)


async def test_no_proxy_of_the_environment_is_used(prometheus: FakePrometheus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    async with client(prometheus.url) as opened:
        await opened.query("up", 1.0)
    assert len(prometheus.asked) == 1
