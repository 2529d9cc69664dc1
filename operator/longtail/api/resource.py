"""The resource as a whole: its names in the API, and the way from an object to a model."""

import json
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from longtail.api.schema import Model
from longtail.api.spec import ReasoningServingSpec
from longtail.api.status import ReasoningServingStatus
from longtail.errors import SpecError

GROUP: Final = "longtail.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "ReasoningServing"
PLURAL: Final = "reasoningservings"


class ReasoningServing(Model):
    """A pool of servers of a reasoning model, kept large enough for the tokens still owed, and no larger."""

    spec: ReasoningServingSpec
    """What the pool should be."""
    status: ReasoningServingStatus | None = None
    """What was last seen and decided."""


def read_spec(body: Mapping[str, Any]) -> ReasoningServingSpec:
    """The spec of an object as the API server gave it.

    Defaults are filled in again, because an object stored before a field existed does not have it.

    Raises:
        SpecError: a field is missing or wrong; the message names each field with its value.
    """
    try:
        # Through JSON: strict models take a list for a tuple and a word for an enum from JSON only.
        return ReasoningServingSpec.model_validate_json(json.dumps(body.get("spec", {})))
    except ValidationError as error:
        raise SpecError("; ".join(_sentences(error))) from None


def _sentences(error: ValidationError) -> Iterator[str]:
    faults = error.errors(include_url=False, include_context=False)
    for fault in faults:
        place = fault["loc"]
        if fault["type"] == "too_short" and any(each["loc"][:-1][: len(place)] == place for each in faults):
            continue  # pydantic counts what is left after dropping invalid items, which are reported already
        path = ".".join(("spec", *(str(part) for part in place if part not in _UNION_BRANCHES)))
        found = "" if fault["type"] in {"missing", "value_error"} else f", got {reprlib.repr(fault['input'])}"
        yield f"{path}: {fault['msg'].removeprefix('Value error, ')}{found}"


_UNION_BRANCHES: Final = frozenset({"constrained-int", "constrained-str"})
"""pydantic's names for the two sides of an integer-or-string, which are no fields."""
