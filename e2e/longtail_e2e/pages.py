"""Metrics pages that a test writes, for a Prometheus to scrape."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from longtail_e2e.ports import LOOPBACK
from longtail_e2e.processes import wait_until
from longtail_e2e.prometheus import Prometheus, Target


def page(*lines: str) -> str:
    """The text of a page."""
    return "\n".join([*lines, ""])


@contextmanager
def served(text_of: Callable[[str], str | None]) -> Iterator[str]:
    """Answer requests for a path with its text, and with 503 where it has none; yields the server's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = text_of(self.path)
            body = (text or "").encode()
            self.send_response(200 if text is not None else 503)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Pages:
    """Pages that change only when a test says so, and a Prometheus that has seen them."""

    def __init__(self, prometheus: Prometheus, *, owner: str) -> None:
        """Serve nothing yet; ``owner`` is a label of all series, for others have theirs in the same Prometheus."""
        self._prometheus = prometheus
        self._owner = owner
        self._texts: dict[str, str] = {}
        self._version = 0
        self._serving = ExitStack()
        self._url = self._serving.enter_context(served(self._text_of))

    def _text_of(self, path: str) -> str | None:
        return self._texts.get(path)

    def announce(self, names: Mapping[str, Mapping[str, str]]) -> None:
        """Have these pages scraped, with these labels."""
        self._prometheus.set_targets(
            Target(url=f"{self._url}/{name}", labels={**labels, "page": name, "page_of": self._owner})
            for name, labels in names.items()
        )

    def show(self, texts: Mapping[str, str]) -> None:
        """Serve these texts, and wait until every one was scraped."""
        self._version += 1
        self._texts = {f"/{name}": f"{text}test_page_version {self._version}\n" for name, text in texts.items()}
        wanted = f'count(test_page_version{{page_of="{self._owner}"}} == {self._version})'
        wait_until(
            lambda: self._prometheus.value(wanted) == float(len(texts)), what="all scrapes", timeout_seconds=60.0
        )

    def silence(self, name: str) -> None:
        """Answer 503 for this page, and wait until Prometheus has noticed."""
        self._texts.pop(f"/{name}")
        gone = f'test_page_version{{page_of="{self._owner}",pod="{name}"}}'
        wait_until(lambda: self._prometheus.value(gone) is None, what=f"the end of {name}", timeout_seconds=60.0)

    def close(self) -> None:
        """Leave Prometheus without these pages, and without their series."""
        self._prometheus.set_targets([])
        ours = f'count({{page_of="{self._owner}"}})'
        wait_until(lambda: self._prometheus.value(ours) is None, what="the end of all pages", timeout_seconds=60.0)
        self._serving.close()
