"""The components are built once, a flaky download is tried again, and what fails leaves nothing half-done.

A stand-in for the `go` command fails where the real one cannot be made to; the real one is tried by every test that
needs a cluster.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from longtail_e2e import BuildError, ensure_components
from longtail_e2e.progress import silent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the components are built on Linux only")

STAND_IN = """\
#!{python}
import json, os, pathlib, sys
calls = pathlib.Path({folder!r}, "calls")
verb = sys.argv[1]
with calls.open("a") as file:
    print(verb, file=file)
times = calls.read_text().split().count(verb)
if times <= int(os.environ.get("FAIL_" + verb.upper(), "0")):
    sys.exit("go: lookup proxy: connection refused")
if verb == "list":
    print("fmt\\nexample.org/main")
if verb == "build":
    print("fmt\\nexample.org/main")
    (pathlib.Path(sys.argv[sys.argv.index("-o") + 1]) / "components").write_text("binary")
if verb == "mod":
    print(json.dumps({{"Dir": {folder!r}}}))
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The verbs the stand-in was called with, in a file; it is the only `go`, and its cache is empty."""
    stand_in = tmp_path / "bin" / "go"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN.format(python=sys.executable, folder=str(tmp_path)))
    stand_in.chmod(0o755)
    for stage in ("node/fast/node-initialize", "node/heartbeat-with-lease/node-heartbeat-with-lease"):
        write_stage(tmp_path / f"kustomize/stage/{stage}.yaml")
    for name in ("create", "init-container-running", "init-container-completed", "ready", "complete", "delete"):
        write_stage(tmp_path / f"kustomize/stage/pod/general/pod-{name}.yaml")
    monkeypatch.setenv("PATH", str(stand_in.parent))
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "calls"


def write_stage(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"metadata: {{name: {path.stem}}}\n")


def left_over(calls: Path) -> list[str]:
    return [path.name for path in (calls.parent / "cache" / "components").iterdir() if path.is_dir()]


def test_the_second_time_nothing_is_built(calls: Path) -> None:
    first = ensure_components()
    assert calls.read_text().split() == ["env", "list", "build", "mod"]
    assert Path(first.command("kubectl")[0]).read_text() == "binary"
    assert first.kwok_stages.read_text().count("name: pod-ready") == 1
    assert ensure_components() == first
    assert calls.read_text().split().count("build") == 1


def test_a_download_that_fails_once_is_tried_again(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL_LIST", "1")
    told: list[str] = []
    ensure_components(progress=lambda _step, detail="", *, done=False: told.append(detail))
    assert calls.read_text().split().count("list") == 2
    assert "trying again, as go: lookup proxy: connection refused" in told


@pytest.mark.parametrize(
    ("failing", "times"),
    [pytest.param("list", 2, id="download, twice"), pytest.param("build", 1, id="compilation")],
)
def test_a_failed_build_says_why_and_leaves_nothing(
    calls: Path, monkeypatch: pytest.MonkeyPatch, failing: str, times: int
) -> None:
    monkeypatch.setenv(f"FAIL_{failing.upper()}", str(times))
    with pytest.raises(BuildError, match=rf"(?s)`go {failing} .* exited with 1:.*connection refused"):
        ensure_components()
    assert left_over(calls) == []


def test_an_interrupted_build_leaves_nothing(calls: Path) -> None:
    def interrupt(step: str, detail: str = "", *, done: bool = False) -> None:
        if "package" in detail or "linking" in detail:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_components(progress=interrupt)
    assert left_over(calls) == []
    ensure_components(progress=silent)
    assert len(left_over(calls)) == 1
