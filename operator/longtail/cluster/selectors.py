"""Label selectors, as the API server evaluates them: which pods belong to a target.

Two spellings of the same thing: the structured one of a workload's ``spec.selector`` and the string one of
``status.selector`` on ``/scale``. Both become a ``Selector``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from longtail.errors import SpecError

_REQUIREMENT: Final = re.compile(
    r"\s*(?:(?P<set_key>[^\s!=,()]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)"
    r"|(?P<equal_key>[^\s!=,()]+)\s*(?P<sign>==|=|!=)\s*(?P<value>[^\s,()]*)"
    r"|(?P<negation>!?)\s*(?P<key>[^\s!=,()]+))\s*(?:,|$)"
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. ``values`` is empty for Exists and DoesNotExist."""

    key: str
    operator: str
    """In, NotIn, Exists or DoesNotExist."""
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels fulfil the condition; a label that is absent fulfils NotIn, as in Kubernetes."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class Selector:
    """All of its requirements must hold. Without any it would match every pod, so it matches none."""

    requirements: tuple[Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod with these labels is selected."""
        return bool(self.requirements) and all(requirement.holds(labels) for requirement in self.requirements)

    @property
    def pairs(self) -> Sequence[tuple[str, str]]:
        """Label pairs that every selected pod has: one look-up in an index instead of a scan."""
        return [
            (requirement.key, next(iter(requirement.values)))
            for requirement in self.requirements
            if requirement.operator == "In" and len(requirement.values) == 1
        ]


def from_object(selector: Mapping[str, Any]) -> Selector:
    """Read a structured selector (``matchLabels``, ``matchExpressions``).

    Raises:
        SpecError: an operator that Kubernetes does not know.
    """
    requirements = [
        Requirement(key=key, operator="In", values=frozenset((value,)))
        for key, value in (selector.get("matchLabels") or {}).items()
    ]
    for expression in selector.get("matchExpressions") or ():
        operator = expression.get("operator")
        if operator not in {"In", "NotIn", "Exists", "DoesNotExist"}:
            raise SpecError(f"selector: unknown operator {operator!r}")
        requirements.append(
            Requirement(key=expression["key"], operator=operator, values=frozenset(expression.get("values") or ()))
        )
    return Selector(tuple(requirements))


def from_string(selector: str) -> Selector:
    """Read a selector string.

    >>> from_string("app=r1,tier in (gpu, cpu),!canary").matches({"app": "r1", "tier": "gpu"})
    True

    Raises:
        SpecError: it is not a selector.
    """
    requirements = []
    position = 0
    while position < len(selector):
        found = _REQUIREMENT.match(selector, position)
        if found is None:
            raise SpecError(f"selector: {selector!r} cannot be read at {selector[position:]!r}")
        requirements.append(_requirement(found))
        position = found.end()
    return Selector(tuple(requirements))


def _requirement(found: re.Match[str]) -> Requirement:
    if found["set_key"]:
        values = frozenset(value.strip() for value in found["values"].split(","))
        return Requirement(key=found["set_key"], operator="In" if found["operator"] == "in" else "NotIn", values=values)
    if found["equal_key"]:
        operator = "NotIn" if found["sign"] == "!=" else "In"
        return Requirement(key=found["equal_key"], operator=operator, values=frozenset((found["value"],)))
    return Requirement(key=found["key"], operator="DoesNotExist" if found["negation"] else "Exists")
