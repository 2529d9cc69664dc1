from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

from longtail.api import crd
from longtail.api.schema import Model

CRDS = Path(__file__).parents[2] / "crds"
SCHEMA = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

Node = dict[str, Any]


def nodes(schema: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


NODES = [pytest.param(node, id=path or ".") for path, node in nodes(SCHEMA)]
OURS = [param for param in NODES if param.id not in {".", ".metadata"} and not str(param.id).endswith("[]")]


def test_the_checked_in_definitions_are_up_to_date() -> None:
    rendered = crd.render_crds()
    on_disk = {path.name: path.read_text(encoding="utf-8") for path in CRDS.glob("*.yaml")}
    assert on_disk == rendered, "run `make crds`"


def test_the_file_says_what_the_code_says() -> None:
    for text in crd.render_crds().values():
        assert yaml.safe_load(text) == crd.definition()


def test_the_definition_fits_into_the_annotation_of_a_client_side_apply() -> None:
    # kubectl apply keeps a copy in an annotation, which holds 262,144 bytes; keep a good distance.
    for text in crd.render_crds().values():
        assert len(text.encode()) < 200_000


@pytest.mark.parametrize("node", OURS)
def test_every_field_is_explained_in_a_sentence(node: Node) -> None:
    assert node["description"].endswith(".")
    assert "\n" not in node["description"]


@pytest.mark.parametrize("node", NODES)
def test_everything_is_bounded(node: Node) -> None:
    if node.get("type") == "array":
        assert "maxItems" in node
        assert "x-kubernetes-list-type" in node
    if node.get("type") == "string" and "enum" not in node and node not in _HEAD:
        assert node["maxLength"] <= 1024
    if "x-kubernetes-int-or-string" in node:
        assert node["maxLength"] <= 64


@pytest.mark.parametrize("node", NODES)
def test_only_structural_words_are_used(node: Node) -> None:
    assert not node.keys() & {
        "$ref",
        "$defs",
        "title",
        "const",
        "oneOf",
        "allOf",
        "not",
        "additionalProperties",
    }
    assert node.get("type") != "number"
    assert "x-kubernetes-preserve-unknown-fields" not in node
    assert ("anyOf" in node) == ("x-kubernetes-int-or-string" in node)
    assert ("type" in node) != ("x-kubernetes-int-or-string" in node)


def test_defaults_are_in_the_schema_at_every_level() -> None:
    spec = SCHEMA["properties"]["spec"]["properties"]
    assert spec["objective"]["default"] == {}
    assert spec["objective"]["properties"]["queueWaitSeconds"]["default"] == 10
    assert "default" not in spec["behavior"]["properties"]["scaleDown"]["properties"]["stabilizationWindowSeconds"]
    assert spec["behavior"]["properties"]["scaleUp"]["properties"]["policies"]["default"] == [
        {"type": "Percent", "value": 100, "periodSeconds": 15},
        {"type": "Pods", "value": 4, "periodSeconds": 15},
    ]


def test_conditions_merge_by_type() -> None:
    conditions = SCHEMA["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert "type" in conditions["items"]["required"]


def test_every_rule_between_fields_has_a_message_that_names_one_of_them() -> None:
    rules = [(path, rule) for path, node in nodes(SCHEMA) for rule in node.get("x-kubernetes-validations", [])]
    assert len(rules) == 10
    for path, rule in rules:
        fields = dict(nodes(SCHEMA))[path]["properties"]
        assert any(name in rule["message"] for name in fields), rule


def test_columns_read_fields_that_exist() -> None:
    paths = {path for path, _ in nodes(SCHEMA)} | {".metadata.creationTimestamp"}
    for column in crd.definition()["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = column["jsonPath"]
        plain = f"{path[: path.index('[')]}[]{path[path.index(']') + 1 :]}" if "[" in path else path
        assert plain in paths


class Leaf(Model):
    """A leaf."""

    size: int = 3
    """Size."""


def rewritten(**fields: Any) -> Node:
    model: type[Model] = type("Tree", (Model,), {"__annotations__": fields, "__module__": __name__})
    return crd.structural(model.model_json_schema())


def test_a_reference_is_inlined_and_the_words_beside_it_win() -> None:
    schema = rewritten(leaf=Annotated[Leaf, Field(description="The leaf of the tree.")])
    assert schema["properties"]["leaf"] == {
        "description": "The leaf of the tree.",
        "type": "object",
        "properties": {"size": {"type": "integer", "format": "int64", "default": 3, "description": "Size."}},
    }


def test_an_optional_field_is_the_field_without_null() -> None:
    schema = rewritten(size=Annotated[Annotated[int, Field(ge=1, le=9)] | None, Field(default=None)])
    assert schema["properties"]["size"] == {"type": "integer", "format": "int32", "minimum": 1, "maximum": 9}
    assert "required" not in schema


@pytest.mark.parametrize(
    ("annotation", "word"),
    [
        pytest.param(dict[str, int], "additionalProperties", id="map"),
        pytest.param(Literal["one"], "const", id="const"),
        pytest.param(Annotated[int, Field(gt=0)], "exclusiveMinimum", id="exclusive-bound"),
        pytest.param(set[int], "uniqueItems", id="set"),
    ],
)
def test_what_has_no_structural_counterpart_is_refused(annotation: Any, word: str) -> None:
    with pytest.raises(ValueError, match=rf"^\.field: '{word}' has no structural counterpart"):
        rewritten(field=annotation)


def test_a_union_of_other_types_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^\.field: a union of types"):
        rewritten(field=int | bool)


def test_an_optional_field_with_a_default_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^\.field: an optional field with a default cannot be unset"):
        rewritten(field=Annotated[int | None, Field(default=3)])


def test_a_default_that_the_api_server_would_not_fill_in_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^\.field: the default"):
        rewritten(field=Annotated[Leaf, Field(default=Leaf(size=4))])


class Branch(Model):
    """A branch of branches."""

    branches: Annotated[tuple["Branch", ...], Field(max_length=2)] = ()
    """More of them."""


def test_a_model_that_contains_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="Branch contains itself"):
        rewritten(branch=Branch)


_HEAD = (SCHEMA["properties"]["apiVersion"], SCHEMA["properties"]["kind"])
