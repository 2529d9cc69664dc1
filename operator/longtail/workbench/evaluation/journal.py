"""Runs that have been made, one JSON object a line, so that a sweep goes on where it was stopped.

A run is found again by everything that it depends on: the digest of its case, policy, knob, seed, and the digest of
the code that made it. A line that was cut off when the process died is skipped.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import longtail
from longtail.workbench.evaluation.rows import Row

_CODE = ("demand", "policy", "workbench/fleet", "workbench/peers")


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Twelve hexadecimal digits that change whenever anything that decides or simulates does."""
    root = Path(next(iter(longtail.__path__)))
    digest = hashlib.sha256()
    for folder in _CODE:
        for source in sorted((root / folder).glob("*.py")):
            digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:12]


class Journal:
    """Lines of a file, and what they say. Without a path, nothing outlives the process."""

    def __init__(self, path: Path | None) -> None:
        """Read what is there."""
        self._path = path
        self._known: dict[str, Any] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self._known[entry["key"]] = entry["value"]
        except (json.JSONDecodeError, KeyError, TypeError):
            return

    def find(self, key: Mapping[str, Any]) -> Any | None:
        """What was said of a key; None where nothing was."""
        return self._known.get(_text(key))

    def find_row(self, key: Mapping[str, Any]) -> Row | None:
        """The row of a key; None where there is none, or one of another version of longtail."""
        value = self.find(key)
        try:
            return None if value is None else Row.from_json(value)
        except TypeError:
            return None

    def add(self, key: Mapping[str, Any], value: Row | Sequence[float]) -> None:
        """Remember, and write it down at once."""
        text, plain = _text(key), asdict(value) if isinstance(value, Row) else list(value)
        self._known[text] = plain
        entry = {"key": text, "value": plain}
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
