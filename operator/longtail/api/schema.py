"""The base of every model of the resource, and the rules that models and the API server share.

A constraint that one field can express (a range, a length, a pattern) belongs to the field. A constraint
between fields is a `Rule`: written once, as CEL for the API server and as a Python predicate for everybody
who reads a resource without one (a stored object from before the rule existed, a file given to the
backtest). `tests/api/manifests.py` tries both sides against the same manifests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


@dataclass(frozen=True, slots=True)
class Rule:
    """One constraint between the fields of a model."""

    cel: str
    """Expression for the API server; ``self`` is the object, defaults applied."""
    message: str
    """What to do about it, naming the fields as users write them."""
    holds: Callable[[Any], bool]
    """The same constraint on the parsed model."""
    path: str | None = None
    """Field to blame, as the API server's ``fieldPath``; None blames the object."""


MAX_TEXT_LENGTH: Final = 1024


class Model(BaseModel):
    """Base of all models: camelCase outside, frozen, strict, blind to fields that it does not know.

    Strict, because the API server is: "5" is not 5. Blind, because an older operator must be able to read
    what a newer definition let in.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obeys_its_rules(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if cls.rules:
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = [
                {"rule": rule.cel, "message": rule.message} | ({"fieldPath": rule.path} if rule.path else {})
                for rule in cls.rules
            ]
        return schema


Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
"""Name of a Kubernetes object."""

Count = Annotated[int, Field(ge=0)]
"""A whole number of something, zero included. The API has no floats."""

Percent = Annotated[int, Field(ge=0, le=100)]
"""A share in whole percent."""


def _shortened(text: Any) -> Any:
    return f"{text[: MAX_TEXT_LENGTH - 1]}…" if isinstance(text, str) and len(text) > MAX_TEXT_LENGTH else text


Text = Annotated[str, Field(max_length=MAX_TEXT_LENGTH), BeforeValidator(_shortened)]
"""A sentence for people; cut rather than refused when it is too long, since a status must always get out."""

Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
"""A point in time, RFC 3339 in UTC, as Kubernetes writes it."""
