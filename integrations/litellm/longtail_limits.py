"""What longtail publishes for a service, and what becomes of a request under it: no clock, no network, no LiteLLM.

A request is never raised above its own wish. Each engine has a field of its own for it:

=================== ======================================================================================
``vllm``            ``thinking_token_budget``; the engine needs a reasoning parser, else it answers 400
``sglang``          ``custom_params.thinking_budget``; the engine needs ``--enable-strict-thinking``
``reasoning_effort``  ``reasoning_effort``, for models that know it (gpt-oss)
``max_tokens``      thought and answer together: the last resort, since it cuts answers
=================== ======================================================================================
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

ENGINES = ("vllm", "sglang", "reasoning_effort", "max_tokens")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""From the least."""


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


def limited(data: Mapping[str, Any], level: Level, target: Target) -> dict[str, Any] | None:
    """The request under the level; None: it stays as it is.

    Raises:
        Malformed: the client's own limit is none.
    """
    tokens = level.thinking_tokens
    if target.engine == "reasoning_effort":
        return _less_effort(data, level.reasoning_effort, target.default_effort)
    if tokens is None:
        return None
    if target.engine == "max_tokens":
        return _fewer(data, [("max_tokens",), ("max_completion_tokens",)], tokens + target.answer_tokens, wish=None)
    thinking = data.get("thinking")
    wish = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    path = ("thinking_token_budget",) if target.engine == "vllm" else ("custom_params", "thinking_budget")
    return _fewer(data, [path], tokens, wish=_count(wish))


def _fewer(
    data: Mapping[str, Any], paths: Sequence[tuple[str, ...]], most: int, *, wish: int | None
) -> dict[str, Any] | None:
    """Lower every limit of the client that is above; set the first one where there is none."""
    most = most if wish is None else min(most, wish)
    # A client may spell out the SDK's extra_body, which wins over the same field beside it.
    places = [(*prefix, *path) for prefix in ((), ("extra_body",)) for path in paths]
    own = {place: _count(_at(data, place)) for place in places}
    above = [place for place, count in own.items() if count is not None and count > most]
    if all(count is None for count in own.values()):
        above = [paths[0]]
    changed = dict(data)
    for place in above:
        _put(changed, place, most)
    return changed if above else None


def _less_effort(data: Mapping[str, Any], most: str | None, default: str) -> dict[str, Any] | None:
    if most is None:
        return None
    if most not in EFFORTS:
        raise Malformed(f"the published effort {most!r} is not one of {', '.join(EFFORTS)}")
    if data.get("thinking") is not None or data.get("reasoning") is not None:
        raise Malformed("effort given as thinking or reasoning")
    places = (("reasoning_effort",), ("extra_body", "reasoning_effort"))
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
