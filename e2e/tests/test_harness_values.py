"""The values that the harness makes: KWOK's annotations, Prometheus' targets, what a person sees."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from longtail_e2e import PrintedProgress, Target, build, startup_annotations
from longtail_e2e.prometheus import target_group

DELAY = "{}.stage.kwok.x-k8s.io/delay"
JITTER = "{}.stage.kwok.x-k8s.io/jitter-delay"


def test_a_fixed_delay_has_its_jitter_at_the_delay() -> None:
    # KWOK reads the jitter as the upper end of the draw: 0 would mean "at once".
    annotations = startup_annotations(create_seconds=1.5, ready_seconds=60)
    assert annotations == {
        DELAY.format("pod-create"): "1500ms",
        JITTER.format("pod-create"): "1500ms",
        DELAY.format("pod-ready"): "60000ms",
        JITTER.format("pod-ready"): "60000ms",
    }


def test_a_drawn_delay_lies_between_its_two_ends() -> None:
    annotations = startup_annotations(ready_seconds=60, ready_seconds_at_most=90)
    assert annotations[DELAY.format("pod-ready")] == "60000ms"
    assert annotations[JITTER.format("pod-ready")] == "90000ms"


@pytest.mark.parametrize(
    "delays",
    [
        pytest.param({"ready_seconds": -1}, id="negative"),
        pytest.param({"ready_seconds": 60, "ready_seconds_at_most": 30}, id="upper end below the lower"),
    ],
)
def test_an_impossible_delay_is_refused(delays: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="pod-ready: a delay from"):
        startup_annotations(**delays)


def test_a_target_is_its_url_taken_apart_and_its_labels() -> None:
    target = Target(url="http://127.0.0.1:9000/pods/a/metrics?engine=0", labels={"namespace": "n", "pod": "a"})
    assert target_group(target) == {
        "targets": ["127.0.0.1:9000"],
        "labels": {
            "__scheme__": "http",
            "__metrics_path__": "/pods/a/metrics",
            "__param_engine": "0",
            "namespace": "n",
            "pod": "a",
        },
    }


def test_a_target_without_a_host_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'/pods/a': want http://HOST:PORT/PATH"):
        target_group(Target(url="/pods/a"))


def test_progress_in_a_log_is_a_line_at_the_start_and_one_at_the_end() -> None:
    out = io.StringIO()
    progress = PrintedProgress(out)
    for package in range(100):
        progress("Building", f"package {package} of 100")
    progress("Building", done=True)
    assert out.getvalue().splitlines() == ["Building: package 0 of 100", "Building (0 s)"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_one_line_rewritten_in_place() -> None:
    out = Terminal()
    progress = PrintedProgress(out)
    progress("Building", "package 1 of 2")
    progress("Building", "package 2 of 2")
    progress("Building", done=True)
    assert out.getvalue() == (
        "\rBuilding: package 1 of 2 (0 s)\x1b[K\rBuilding: package 2 of 2 (0 s)\x1b[K\rBuilding (0 s)\x1b[K\n"
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({"LONGTAIL_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a", id="our own setting wins"),
        pytest.param({"XDG_CACHE_HOME": "/b"}, "/b/longtail", id="the desktop standard"),
        pytest.param({"HOME": "/c"}, "/c/.cache/longtail", id="its default"),
    ],
)
def test_the_cache_lies_outside_the_checkout(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LONGTAIL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert build.cache_directory() == Path(expected)


def test_only_linux_can_run_the_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert build.unavailable() == "the components of the cluster are built and tried on Linux only, this is darwin"


def test_without_go_the_reason_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.unavailable() is not None
    assert "no `go` command on the PATH" in str(build.unavailable())
