"""Fields of a resource by their path: given on the command line, or tried by a backtest."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, get_args

import yaml

from longtail.api.resource import read_spec
from longtail.api.schema import Model
from longtail.api.spec import ReasoningServingSpec
from longtail.errors import SpecError


def parse_field(text: str) -> tuple[str, Any]:
    """Path and value of ``spec.minReplicas=3``; the value is read as YAML.

    Raises:
        SpecError: it is not of this form.

    >>> parse_field("spec.objective.attainmentPercent=95")
    ('spec.objective.attainmentPercent', 95)
    """
    path, equals, value = text.partition("=")
    if not equals or not path.startswith("spec.") or not all(path.split(".")):
        raise SpecError(f"--set {text}: want spec.FIELD=VALUE, such as spec.objective.attainmentPercent=95")
    try:
        return path, yaml.safe_load(value)
    except yaml.YAMLError as unreadable:
        raise SpecError(f"--set {text}: the value is not YAML: {unreadable}") from unreadable


def apply_fields(body: Mapping[str, Any], fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The resource with other values, in mode Advise so that it is looked at whatever its own is.

    Raises:
        SpecError: the result cannot be used; names field and value.
    """
    changed = deepcopy(dict(body))
    spec = changed.setdefault("spec", {})
    for path, value in fields:
        _must_exist(path)
        *parents, last = path.split(".")[1:]
        block = spec
        for parent in parents:
            block = block.setdefault(parent, {})
            if not isinstance(block, dict):
                raise SpecError(f"{path}: {parent} is {block!r} and has no fields")
        block[last] = value
    spec["mode"] = "Advise"
    read_spec(changed)
    return changed


def _must_exist(path: str) -> None:
    """An API server drops a field that it does not know; here it would be one that was misspelt and had no effect."""
    model: Any = ReasoningServingSpec
    for name in path.split(".")[1:]:
        fields = getattr(model, "model_fields", {})
        found = next((field for key, field in fields.items() if name in {key, field.alias}), None)
        if found is None:
            known = ", ".join(sorted(field.alias or key for key, field in fields.items()))
            raise SpecError(f"{path}: there is no field {name!r}" + (f", only {known}" if known else ""))
        model = next((arg for arg in (*get_args(found.annotation), found.annotation) if _is_model(arg)), None)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Model)


def small_grid(spec: ReasoningServingSpec) -> Iterator[tuple[str, Any]]:
    """Other values of the fields that weigh cost against waiting, one at a time."""
    tried: dict[str, tuple[Sequence[int], int | None]] = {
        "spec.objective.attainmentPercent": ((90, 95, 97, 99), spec.objective.attainment_percent),
        "spec.minReplicas": (
            (1, max(spec.min_replicas // 2, 1), spec.min_replicas + 1, 2 * spec.min_replicas),
            spec.min_replicas,
        ),
        "spec.maxReplicas": ((2 * spec.max_replicas,), spec.max_replicas),
        "spec.behavior.scaleDown.stabilizationWindowSeconds": (
            (0, 60, 120, 300, 900, 1800),
            spec.behavior.scale_down.stabilization_window_seconds,
        ),
    }
    for path, (values, present) in tried.items():
        for value in sorted(set(values) - {present}):
            yield path, value
