"""Clients of an inference Service: each asks, reads the answer to its end, and asks again."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from typing import Final, Self

import requests

_WHOLE: Final = "data: [DONE]"


@dataclass(slots=True)
class Answers:
    """How the requests so far ended."""

    whole: int = 0
    cut: list[str] = field(default_factory=list)
    """Answers that ended early, each with the reason."""
    refused: list[str] = field(default_factory=list)
    """Requests that nobody took."""


class Clients:
    """So many at a time as `crowd` says; a context manager that ends with all answers read."""

    def __init__(self, url: str, *, tokens: tuple[int, int]) -> None:
        """Name the Service by its address; an answer has between so many ``tokens``."""
        self.answers = Answers()
        self._url = f"{url}/v1/completions"
        self._tokens = tokens
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._wanted = 0

    def crowd(self, count: int) -> None:
        """Let so many ask from now on; who is too many reads the answer to its end first."""
        self._wanted = count
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for number in range(count):
            if not any(thread.name == str(number) for thread in self._threads):
                thread = threading.Thread(target=self._ask_on, args=(number,), name=str(number), daemon=True)
                self._threads.append(thread)
                thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.crowd(0)
        for thread in self._threads:
            thread.join(60.0)

    def _ask_on(self, number: int) -> None:
        draw = random.Random(number)  # noqa: S311 - lengths of answers
        while number < self._wanted:
            ask(self._url, tokens=draw.randint(*self._tokens), answers=self.answers, lock=self._lock)


def ask(url: str, *, tokens: int, answers: Answers, lock: threading.Lock) -> None:
    """Send one request on a connection of its own, and note how it ends."""
    body = {"prompt": "why", "max_tokens": tokens, "stream": True}
    headers = {"Connection": "close"}
    last = ""
    try:
        with requests.post(url, json=body, headers=headers, stream=True, timeout=(5.0, 30.0)) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines(decode_unicode=True):
                last = line or last
    except requests.RequestException as error:
        with lock:
            (answers.cut if last else answers.refused).append(repr(error))
        return
    with lock:
        if last == _WHOLE:
            answers.whole += 1
        else:
            answers.cut.append(f"ended with {last!r}")
