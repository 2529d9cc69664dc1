"""Which requests through Envoy are limited, and what becomes of them: headers and bytes, no gRPC, no Envoy.

The rules themselves are ``longtail_limits``, beside the hook for LiteLLM. Whatever is missing, broken, expired or
unexpected, a request goes on as it came, byte for byte.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longtail_limits import Document, Level, Malformed, Refusals, Target, choose, limited, mounted, targets

log = logging.getLogger("longtail_ext_proc")

_FILES_SECONDS = 0.2
_LOG_SECONDS = 60.0
_MOST_BYTES = 4_000_000
"""gRPC's own limit of a message is 4 MiB."""


@dataclass(frozen=True)
class Settings:
    """The environment variables; docs/envoy.md explains them."""

    path: Path
    models: Mapping[str, Target] = field(default_factory=dict)
    engine: str = "vllm"
    class_header: str = ""
    max_body_bytes: int = 1_000_000
    listen: str = "127.0.0.1:9002"
    metrics_port: int = 0

    @classmethod
    def read(cls, env: Mapping[str, str]) -> "Settings":
        """Raises ValueError: a mistake here stops the processor when it starts, and not later."""
        engine, models = targets(env)
        path, most = env.get("LONGTAIL_EFFORT_PATH"), int(env.get("LONGTAIL_EFFORT_MAX_BODY_BYTES", "1000000"))
        if not path:
            raise ValueError("LONGTAIL_EFFORT_PATH must be set")
        if not 0 < most <= _MOST_BYTES:
            raise ValueError(f"LONGTAIL_EFFORT_MAX_BODY_BYTES must be above 0 and at most {_MOST_BYTES}, got {most}")
        return cls(
            path=Path(path),
            models=models,
            engine=engine,
            class_header=env.get("LONGTAIL_EFFORT_CLASS_HEADER", "").lower(),
            max_body_bytes=most,
            listen=env.get("LONGTAIL_EFFORT_LISTEN", "127.0.0.1:9002"),
            metrics_port=int(env.get("LONGTAIL_EFFORT_METRICS_PORT", "0")),
        )


@dataclass(frozen=True)
class Change:
    """A request that was given less: its new body, and what to remember until the engine has answered."""

    body: bytes
    model: str
    level: str
    field: str


class Limiter:
    """Reads what is published and applies it. ``count`` counts outcomes by model; ``clock`` gives Unix seconds."""

    def __init__(
        self, settings: Settings, *, count: Callable[[str, str], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._settings, self._counted, self._clock = settings, count, clock
        self._documents: dict[str, Document] = {}
        self._looked = float("-inf")
        self._refusals = Refusals()
        self._logged: dict[tuple[str, str], float] = {}

    def wants(self, headers: Mapping[str, str]) -> bool:
        """Whether the body has to be seen: a chat request, no larger than allowed, while there is a limit at all.

        Without ``content-length`` the size is not known yet.
        """
        path, kind = headers.get(":path", "").partition("?")[0], headers.get("content-type", "").partition(";")[0]
        if headers.get(":method") != "POST" or not path.endswith("/chat/completions"):
            return False
        # All else an engine refuses by itself; of a packed body nothing could be read.
        if kind.strip().lower() != "application/json" or "content-encoding" in headers:
            return False
        if not self._in_force():
            return False
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._settings.max_body_bytes:
            self._count("", "large")
            return False
        return True

    def change(self, headers: Mapping[str, str], body: bytes, *, whole: bool = True) -> Change | None:
        """The request under what is published; None: it stays as it is.

        Of a body that is larger than Envoy's buffer only the beginning comes; it is not ``whole``.
        """
        if not whole or len(body) > self._settings.max_body_bytes:
            self._count("", "large")
            return None
        try:
            data = json.loads(body, parse_constant=_no_number)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict) or not isinstance(model := data.get("model"), str):
            self._count("", "malformed")
            return None
        now, target = self._clock(), self._settings.models.get(model)
        name = headers.get(self._settings.class_header, "") if self._settings.class_header else ""
        choice = choose(self._documents.values(), model=model, target=target, class_name=name, now=now)
        if choice is None:
            return None
        if choice.level is None:
            self._count(model, choice.outcome, choice.message)
        elif self._refusals.last(model, now):
            self._count(model, "refused", "its engine refused such a field")
        else:
            return self._apply(data, choice.level, target or Target(None, self._settings.engine), model)
        return None

    def suspect(self, change: Change, status: str) -> bool:
        """Whether an answer may be an engine's that takes no budgets, so that its text has to be seen."""
        now = self._clock()
        if status.startswith("2"):
            self._refusals.accepted(change.model, now)
        return status in ("400", "422") and self._refusals.believes(change.model, now)

    def refused(self, change: Change, text: bytes) -> None:
        """An error that names our field (vLLM without a reasoning parser): leave the model in peace for a while."""
        if change.field.encode() in text:
            self._refusals.refused(change.model, self._clock())
            self._count(change.model, "refused", f"the engine takes no {change.field}: {text!r:.300}")

    def failed(self, error: Exception) -> None:
        """Something unexpected: the request goes on all the same."""
        self._count("", "error", f"{error!r}")

    def _apply(self, data: dict[str, Any], level: Level, target: Target, model: str) -> Change | None:
        try:
            changed = limited(data, level, target, extra_body=False)
            # allow_nan: 1e999 is read as infinity, which JSON cannot say.
            body = None if changed is None else json.dumps(changed, allow_nan=False, separators=(",", ":")).encode()
        except (Malformed, ValueError) as error:
            self._count(model, "malformed", f"{error}")
            return None
        if body is None:
            self._count(model, "own")
            return None
        self._count(model, "applied", f"level {level.name}: {level.thinking_tokens or level.reasoning_effort}")
        return Change(body, model, level.name, target.field)

    def _in_force(self) -> bool:
        """Whether anything is limited now; mounted files are looked at 5 times a second."""
        now, path, found = self._clock(), self._settings.path, dict[str, Document]()
        if not 0 <= now - self._looked < _FILES_SECONDS:
            self._looked = now
            try:
                for file, text in mounted(path):
                    try:
                        found[file] = Document.parse(text)
                    except (ValueError, RecursionError) as error:
                        self._count("", "broken", f"{file}: {error}")
            except OSError as error:
                self._say("", "files", f"{path}: {error}")
            self._documents = found
        some = [each for each in self._documents.values() if not each.usual.unlimited or each.classes]
        for each in some:
            if now >= each.valid_until:
                self._say(each.service, "expired", f"nothing is said since {each.valid_until:.0f}")
        return any(now < each.valid_until for each in some)

    def _count(self, model: str, outcome: str, message: str = "") -> None:
        self._counted(model, outcome)
        if message:
            self._say(model, outcome, message)

    def _say(self, subject: str, outcome: str, message: str) -> None:
        """Once a minute for each outcome and subject."""
        now = self._clock()
        if not 0 <= now - self._logged.get((subject, outcome), float("-inf")) < _LOG_SECONDS:
            self._logged[subject, outcome] = now
            log.warning("%s %s: %s", outcome, subject, message)


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")
