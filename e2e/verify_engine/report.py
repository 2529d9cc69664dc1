"""What was compared, and with what outcome."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison."""

    what: str
    expected: Any
    seen: Any
    holds: bool


@dataclass
class Report:
    """Comparisons and figures of one engine."""

    engine: str
    version: str
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def equal(self, what: str, *, expected: Any, seen: Any) -> None:
        """Both must be the same."""
        self.checks.append(Check(what, expected, seen, expected == seen))

    def holds(self, what: str, *, expected: str, seen: Any, holds: bool) -> None:
        """Must hold; ``expected`` says it in words."""
        self.checks.append(Check(what, expected, seen, holds))

    @property
    def passed(self) -> bool:
        """True when every comparison holds, and there was one."""
        return bool(self.checks) and all(check.holds for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For printing."""
        return {**asdict(self), "passed": self.passed}
