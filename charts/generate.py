"""Writes what the charts repeat: the definitions of ../crds as templates, and the tables of values in README.md.

Run by `make crds`; tests/charts checks that nothing is out of date.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

CHARTS: Final = Path(__file__).parent
CRDS: Final = CHARTS.parent / "crds"
_HEADER: Final = "{{- /* Generated from crds/ by `make crds`. Do not edit. */}}\n"
_LABELS: Final = """\
  labels:
    app.kubernetes.io/part-of: longtail
    app.kubernetes.io/managed-by: {{ .Release.Service }}
    {{- with .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
"""
_ANNOTATIONS: Final = """\
  {{- if or %(keep)s .Values.commonAnnotations }}
  annotations:
    {{- if %(keep)s }}
    helm.sh/resource-policy: keep
    {{- end }}
    {{- with .Values.commonAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
"""
_DESCRIPTION: Final = re.compile(r"^(?P<indent> *)# -- (?P<text>.*)$")
_COMMENT: Final = re.compile(r"^ *# ?(?P<text>.*)$")
_KEY: Final = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):")


def generated() -> dict[Path, str]:
    """Every file that is generated, as it should be."""
    files = {}
    for source in sorted(CRDS.glob("*.yaml")):
        definition = source.read_text(encoding="utf-8")
        files[CHARTS / "longtail/templates/crds" / source.name] = (
            _HEADER
            + "{{- if .Values.crds.install }}\n"
            + _template(definition, keep=".Values.crds.keep")
            + "{{- end }}\n"
        )
        files[CHARTS / "longtail-crds/templates" / source.name] = _HEADER + _template(definition, keep=".Values.keep")
    for chart in ("longtail", "longtail-crds"):
        readme = CHARTS / chart / "README.md"
        table = _table((CHARTS / chart / "values.yaml").read_text(encoding="utf-8"))
        before, begin, rest = readme.read_text(encoding="utf-8").partition("<!-- values: begin -->\n")
        _, end, after = rest.partition("<!-- values: end -->")
        files[readme] = before + begin + table + end + after
    return files


def _template(definition: str, *, keep: str) -> str:
    if "{{" in definition:
        raise ValueError("the definition holds {{, which Helm would take for a template")
    name = re.search(r"^  name: .*\n", definition, re.MULTILINE)
    if name is None:
        raise ValueError("the definition has no metadata.name")
    body = definition[definition.index("apiVersion:") :]
    head = name[0]
    return body.replace(head, head + _LABELS + _ANNOTATIONS % {"keep": keep}, 1)


def _table(text: str) -> str:
    values = yaml.safe_load(text)
    rows = [f"| `{key}` | {description} | `{_shown(_at(values, key))}` |" for key, description in _described(text)]
    return "\n".join(["| value | | default |", "|---|---|---|", *rows]) + "\n"


def _described(text: str) -> Iterator[tuple[str, str]]:
    """Dotted key and description of each value that has one."""
    path: list[str] = []
    description: list[str] = []
    for line in text.splitlines():
        if found := _DESCRIPTION.match(line):
            description = [found["text"]]
        elif description and (found := _COMMENT.match(line)):
            description.append(found["text"])
        elif found := _KEY.match(line):
            path = [*path[: len(found["indent"]) // 2], found["key"]]
            if description:
                yield ".".join(path), " ".join(description)
            description = []
        else:
            description = []


def _at(values: Mapping[str, Any], key: str) -> Any:
    value: Any = values
    for part in key.split("."):
        value = value[part]
    return value


def _shown(value: Any) -> str:
    return json.dumps(value).replace("|", "\\|")


def main() -> None:
    """Write the files."""
    for path, content in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path.relative_to(CHARTS.parent))


if __name__ == "__main__":
    main()
