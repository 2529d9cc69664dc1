"""Answers about the past, kept on disk: a long reading that broke off goes on where it was, and a second one is quick.

What is kept is what the source said in full, of times that do not change any more. The pieces of a reading are the
same from run to run (see ``history``), so nothing but the source, the question and its times is needed to find one.
"""

import gzip
import hashlib
import json
import os
from pathlib import Path

from longtail.errors import SettingsError
from longtail.signals.exchange import Answer
from longtail.signals.history import Ranges


class Archive:
    """Range queries, answered from a directory where they were answered before."""

    def __init__(self, ranges: Ranges, directory: Path, *, source: str, settled_before_seconds: float) -> None:
        """Prepare.

        Args:
            ranges: who answers what is not kept yet.
            directory: made where it is not there.
            source: what tells one source from another, such as its URL.
            settled_before_seconds: pieces that end later than this are asked for each time.

        Raises:
            SettingsError: the directory cannot be made.
        """
        self._ranges = ranges
        self._directory = directory
        self._source = source
        self._settled = settled_before_seconds
        self.hits = 0
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as failed:
            raise SettingsError(f"cache directory {directory}: {failed}") from failed

    async def query_range(self, promql: str, start_seconds: int, end_seconds: int, step_seconds: int) -> Answer:
        """The matrix, as the source gave it now or then.

        Raises:
            MetricsError: see `Ranges`.
        """
        question = json.dumps([self._source, promql, start_seconds, end_seconds, step_seconds])
        path = self._directory / f"{hashlib.sha256(question.encode()).hexdigest()}.json.gz"
        kept = _read(path)
        if kept is not None:
            self.hits += 1
            return kept
        answer = await self._ranges.query_range(promql, start_seconds, end_seconds, step_seconds)
        if not answer.warnings and end_seconds <= self._settled:
            _write(path, answer)
        return answer


def _read(path: Path) -> Answer | None:
    """None where nothing is kept, or where what is kept is damaged."""
    try:
        result = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError):
        return None
    return Answer(result) if isinstance(result, list) else None


def _write(path: Path, answer: Answer) -> None:
    """Whole or not at all: a run that is interrupted here leaves no half answer."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(gzip.compress(json.dumps(answer.result).encode(), compresslevel=1))
    partial.replace(path)
