"""What longtail publishes for a service, and what becomes of a request under it: no clock, no network, no gateway.

The hook for LiteLLM and the processor for Envoy (../envoy) share it. A request is never raised above its own wish.
Each engine has a field of its own for it:

=================== ======================================================================================
``vllm``            ``thinking_token_budget``; the engine needs a reasoning parser, else it answers 400
``sglang``          ``custom_params.thinking_budget``; the engine needs ``--enable-strict-thinking``
``reasoning_effort``  ``reasoning_effort``, for models that know it (gpt-oss)
``max_tokens``      thought and answer together: the last resort, since it cuts answers
=================== ======================================================================================
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

ENGINES = ("vllm", "sglang", "reasoning_effort", "max_tokens")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""From the least."""
FILE = "effort.json"
"""The one key of the ConfigMap, so the one file where it is mounted."""
_MAX_BYTES = 64 * 1024


class Malformed(ValueError):
    """A limit that we do not understand. Of the client's own the engine will say so, not we."""


@dataclass(frozen=True)
class Level:
    """How much may be thought; None: no limit."""

    name: str
    thinking_tokens: int | None
    reasoning_effort: str | None

    @classmethod
    def parse(cls, body: Any) -> "Level":
        """Raises ValueError where it is not what longtail writes."""
        if not isinstance(body, dict):
            raise ValueError(f"a level must be an object, got {body!r:.100}")
        name, tokens, effort = body.get("level"), body.get("thinkingTokens"), body.get("reasoningEffort")
        if not isinstance(name, str):
            raise ValueError(f"level must be a string, got {name!r:.100}")
        if tokens is not None and (type(tokens) is not int or tokens < 0):
            raise ValueError(f"thinkingTokens must be a whole number of at least 0 or null, got {tokens!r:.100}")
        if not isinstance(effort, str | None):
            raise ValueError(f"reasoningEffort must be a string or null, got {effort!r:.100}")
        return cls(name, tokens, effort)

    @property
    def unlimited(self) -> bool:
        """Such a document is not renewed: it says the same when it has expired."""
        return self.thinking_tokens is None and self.reasoning_effort is None


@dataclass(frozen=True)
class Document:
    """What longtail publishes for one service."""

    service: str
    model: str | None
    valid_until: float
    usual: Level
    classes: Mapping[str, Level]

    @classmethod
    def parse(cls, text: str | bytes) -> "Document":
        """Raises ValueError (JSON's is one) where it is not what longtail writes."""
        body = json.loads(text)
        usual = Level.parse(body)
        service, model, until, classes = (body.get(key) for key in ("service", "model", "validUntil", "classes"))
        if not isinstance(service, str) or not isinstance(model, str | None) or not isinstance(until, str):
            raise ValueError(f"service, model or validUntil is no string: {service!r}, {model!r}, {until!r:.100}")
        at = datetime.fromisoformat(until.replace("Z", "+00:00"))  # noqa: FURB162 - Python 3.10 does not know Z
        if at.tzinfo is None:
            raise ValueError(f"validUntil must have a time zone, got {until!r}")
        if not isinstance(classes or {}, dict):
            raise ValueError(f"classes must be an object, got {classes!r:.100}")
        parsed = {name: Level.parse(level) for name, level in (classes or {}).items()}
        return cls(service, model, at.timestamp(), usual, parsed)


@dataclass(frozen=True)
class Target:
    """What a model name of the proxy stands for."""

    service: str | None
    engine: str = "vllm"
    answer_tokens: int = 0
    default_effort: str = "medium"

    @classmethod
    def parse(cls, name: str, body: Any, default: str) -> "Target":
        """Raises ValueError with the name and what is wrong with it."""
        if not isinstance(body, dict) or body.keys() - {"service", "engine", "answer_tokens", "default_effort"}:
            raise ValueError(f"LONGTAIL_EFFORT_MODELS: {name}: takes service, engine, answer_tokens, default_effort")
        target = cls(**{"service": None, "engine": default, **body})
        if target.engine not in ENGINES or target.default_effort not in EFFORTS:
            raise ValueError(f"LONGTAIL_EFFORT_MODELS: {name}: engine is one of {ENGINES}, default_effort of {EFFORTS}")
        if target.engine == "max_tokens" and (type(target.answer_tokens) is not int or target.answer_tokens < 1):
            raise ValueError(f"LONGTAIL_EFFORT_MODELS: {name}: engine max_tokens needs answer_tokens of at least 1")
        return target

    @property
    def field(self) -> str:
        """Name of the engine's field, as an error of the engine has it."""
        return {"vllm": "thinking_token_budget", "sglang": "thinking_budget"}.get(self.engine, self.engine)


class Refusals:
    """Models whose engine refused our field (vLLM without a reasoning parser): they are left in peace for a while.

    Not where an engine took one a moment ago: then an error is about what the client wrote. Times in Unix seconds.
    """

    SECONDS = 300.0

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._accepted: dict[str, float] = {}

    def accepted(self, model: str, now: float) -> None:
        """The engine took a request with the field."""
        self._accepted[model] = now

    def believes(self, model: str, now: float) -> bool:
        """Whether an error may be a refusal."""
        return now - self._accepted.get(model, float("-inf")) >= self.SECONDS

    def refused(self, model: str, now: float) -> None:
        """It was one."""
        self._until[model] = now + self.SECONDS

    def last(self, model: str, now: float) -> bool:
        """Whether the model is left in peace."""
        return now < self._until.get(model, now)


def targets(env: Mapping[str, str]) -> tuple[str, dict[str, Target]]:
    """What the environment variables say of models: the engine of those without one, and those that are named.

    Raises:
        ValueError: with the variable and what is wrong with it.
    """
    engine = env.get("LONGTAIL_EFFORT_ENGINE", "vllm")
    models = json.loads(env.get("LONGTAIL_EFFORT_MODELS") or "{}")
    if not isinstance(models, dict):
        raise ValueError(f"LONGTAIL_EFFORT_MODELS must be an object by model name, got {models!r:.100}")
    if engine not in ENGINES[:3]:
        raise ValueError(f"LONGTAIL_EFFORT_ENGINE must be one of {ENGINES[:3]}, got {engine!r}")
    return engine, {name: Target.parse(name, body, engine) for name, body in models.items()}


def mounted(path: Path) -> Iterator[tuple[str, bytes]]:
    """A mounted file, after its name; of a folder ``*.json``, and ``effort.json`` one level below.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    files = [path]
    if path.is_dir():
        files = [*path.glob("[!.]*.json"), *path.glob(f"[!.]*/{FILE}")]
    for file in files:
        yield str(file), file.read_bytes()[:_MAX_BYTES]


@dataclass(frozen=True)
class Choice:
    """The level for a request; None: it stays as it is. ``outcome`` says why: a stable word, and one for people."""

    level: Level | None
    outcome: str = ""
    message: str = ""


def choose(
    documents: Iterable[Document], *, model: str, target: Target | None, class_name: str, now: float
) -> Choice | None:
    """The level that is published for a request; None: it is of a model that is nobody's business."""
    if target is not None and target.service is not None:
        found = [each for each in documents if each.service == target.service]
    else:
        found = [each for each in documents if each.model == model]
    if not found:
        return None if target is None else Choice(None, "missing", "nothing is published for it")
    services = sorted({each.service for each in found})
    if len(services) > 1:
        return Choice(None, "ambiguous", f"{services} publish for it; name one")
    # Of two sources, what was written last.
    document = max(found, key=lambda each: each.valid_until)
    level = document.classes.get(class_name, document.usual)
    if level.unlimited:
        return Choice(None, "unlimited")
    if now >= document.valid_until:
        return Choice(None, "expired", f"{document.service} says nothing since {document.valid_until:.0f}")
    return Choice(level)


def limited(data: Mapping[str, Any], level: Level, target: Target, *, extra_body: bool = True) -> dict[str, Any] | None:
    """The request under the level; None: it stays as it is.

    Args:
        data: the request.
        level: what is published for it.
        target: what it goes to.
        extra_body: whether a limit in ``extra_body`` is one: LiteLLM unfolds it, an engine does not look there.

    Raises:
        Malformed: the client's own limit is none.
    """
    tokens, prefixes = level.thinking_tokens, ((), ("extra_body",)) if extra_body else ((),)
    if target.engine == "reasoning_effort":
        return _less_effort(data, level.reasoning_effort, target.default_effort, prefixes=prefixes)
    if tokens is None:
        return None
    if target.engine == "max_tokens":
        paths, most = [("max_tokens",), ("max_completion_tokens",)], tokens + target.answer_tokens
        return _fewer(data, paths, most, wish=None, prefixes=prefixes)
    thinking = data.get("thinking")
    wish = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    path = ("thinking_token_budget",) if target.engine == "vllm" else ("custom_params", "thinking_budget")
    return _fewer(data, [path], tokens, wish=_count(wish), prefixes=prefixes)


def _fewer(
    data: Mapping[str, Any],
    paths: Sequence[tuple[str, ...]],
    most: int,
    *,
    wish: int | None,
    prefixes: Sequence[tuple[str, ...]],
) -> dict[str, Any] | None:
    """Lower every limit of the client that is above; set the first one where there is none."""
    most = most if wish is None else min(most, wish)
    # A client may spell out the SDK's extra_body, which wins over the same field beside it.
    places = [(*prefix, *path) for prefix in prefixes for path in paths]
    own = {place: _count(_at(data, place)) for place in places}
    above = [place for place, count in own.items() if count is not None and count > most]
    if all(count is None for count in own.values()):
        above = [paths[0]]
    changed = dict(data)
    for place in above:
        _put(changed, place, most)
    return changed if above else None


def _less_effort(
    data: Mapping[str, Any], most: str | None, default: str, *, prefixes: Sequence[tuple[str, ...]]
) -> dict[str, Any] | None:
    if most is None:
        return None
    if most not in EFFORTS:
        raise Malformed(f"the published effort {most!r} is not one of {', '.join(EFFORTS)}")
    if data.get("thinking") is not None or data.get("reasoning") is not None:
        raise Malformed("effort given as thinking or reasoning")
    places = [(*prefix, "reasoning_effort") for prefix in prefixes]
    own = {place: value for place in places if (value := _at(data, place)) is not None}
    if any(value not in EFFORTS for value in own.values()):
        raise Malformed(f"reasoning_effort: {own}")
    # Who says nothing gets the engine's default: a recommendation above it would raise.
    above = [place for place, value in (own or {places[0]: default}).items() if _rank(value) > _rank(most)]
    changed = dict(data)
    for place in above:
        _put(changed, place, most)
    return changed if above else None


def _rank(effort: str) -> int:
    return EFFORTS.index(effort)


def _count(value: Any) -> int | None:
    if value is None or (type(value) is int and value == -1):  # vLLM: -1 is no limit
        return None
    if type(value) is not int or value < 0:
        raise Malformed(f"a limit of {value!r:.100}")
    return value


def _at(data: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        if data is None:
            return None
        if not isinstance(data, dict):
            raise Malformed(f"{key} inside of {data!r:.100}")
        data = data.get(key)
    return data


def _put(data: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    """Copies on the way: the caller's nested objects are others' too."""
    for key in place[:-1]:
        data[key] = dict(data.get(key) or {})
        data = data[key]
    data[place[-1]] = value
