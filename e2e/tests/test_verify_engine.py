"""The comparison with SGLang's wheel, on small wheels written here: it must be able to fail."""

import re
import zipfile
from pathlib import Path

import pytest

from longtail.signals import sglang
from longtail.signals.sources import LabelNames
from verify_engine.report import Report
from verify_engine.sglang_check import compare, read_wheel

_GAUGES = ("num_running_reqs", "num_queue_reqs", "kv_used_tokens", "max_total_num_tokens", "decode_sum_seq_lens")
_SOURCE = (
    'labels = {"model_name": model, "tp_rank": rank, "pp_rank": stage, "priority": ""}\n'
    'labels["dp_rank"] = dp\n'
    + "".join(f'Gauge(name="sglang:{name}", labelnames=labels.keys())\n' for name in _GAUGES)
    + """
Counter(name="sglang:realtime_tokens_total", labelnames=list(labels.keys()) + ["mode"])
Counter(name="sglang:num_retracted_requests", labelnames=labels.keys())
Counter(name="sglang:num_aborted_requests_total", labelnames=labels.keys())
Counter(name="sglang:http_requests_total", labelnames=["endpoint", "method"])
Histogram(name="sglang:generation_tokens_histogram", labelnames=labels.keys(), buckets=[1])
Histogram(name="sglang:prompt_tokens_histogram", labelnames=labels.keys(), buckets=[1])
Histogram(name="sglang:time_to_first_token_seconds", labelnames=[*labels.keys(), "is_streaming"], buckets=[1])
Histogram(name="sglang:queue_time_seconds", labelnames=labels.keys(), buckets=[1])
modes, routes, streaming = ["decode"], ["/generate"], ["true", "false"]
"""
)


def report_of(source: str, directory: Path) -> Report:
    wheel = directory / "sglang-0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sglang/srt/observability/metrics_collector.py", source)
    report = Report("sglang", "0")
    compare(report, read_wheel(wheel))
    return report


def test_a_wheel_that_defines_everything_passes(tmp_path: Path) -> None:
    assert [check.what for check in report_of(_SOURCE, tmp_path).checks if not check.holds] == []


def test_every_series_of_the_vocabulary_is_compared(tmp_path: Path) -> None:
    compared = {check.what for check in report_of(_SOURCE, tmp_path).checks}
    for part in sglang.parts(LabelNames()):
        assert set(re.findall(r"sglang:\w+", part.expression)) <= compared


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        pytest.param("sglang:num_queue_reqs", "sglang:queued", "sglang:num_queue_reqs", id="a-renamed-gauge"),
        pytest.param('"dp_rank"', '"data_rank"', "sglang:num_running_reqs: label dp_rank", id="a-renamed-label"),
        pytest.param(
            'Histogram(name="sglang:queue', 'Gauge(name="sglang:queue', "sglang:queue_time_seconds_bucket", id="a-kind"
        ),
        pytest.param('["decode"]', '["output"]', "sglang:realtime_tokens_total: a value of mode", id="a-label-value"),
    ],
)
def test_a_change_in_the_wheel_is_told_by_name(tmp_path: Path, old: str, new: str, what: str) -> None:
    report = report_of(_SOURCE.replace(old, new), tmp_path)
    assert not report.passed
    assert any(check.what.startswith(what) for check in report.checks if not check.holds)
