"""Writing PromQL: names are checked and values escaped, because some of them come from users."""

import re
from collections.abc import Iterable
from typing import Final

from longtail.errors import SpecError

PART_LABEL: Final = "longtail_part"
"""Label that tells, in the answer to a union, which part of the union a sample belongs to."""

NATIVE_LABEL: Final = "longtail_native"
"""Label of our own on a sample taken out of a native histogram: which of its figures it is."""

_METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def metric_name(value: str, *, field: str) -> str:
    """The name, if it is one.

    Raises:
        SpecError: it is not a Prometheus metric name; the message names the field.

    >>> metric_name("vllm:num_requests_running", field="engine.metrics.running")
    'vllm:num_requests_running'
    """
    if not _METRIC_NAME.fullmatch(value):
        raise SpecError(f"{field}: {value!r} is not a Prometheus metric name")
    return value


def quoted(value: str) -> str:
    r"""A PromQL string with this value.

    >>> print(quoted('a"b\\c'))
    "a\"b\\c"
    """
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def aggregated(operator: str, expression: str, by: Iterable[str]) -> str:
    """An aggregation.

    >>> aggregated("sum", "up", ["namespace", "", "pod"])
    'sum by (namespace, pod) (up)'
    """
    return f"{operator} by ({', '.join(label for label in by if label)}) ({expression})"


def histogram(metric: str, suffix: str, by: Iterable[str], *, selector: str = "") -> str:
    """A figure of a histogram, classic or native: the series ``metric_suffix``, or the histogram itself.

    A Prometheus that converts classic histograms at scrape (``convert_classic_histograms_to_nhcb``) keeps only the
    latter; its answer is taken apart by us. Where both are there, the classic sum and count stand, and buckets agree.

    >>> histogram("ttft", "count", ["pod"])
    '(sum by (pod) (ttft_count) or sum by (pod) (ttft))'
    """
    labels = list(by)
    classic = aggregated("sum", f"{metric}_{suffix}{selector}", [*labels, "le"] if suffix == "bucket" else labels)
    return f"({classic} or {aggregated('sum', f'{metric}{selector}', labels)})"


def union(parts: Iterable[tuple[str, str]]) -> str:
    """One expression out of (tag, expression) pairs: each sample carries its tag in ``PART_LABEL``.

    ``or`` drops a sample of the right side only if the left has one with the same labels; the tags differ, so
    every sample survives.
    """
    return " or ".join(
        f'label_replace({expression}, "{PART_LABEL}", {quoted(tag)}, "", "")' for tag, expression in parts
    )


_WORDS: Final = frozenset({"sum", "max", "min", "avg", "count", "or", "and", "unless", "on", "ignoring", "without"})
_TOKEN: Final = re.compile(
    r"""(?P<skip>"(?:[^"\\]|\\.)*"|by\ \([^)]*\)|[0-9][0-9.eE]*)
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?P<call>\()?(?P<braces>\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?""",
    re.VERBOSE,
)


def narrowed(expression: str, matchers: str) -> str:
    """An expression of ours, with further matchers on every series in it.

    >>> narrowed('sum by (pod) (a_total{mode="x"}) or max by (pod) (time() - timestamp(b:c))', 'pod="p"')
    'sum by (pod) (a_total{mode="x",pod="p"}) or max by (pod) (time() - timestamp(b:c{pod="p"}))'
    """

    def narrow(found: re.Match[str]) -> str:
        name, braces = found["name"], found["braces"]
        if found["skip"] or found["call"] or name in _WORDS:
            return found[0]
        inside = f"{braces[1:-1]}," if braces and braces != "{}" else ""
        return f"{name}{{{inside}{matchers}}}"

    return _TOKEN.sub(narrow, expression)
