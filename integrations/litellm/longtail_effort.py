"""A hook for the LiteLLM proxy: during a shortage requests think no longer than longtail publishes.

Put this folder on the proxy's PYTHONPATH and name the hook in its ``config.yaml``::

    litellm_settings:
      callbacks: [longtail_effort.hook]

It needs nothing but LiteLLM and what LiteLLM brings, and nothing of longtail but the ConfigMap ``NAME-effort``.
Settings are environment variables, all in ``Settings.read``; docs/litellm.md explains them.

Whatever is missing, broken, expired or unexpected, the request goes on as it came (fail open): worse than a long
thought is a gateway that is down.
"""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from litellm.integrations.custom_logger import CustomLogger

from longtail_limits import FILE, Document, Level, Malformed, Refusals, Target, choose, limited, mounted, targets

try:  # LiteLLM's images have it: then /metrics of the proxy has the counter.
    from prometheus_client import Counter
except ImportError:  # pragma: no cover - the log line remains
    Counter = None  # type: ignore[assignment,misc]

log = logging.getLogger("longtail_effort")
log.setLevel(logging.INFO)
if not logging.getLogger().handlers:  # LiteLLM configures its own loggers only
    log.addHandler(logging.StreamHandler())
    log.handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.propagate = False

ROUTES = ("acompletion", "completion", "anthropic_messages")
"""Chat and Anthropic's messages. LiteLLM drops what it does not know from /v1/responses; completions do not think."""

_FILES_SECONDS = 0.2
_TIMEOUT_SECONDS = 5.0
_LOG_SECONDS = 60.0
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True)
class Settings:
    """The environment variables."""

    path: Path | None = None
    config_maps: Sequence[str] = ()
    models: Mapping[str, Target] = field(default_factory=dict)
    engine: str = "vllm"
    class_key: str = "longtail_class"
    class_header: str = ""
    poll_seconds: float = 5.0
    server: str = ""
    account: Path = Path(_ACCOUNT)

    @classmethod
    def read(cls, env: Mapping[str, str]) -> "Settings":
        """Raises ValueError: a mistake here stops the proxy when it starts, and not later."""
        engine, models = targets(env)
        maps = [name.strip() for name in env.get("LONGTAIL_EFFORT_CONFIGMAPS", "").split(",") if name.strip()]
        path = env.get("LONGTAIL_EFFORT_PATH")
        if any(name.count("/") != 1 for name in maps):
            raise ValueError(f"LONGTAIL_EFFORT_CONFIGMAPS: takes namespace/name, with commas between, got {maps}")
        if not path and not maps:
            raise ValueError("LONGTAIL_EFFORT_PATH or LONGTAIL_EFFORT_CONFIGMAPS must be set")
        host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "443")
        return cls(
            path=Path(path) if path else None,
            config_maps=maps,
            models=models,
            engine=engine,
            class_key=env.get("LONGTAIL_EFFORT_CLASS_KEY", "longtail_class"),
            class_header=env.get("LONGTAIL_EFFORT_CLASS_HEADER", "").lower(),
            poll_seconds=max(1.0, float(env.get("LONGTAIL_EFFORT_POLL_SECONDS", "5"))),
            server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            account=Path(env.get("LONGTAIL_EFFORT_ACCOUNT", _ACCOUNT)),
        )


# ---------------------------------------------------------------- the hook


Body = dict[str, Any]
"""A request as LiteLLM's proxy has read it, with its own notes."""


class _Mark(dict[str, str]):
    """Our note in a request's metadata: level and field. A class of its own, since clients write there too."""


class EffortHook(CustomLogger):  # type: ignore[misc]  # LiteLLM is not where this is checked
    """Reads what is published and applies it before each call. ``clock`` gives Unix seconds."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._settings = settings
        self._clock = clock
        self._files: dict[str, Document | None] = {}
        self._read: dict[str, Document | None] = {}
        self._looked = float("-inf")
        self._follower: asyncio.Task[None] | None = None
        self._refusals = Refusals()
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}
        self._counter = _counter()

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Body, call_type: str) -> Body:
        """LiteLLM calls it with the request's body; what it returns is sent."""
        del cache
        try:
            return self._limited(user_api_key_dict, data, call_type)
        except Exception as error:  # noqa: BLE001 - fail open, whatever it is
            self._count("", "error", f"{error!r}", logging.ERROR)
            return data

    async def async_post_call_response_headers_hook(
        self,
        data: Body,
        user_api_key_dict: Any,  # noqa: ARG002 - LiteLLM gives it
        response: Any,
        **_: Any,
    ) -> dict[str, str] | None:
        """Whoever was given less can see it."""
        mark = _metadata(data).get("longtail_effort")
        if not isinstance(mark, _Mark):
            return None
        if response is not None:
            self._refusals.accepted(str(data.get("model")), self._clock())
        return {"x-longtail-effort": mark["level"]}

    async def async_post_call_failure_hook(self, request_data: Body, original_exception: Exception, **_: Any) -> None:
        """An engine that takes no budgets answers 400, with the name of the field."""
        mark, model, now = _metadata(request_data).get("longtail_effort"), str(request_data.get("model")), self._clock()
        believed = self._refusals.believes(model, now)
        if isinstance(mark, _Mark) and mark["field"] in str(original_exception) and believed:
            self._refusals.refused(model, now)
            self._count(model, "refused", f"the engine takes no {mark['field']}: {original_exception}", logging.ERROR)

    def _limited(self, key: Any, data: Body, call_type: str) -> Body:
        if call_type not in ROUTES:
            return data
        now = self._clock()
        self._look(now)
        self._follow()
        model = str(data.get("model"))
        target = self._settings.models.get(model)
        documents = [each for each in (*self._files.values(), *self._read.values()) if each is not None]
        choice = choose(documents, model=model, target=target, class_name=self._class(key, data), now=now)
        if choice is None:
            return data
        if choice.level is None:
            severity = logging.INFO if choice.outcome == "missing" else logging.WARNING
            self._count(model, choice.outcome, choice.message, severity)
        elif self._refusals.last(model, now):
            self._count(model, "refused", "its engine refused such a field", logging.ERROR)
        else:
            return self._apply(data, choice.level, target or Target(None, self._settings.engine), model)
        return data

    def _apply(self, data: Body, level: Level, target: Target, model: str) -> Body:
        try:
            changed = limited(data, level, target)
        except Malformed as error:
            self._count(model, "malformed", str(error), logging.INFO)
            return data
        if changed is None:
            self._count(model, "own")
            return data
        _metadata(changed)["longtail_effort"] = _Mark(level=level.name, field=target.field)
        self._count(
            model, "applied", f"level {level.name}: {level.thinking_tokens or level.reasoning_effort}", logging.INFO
        )
        return changed

    def _class(self, key: Any, data: Mapping[str, Any]) -> str:
        """What the administrator wrote of the key, or its team. A header is the client's own word: only if allowed."""
        for source in (getattr(key, "metadata", None), getattr(key, "team_metadata", None)):
            if isinstance(source, dict) and isinstance(name := source.get(self._settings.class_key), str):
                return name
        headers = (data.get("proxy_server_request") or {}).get("headers") or {}
        return str(headers.get(self._settings.class_header, "")) if self._settings.class_header else ""

    # ------------------------------------------------------------ reading

    def _look(self, now: float) -> None:
        """Look at mounted files, 5 times a second."""
        path = self._settings.path
        if path is None or 0 <= now - self._looked < _FILES_SECONDS:
            return
        self._looked = now
        found: dict[str, Document | None] = {}
        try:
            for file, text in mounted(path):
                found[file] = self._parsed(file, text)
        except FileNotFoundError:
            self._say("files", str(path), "is not there", logging.INFO)
        except OSError as error:
            self._say("files", str(path), f"cannot be read: {error!r}")
        self._files = found

    def _parsed(self, origin: str, text: str | bytes) -> Document | None:
        try:
            return Document.parse(text)
        except (ValueError, RecursionError) as error:
            self._count("", "broken", f"{origin}: {error}")
            return None

    def _follow(self) -> None:
        """The first request of a worker starts it: only then there is an event loop."""
        if self._settings.config_maps and (self._follower is None or self._follower.done()):
            self._follower = asyncio.get_running_loop().create_task(self._follow_forever())

    async def _follow_forever(self) -> None:
        while True:
            for name in self._settings.config_maps:
                try:
                    await self._fetch(name)
                except Exception as error:  # noqa: BLE001 - nothing may end this; what was read stays until it expires
                    self._count("", "unreachable", f"ConfigMap {name}: {error!r}")
            await asyncio.sleep(self._settings.poll_seconds)

    async def _fetch(self, name: str) -> None:
        namespace, _, config_map = name.partition("/")
        url = f"{self._settings.server}/api/v1/namespaces/{namespace}/configmaps/{config_map}"
        # Both files anew each time: the kubelet renews them.
        account = self._settings.account
        headers = {"Authorization": f"Bearer {(account / 'token').read_text().strip()}"}
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        # trust_env=False: the API server is not behind the proxy that leads to the providers of models.
        async with httpx.AsyncClient(verify=context, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            answer = await client.get(url, headers=headers)
        if answer.status_code == httpx.codes.NOT_FOUND:
            self._read[name] = None
            return
        answer.raise_for_status()
        text = (answer.json().get("data") or {}).get(FILE, "")
        self._read[name] = self._parsed(f"ConfigMap {name}", text)

    # ------------------------------------------------------------ telling

    def _count(self, model: str, outcome: str, message: str = "", severity: int = logging.WARNING) -> None:
        if self._counter is not None:
            self._counter.labels(model, outcome).inc()
        if message:
            self._say(outcome, model, message, severity)

    def _say(self, outcome: str, subject: str, message: str, severity: int = logging.WARNING) -> None:
        """Once a minute for each outcome and subject."""
        now = self._clock()
        at, silent = self._logged.get((outcome, subject), (float("-inf"), 0))
        if 0 <= now - at < _LOG_SECONDS:
            self._logged[outcome, subject] = at, silent + 1
            return
        self._logged[outcome, subject] = now, 0
        more = f" ({silent} more since the last line)" if silent else ""
        log.log(severity, "%s %s: %s%s", outcome, subject, message, more)


def _metadata(data: Mapping[str, Any]) -> dict[str, Any]:
    """Where LiteLLM keeps its own notes of a request; nothing of it is sent."""
    for key in ("litellm_metadata", "metadata"):
        if isinstance(found := data.get(key), dict):
            return found
    return {}


def _counter() -> Any:
    if Counter is None:
        return None
    try:
        return Counter(
            "longtail_effort_requests_total", "Requests by what longtail's effort did.", ["model", "outcome"]
        )
    except ValueError:  # LiteLLM loads the file again when its configuration changes
        return None


hook = EffortHook(Settings.read(os.environ))
