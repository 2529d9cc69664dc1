"""What longtail publishes for gateways, made by hand: a shortage, in a file as it is mounted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

WISHES: Final[Mapping[str, tuple[Mapping[str, int], int]]] = {
    "who-asks-for-nothing-gets-the-level": ({}, 1024),
    "who-asks-for-less-keeps-it": ({"thinking_token_budget": 512}, 512),
    "who-asks-for-more-gets-the-level": ({"thinking_token_budget": 3000}, 1024),
    "no-limit-is-no-wish": ({"thinking_token_budget": -1}, 1024),
    "who-does-not-want-to-think-does-not": ({"thinking_token_budget": 0}, 0),
}
"""Fields of a request, and the tokens that it may think in the shortage, whatever the gateway."""


def document(*, seconds: float = 600.0, **fields: object) -> dict[str, Any]:
    """A shortage: everybody thinks 1,024 tokens, premium 2,048."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    return {
        "service": "inference/r1",
        "model": None,
        "level": "low",
        "thinkingTokens": 1024,
        "reasoningEffort": "low",
        "validUntil": until.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "generation": 17,
        "classes": {"premium": {"level": "medium", "thinkingTokens": 2048, "reasoningEffort": None}},
        **fields,
    }


class Published:
    """A mounted ConfigMap's file. It is changed as the kubelet does it: at once, by a rename."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def write(self, body: object) -> None:
        """Put a document there, or some other text."""
        fresh = self.file.with_name(".fresh")
        fresh.write_text(body if isinstance(body, str) else json.dumps(body))
        fresh.rename(self.file)
        self._settle()

    def remove(self) -> None:
        """Let there be none."""
        self.file.unlink(missing_ok=True)
        self._settle()

    @staticmethod
    def _settle() -> None:
        # The hook looks five times a second.
        time.sleep(0.25)
