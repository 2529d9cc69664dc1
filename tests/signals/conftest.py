"""A Prometheus that answers what a test tells it to, over a real socket."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, str]


@dataclass
class Reply:
    """What goes back. ``pieces`` are sent one by one, ``pause_seconds`` apart."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    before: Callable[[], object] = lambda: None
    drip: Callable[[], bool] | None = None


def vector(*samples: tuple[dict[str, str], float | str], **more: object) -> Reply:
    """A successful instant vector."""
    result = [{"metric": labels, "value": [1.0, str(value)]} for labels, value in samples]
    return success("vector", result, **more)


def success(result_type: str, result: Sequence[object], **more: object) -> Reply:
    payload = {"status": "success", "data": {"resultType": result_type, "result": result}, **more}
    return Reply(body=json.dumps(payload).encode())


class FakePrometheus:
    """Serves on loopback; ``answer`` decides, ``asked`` remembers."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Reply] = lambda _: vector()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                fake._serve(self)

            def do_GET(self) -> None:
                fake._serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        form = {key: values[0] for key, values in parse_qs(handler.rfile.read(length).decode()).items()}
        asked = Asked(handler.command, handler.path, dict(handler.headers.items()), form)
        self.asked.append(asked)
        reply = self.answer(asked)
        reply.before()
        with contextlib.suppress(OSError):  # the client may have gone: that is what some tests are about
            # With a clock of its own: the handler's would come first.
            (handler.send_response_only if "Date" in reply.headers else handler.send_response)(reply.status)
            handler.send_header("Content-Type", reply.content_type)
            handler.send_header("Content-Length", str(len(reply.body) if reply.drip is None else 10**9))
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(reply.body)
            while reply.drip is not None and reply.drip():
                handler.wfile.write(b" ")
                handler.wfile.flush()


@pytest.fixture
def prometheus() -> Iterator[FakePrometheus]:
    server = FakePrometheus()
    yield server
    server.close()
