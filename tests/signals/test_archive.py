"""Answers kept on disk: asked once, never half, never for ever what may still change."""

import os
from pathlib import Path

import pytest

from longtail.errors import SettingsError
from longtail.signals.archive import Archive
from longtail.signals.exchange import Answer
from longtail.signals.promql import narrowed
from longtail.signals.reader import queries
from longtail.signals.sources import LabelNames

from .points import pod, service


class Counting:
    """Answers anything, and counts."""

    def __init__(self, warnings: tuple[str, ...] = ()) -> None:
        self.asked = 0
        self.warnings = warnings

    async def query_range(self, promql: str, start_seconds: int, end_seconds: int, step_seconds: int) -> Answer:
        self.asked += 1
        return Answer([{"metric": {"q": promql}, "values": [[start_seconds, str(self.asked)]]}], self.warnings)


def archive(ranges: Counting, directory: Path, *, source: str = "a", settled: float = 1000.0) -> Archive:
    return Archive(ranges, directory, source=source, settled_before_seconds=settled)


async def test_what_was_answered_once_is_not_asked_again(tmp_path: Path) -> None:
    ranges = Counting()
    first = await archive(ranges, tmp_path).query_range("up", 0, 60, 15)
    assert await archive(ranges, tmp_path).query_range("up", 0, 60, 15) == first
    assert ranges.asked == 1


@pytest.mark.parametrize(
    ("source", "question"),
    [
        pytest.param("b", ("up", 0, 60, 15), id="source"),
        pytest.param("a", ("down", 0, 60, 15), id="query"),
        pytest.param("a", ("up", 15, 60, 15), id="start"),
        pytest.param("a", ("up", 0, 75, 15), id="end"),
        pytest.param("a", ("up", 0, 60, 30), id="step"),
    ],
)
async def test_another_question_is_another_answer(tmp_path: Path, source: str, question) -> None:
    ranges = Counting()
    await archive(ranges, tmp_path).query_range("up", 0, 60, 15)
    await archive(ranges, tmp_path, source=source).query_range(*question)
    assert ranges.asked == 2


@pytest.mark.parametrize(
    ("warnings", "settled"), [pytest.param(("x",), 1000.0, id="partial"), pytest.param((), 59.0, id="young")]
)
async def test_what_is_not_whole_or_may_change_is_asked_again(tmp_path: Path, warnings, settled) -> None:
    ranges = Counting(warnings)
    for _ in range(2):
        await archive(ranges, tmp_path, settled=settled).query_range("up", 0, 60, 15)
    assert ranges.asked == 2
    assert not os.listdir(tmp_path)  # noqa: PTH208


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x1f\x8b\x08\x00"])
async def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    ranges = Counting()
    await archive(ranges, tmp_path).query_range("up", 0, 60, 15)
    (kept,) = (tmp_path / name for name in os.listdir(tmp_path))  # noqa: PTH208
    kept.write_bytes(damage)
    for _ in range(2):
        await archive(ranges, tmp_path).query_range("up", 0, 60, 15)
    assert ranges.asked == 2


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="file/cache"):
        archive(Counting(), tmp_path / "file" / "cache")


def test_every_series_of_every_query_is_narrowed() -> None:
    for query in queries([service(pod("a"), inference_pool="pool")], LabelNames()):
        for part in query.parts:
            inside = narrowed(part.expression, 'pod="x"')
            names = [word for word in ("vllm:", "sglang:", "DCGM_FI") for _ in range(inside.count(word))]
            if names:
                assert inside.count('pod="x"') == len(names), inside
            assert narrowed(part.expression, "").count("(") == part.expression.count("(")
