"""Which requests the processor for Envoy limits, and what it makes of them. Envoy itself: e2e/tests."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail_limits import Choice, Document, Level, Target, choose, mounted, targets
from longtail_requests import Limiter, Settings

NOW = 1_795_809_600.0
LOW = {"level": "low", "thinkingTokens": 1024, "reasoningEffort": None}
HEADERS = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}
REQUEST = {"model": "r1", "messages": [{"role": "user", "content": "warum? 為什麼?"}]}


def document(**fields: object) -> dict[str, object]:
    until = {"validUntil": "2026-11-27T20:01:00Z"}  # a minute after NOW
    return (
        {"service": "n/r1", "model": "r1", "classes": {"premium": LOW | {"thinkingTokens": 4096}}}
        | LOW
        | until
        | fields
    )


class Processor:
    """A limiter, a folder with what is published, a clock and what was counted."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.now, self.outcomes = folder, NOW, list[tuple[str, str]]()
        self.limiter = Limiter(
            Settings(path=folder, **settings), count=lambda *each: self.outcomes.append(each), clock=lambda: self.now
        )

    def publish(self, **fields: object) -> None:
        (self.folder / "effort.json").write_text(json.dumps(document(**fields)))
        self.now += 1.0

    def sent(self, body: Any, **headers: str) -> Any:
        """What goes on; None: what came."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        assert self.limiter.wants(HEADERS | headers)
        change = self.limiter.change(HEADERS | headers, raw)
        return None if change is None else json.loads(change.body)


@pytest.fixture
def processor(tmp_path: Path) -> Processor:
    return Processor(tmp_path, class_header="x-class")


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        pytest.param({}, True, id="chat"),
        pytest.param({":path": "/v1/chat/completions?x=y"}, True, id="with-a-query"),
        pytest.param({":path": "/r1/v1/chat/completions"}, True, id="behind-a-prefix"),
        pytest.param({"content-type": "Application/JSON; charset=utf-8"}, True, id="with-a-charset"),
        pytest.param({"content-length": "1000000"}, True, id="as-large-as-allowed"),
        pytest.param({"content-length": "1000001"}, False, id="larger"),
        pytest.param({"content-length": "-1"}, False, id="no-length"),
        pytest.param({"content-encoding": "gzip"}, False, id="packed"),
        pytest.param({"content-type": "text/plain"}, False, id="not-json"),
        pytest.param({":path": "/v1/completions"}, False, id="another-path"),
        pytest.param({":method": "GET"}, False, id="another-method"),
    ],
)
def test_only_bodies_that_may_change_are_asked_for(processor: Processor, headers: dict[str, str], wanted: bool) -> None:
    processor.publish()
    assert processor.limiter.wants(HEADERS | headers) is wanted


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        pytest.param({}, True, id="in-a-shortage"),
        pytest.param({"validUntil": "2026-11-27T20:00:00Z"}, False, id="expired"),
        pytest.param({"thinkingTokens": None}, True, id="only-a-class-is-limited"),
        pytest.param({"thinkingTokens": None, "classes": {}}, False, id="no-limit"),
        pytest.param({"thinkingTokens": "many"}, False, id="broken"),
    ],
)
def test_without_a_limit_no_body_is_asked_for(processor: Processor, fields: dict[str, object], wanted: bool) -> None:
    assert not processor.limiter.wants(HEADERS), "nothing is published"
    processor.publish(**fields)
    assert processor.limiter.wants(HEADERS) is wanted


def test_a_request_gets_the_level_of_its_class_and_nothing_else_changes(processor: Processor) -> None:
    processor.publish()
    assert processor.sent(REQUEST) == REQUEST | {"thinking_token_budget": 1024}
    assert processor.sent(REQUEST, **{"x-class": "premium"}) == REQUEST | {"thinking_token_budget": 4096}
    assert processor.sent(REQUEST | {"thinking_token_budget": 5}) is None
    dodge = REQUEST | {"extra_body": {"thinking_token_budget": 5}}
    assert processor.sent(dodge) == dodge | {"thinking_token_budget": 1024}, "an engine does not look there"
    assert [outcome for _, outcome in processor.outcomes] == ["applied", "applied", "own", "applied"]


def test_a_class_in_a_header_is_not_believed_unless_it_is_said_to_be(tmp_path: Path) -> None:
    processor = Processor(tmp_path)
    processor.publish()
    assert processor.sent(REQUEST, **{"x-class": "premium", "": "premium"}) == REQUEST | {"thinking_token_budget": 1024}


def test_of_a_body_that_came_in_part_nothing_is_made(processor: Processor) -> None:
    processor.publish()
    assert processor.limiter.wants(HEADERS)
    assert processor.limiter.change(HEADERS, json.dumps(REQUEST).encode(), whole=False) is None
    assert processor.outcomes == [("", "large")]


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f'{{"model": "r1", {text}}}'.encode()))
def test_no_body_is_an_error(body: bytes) -> None:
    processor = Processor(Path(__file__).parent)  # a folder without documents
    processor.limiter._documents = {"x": Document.parse(json.dumps(document()))}
    change = processor.limiter.change(HEADERS, body)
    assert change is None or json.loads(change.body)["thinking_token_budget"] == 1024


def test_an_engine_that_takes_no_budgets_is_left_alone_for_five_minutes(
    processor: Processor, caplog: pytest.LogCaptureFixture
) -> None:
    def change() -> Any:
        processor.publish(validUntil="2026-11-28T20:00:00Z")
        assert processor.limiter.wants(HEADERS)
        return processor.limiter.change(HEADERS, json.dumps(REQUEST).encode())

    first = change()
    assert not processor.limiter.suspect(first, "500")
    assert processor.limiter.suspect(first, "400")
    processor.limiter.refused(first, b"messages must not be empty")
    assert change() is not None, "the error was about something else"
    processor.limiter.refused(first, b"thinking_token_budget is set but ...")
    assert "refused r1: the engine takes no thinking_token_budget" in caplog.text
    assert change() is None
    processor.now += 300.0
    assert change() is not None
    assert not processor.limiter.suspect(first, "200")
    assert not processor.limiter.suspect(first, "400"), "it took one a moment ago"


def test_a_line_of_the_log_comes_once_a_minute(processor: Processor, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        processor.publish(validUntil="2026-11-27T20:00:00Z")
        processor.limiter.wants(HEADERS)
    assert len(caplog.records) == 1
    processor.now += 60.0
    processor.limiter.wants(HEADERS)
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("env", "error"),
    [
        pytest.param({}, "LONGTAIL_EFFORT_PATH must be set", id="no-path"),
        pytest.param({"LONGTAIL_EFFORT_MAX_BODY_BYTES": "9000000"}, "at most 4000000", id="more-than-grpc-takes"),
        pytest.param({"LONGTAIL_EFFORT_ENGINE": "tgi"}, "LONGTAIL_EFFORT_ENGINE", id="an-unknown-engine"),
        pytest.param({"LONGTAIL_EFFORT_MODELS": "[]"}, "LONGTAIL_EFFORT_MODELS", id="models-of-another-shape"),
    ],
)
def test_a_mistake_in_a_variable_is_named(env: dict[str, str], error: str) -> None:
    path = {"LONGTAIL_EFFORT_PATH": "/x"} if env else {}
    with pytest.raises(ValueError, match=error):
        Settings.read(path | env)


def test_the_variables_are_those_of_the_hook() -> None:
    env = {
        "LONGTAIL_EFFORT_PATH": "/etc/longtail",
        "LONGTAIL_EFFORT_ENGINE": "sglang",
        "LONGTAIL_EFFORT_MODELS": '{"r1": {"service": "n/r1"}}',
        "LONGTAIL_EFFORT_CLASS_HEADER": "X-Class",
    }
    settings = Settings.read(env)
    assert (settings.path, settings.class_header) == (Path("/etc/longtail"), "x-class")
    assert (settings.engine, settings.models) == targets(env) == ("sglang", {"r1": Target("n/r1", "sglang")})


def test_what_is_mounted_is_a_file_or_a_folder_of_config_maps(tmp_path: Path) -> None:
    for name in ("a.json", ".hidden.json", "r1/effort.json", "r1/other.json", "r1/..data/effort.json"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    assert dict(mounted(tmp_path)) == {
        str(tmp_path / "a.json"): b"a.json",
        str(tmp_path / "r1/effort.json"): b"r1/effort.json",
    }
    assert dict(mounted(tmp_path / "a.json")) == {str(tmp_path / "a.json"): b"a.json"}
    with pytest.raises(FileNotFoundError):
        list(mounted(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("documents", "target", "choice"),
    [
        pytest.param([], None, None, id="nobodys-business"),
        pytest.param([], Target("n/r1"), "missing", id="named-and-not-published"),
        pytest.param([{}], None, Level("low", 1024, None), id="by-the-models-name"),
        pytest.param([{"model": None}], Target("n/r1"), Level("low", 1024, None), id="by-the-services-name"),
        pytest.param([{}], Target("n/other"), "missing", id="of-another-service"),
        pytest.param([{}, {"service": "n/other"}], None, "ambiguous", id="two-services"),
        pytest.param([{"thinkingTokens": None}], None, "unlimited", id="no-limit"),
        pytest.param([{"validUntil": "2026-11-27T20:00:00Z"}], None, "expired", id="expired-now"),
        pytest.param(
            [{"validUntil": "2026-11-27T20:00:00Z", "level": "old"}, {}],
            None,
            Level("low", 1024, None),
            id="the-newest",
        ),
    ],
)
def test_the_level_of_a_request(
    documents: list[dict[str, object]], target: Target | None, choice: Level | str | None
) -> None:
    parsed = [Document.parse(json.dumps(document(**each))) for each in documents]
    found = choose(parsed, model="r1", target=target, class_name="", now=NOW)
    if isinstance(choice, Level):
        assert found == Choice(choice)
    else:
        assert (found and found.outcome) == choice
