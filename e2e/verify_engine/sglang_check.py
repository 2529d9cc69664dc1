"""SGLang's published wheel: each name and label that our vocabulary asks for must be defined in it.

The wheel is downloaded, read, and thrown away; SGLang is neither installed nor imported.
"""

from __future__ import annotations

import ast
import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from longtail.signals import sglang
from longtail.signals.sources import LabelNames
from longtail_e2e.progress import Progress
from longtail_e2e.python import uv
from verify_engine.environment import run
from verify_engine.report import Report

SGLANG_VERSION: Final = "0.5.23"

_KINDS: Final = ("Counter", "Gauge", "Histogram")
_METRIC: Final = re.compile(r'(sglang:\w+)(?:\{([^}"]*(?:"[^"]*"[^}"]*)*)\})?')
_MATCHER: Final = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_BY: Final = re.compile(r"by \(([^)]*)\)")
_ADDED_BY_PROMETHEUS: Final = frozenset({"namespace", "pod", "le"})


@dataclass
class Definition:
    """One metric as the wheel defines it."""

    kind: str
    labels: set[str] = field(default_factory=set)
    """Those spelled out beside the common ones."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What the exposition appends to the name; nothing where Prometheus stores a native histogram."""
        return ("_bucket", "_count", "_sum", "") if self.kind == "Histogram" else ("",)


@dataclass
class Wheel:
    """What the sources of the wheel say."""

    metrics: dict[str, Definition] = field(default_factory=dict)
    label_keys: set[str] = field(default_factory=set)
    """Keys of every dict called ``labels``: the common labels."""
    texts: set[str] = field(default_factory=set)
    """All string constants: values of labels, routes."""


def check_sglang(*, progress: Progress) -> Report:
    """Download the wheel and compare."""
    report = Report("sglang", SGLANG_VERSION)
    with tempfile.TemporaryDirectory(prefix="longtail-sglang-") as directory:
        progress("sglang", f"downloading the wheel of {SGLANG_VERSION}")
        platform = ("--platform", "manylinux_2_34_x86_64", "--python-version", "3.12", "--only-binary", ":all:")
        wanted = f"sglang=={SGLANG_VERSION}"
        pip = (uv(), "tool", "run", "pip", "download", "--quiet", "--no-deps")
        run(*pip, *platform, "--dest", directory, wanted, what="downloading SGLang's wheel")
        wheel = read_wheel(next(Path(directory).glob("sglang-*.whl")))
    compare(report, wheel)
    progress("sglang", f"{len(report.checks)} names and labels compared", done=True)
    return report


def read_wheel(path: Path) -> Wheel:
    """Parse the modules that define metrics and routes."""
    wheel = Wheel()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".py") and name.startswith(("sglang/srt/observability/", "sglang/srt/entrypoints/")):
                _read_module(wheel, ast.parse(archive.read(name)))
    return wheel


def compare(report: Report, wheel: Wheel) -> None:
    """Every series, label and label value of our vocabulary, against the wheel."""
    exposed = {name + suffix: found for name, found in wheel.metrics.items() for suffix in found.suffixes}
    for part in sglang.parts(LabelNames()):
        grouped = {label.strip() for group in _BY.findall(part.expression) for label in group.split(",")}
        for name, matchers in _METRIC.findall(part.expression):
            found = exposed.get(name)
            report.holds(name, expected="defined", seen=found.kind if found else None, holds=found is not None)
            if found is None:
                continue
            known = found.labels | wheel.label_keys
            asked = dict(_MATCHER.findall(matchers))
            for label in sorted((grouped | asked.keys()) - _ADDED_BY_PROMETHEUS):
                report.holds(f"{name}: label {label}", expected="defined", seen=label in known, holds=label in known)
            for label, pattern in asked.items():
                values = sorted(text for text in wheel.texts if re.fullmatch(pattern, text))
                report.holds(
                    f"{name}: a value of {label} like {pattern!r}", expected="used", seen=values, holds=bool(values)
                )
    report.figures["metrics_defined"] = len(wheel.metrics)


def _read_module(wheel: Wheel, tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            wheel.texts.add(node.value)
        elif isinstance(node, ast.Call):
            _read_call(wheel, node)
        elif isinstance(node, ast.Assign):
            wheel.label_keys |= set(_label_keys(node))


def _read_call(wheel: Wheel, call: ast.Call) -> None:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    kind = call.func.id if isinstance(call.func, ast.Name) else ""
    name = keywords.get("name")
    if kind not in _KINDS or not isinstance(name, ast.Constant) or not isinstance(name.value, str):
        return
    # prometheus_client exposes a counter with _total, whether or not its name has it.
    text = name.value if kind != "Counter" else name.value.removesuffix("_total") + "_total"
    labels = keywords.get("labelnames")
    wheel.metrics[text] = Definition(kind, set(_texts(labels)) if labels is not None else set())


def _label_keys(node: ast.Assign) -> Iterator[str]:
    for target in node.targets:
        if isinstance(target, ast.Name) and target.id == "labels" and isinstance(node.value, ast.Dict):
            yield from (text for key in node.value.keys if key is not None for text in _texts(key))
        if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and target.value.id == "labels":
            yield from _texts(target.slice)


def _texts(node: ast.AST) -> Iterator[str]:
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value
