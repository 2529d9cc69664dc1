"""The charts repeat what stands elsewhere, and none of it is out of date."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHARTS = ("longtail", "longtail-crds")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "charts/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_definitions_and_tables_are_up_to_date(generator: ModuleType) -> None:
    stale = [path.name for path, text in generator.generated().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make crds`"


def test_every_definition_is_in_both_charts(generator: ModuleType) -> None:
    names = {path.name for path in (ROOT / "crds").glob("*.yaml")}
    assert {path.name for path in (ROOT / "charts/longtail/templates/crds").iterdir()} == names
    assert {path.name for path in (ROOT / "charts/longtail-crds/templates").iterdir()} == names


@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_is_of_the_version_of_the_operator(chart: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text())["appVersion"] == project["version"]


@pytest.mark.parametrize("chart", CHARTS)
def test_every_value_is_described_and_in_the_schema(chart: str, generator: ModuleType) -> None:
    folder = ROOT / "charts" / chart
    values = yaml.safe_load((folder / "values.yaml").read_text())
    schema = json.loads((folder / "values.schema.json").read_text())
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) - {"global"} == set(values)
    described = {key.split(".")[0] for key, _ in generator._described((folder / "values.yaml").read_text())}
    assert described == set(values)


def test_no_description_is_lost_in_the_table(generator: ModuleType) -> None:
    text = (ROOT / "charts/longtail/values.yaml").read_text()
    assert len(re.findall(r"^ *# -- ", text, re.MULTILINE)) == len(list(generator._described(text)))
