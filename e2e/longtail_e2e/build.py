"""Builds components of cluster and node, Helm and promtool from Go modules, once, into a cache outside the checkout.

Three builds, so that nobody who wants a cluster waits for Helm or for kubelet.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from longtail_e2e.errors import BuildError
from longtail_e2e.progress import Progress, silent

_E2E: Final = Path(__file__).resolve().parents[1]
_HELM: Final = "helm.sh/helm/v4"
_KUBERNETES: Final = "k8s.io/kubernetes"
_KWOK: Final = "sigs.k8s.io/kwok"
_PROMETHEUS: Final = "github.com/prometheus/prometheus"
# Leaves the file and http service discoveries in Prometheus and drops the SDKs of some twenty clouds.
_TAGS: Final = "remove_all_sd"
# A cold build has to be short, and nothing here is debugged or has to be fast. For 1033 packages of Kubernetes, in CPU
# seconds: 284 as Go does it, 244 without debugging tables (the linker's -w would throw them away), 215 with no inlining
# besides.
_COMPILER: Final = "all=-dwarf=false -l"
# Compilers are short-lived: collecting their garbage only above a limit took another 8 % off. A limit for each of the
# (two, on two cores) compilers that run at a time.
_GO_MEMORY: Final = {"GOGC": "off", "GOMEMLIMIT": "1500MiB"}
# What of KWOK's stages this cluster plays: a pod's life with settable delays, nodes that become and stay
# ready.
_STAGES: Final = (
    "kustomize/stage/node/fast/node-initialize.yaml",
    "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    *(
        f"kustomize/stage/pod/general/pod-{name}.yaml"
        for name in (
            "create",
            "init-container-running",
            "init-container-completed",
            "ready",
            "complete",
            "delete",
        )
    ),
)
_BUILDS_KEPT: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Module:
    """A Go module of ours that requires programs of others, and how to build them."""

    name: str
    """Of its folder in the cache."""
    directory: Path
    what: str
    packages: Sequence[str]
    stages: Sequence[str] = ()
    """KWOK's stages that are kept beside the programs."""


_COMPONENTS: Final = _Module(
    name="components",
    directory=_E2E / "components",
    what="etcd, Kubernetes, KWOK and Prometheus",
    packages=(".", f"{_PROMETHEUS}/cmd/prometheus", f"{_KWOK}/cmd/kwok"),
    stages=_STAGES,
)
_NODE: Final = _Module(
    name="node",
    directory=_E2E / "components",
    what="kubelet, kube-proxy and pause",
    packages=("./node", "./pause"),
)
_CHART_TOOLS: Final = _Module(
    name="chart_tools",
    directory=_E2E / "chart_tools",
    what="Helm and promtool",
    packages=(f"{_HELM}/cmd/helm", f"{_PROMETHEUS}/cmd/promtool"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Where the built components are."""

    directory: Path

    def command(self, component: str) -> list[str]:
        """Return the start of a command line for etcd, kube-*, kubectl, kwok or prometheus."""
        if component in {"kwok", "prometheus"}:
            return [str(self.directory / component)]
        return [str(self.directory / "components"), component]

    @property
    def kwok_stages(self) -> Path:
        """KWOK's own stages, one YAML file of several documents."""
        return self.directory / "kwok-stages.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeComponents:
    """Where what makes a machine a node is."""

    directory: Path

    def command(self, component: str) -> list[str]:
        """Return the start of a command line for kubelet or kube-proxy."""
        return [str(self.directory / "node"), component]

    @property
    def pause(self) -> Path:
        """The program that holds a pod's network namespace; it needs no library."""
        return self.directory / "pause"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartTools:
    """Where what checks the charts is."""

    directory: Path

    @property
    def helm(self) -> Path:
        """The program."""
        return self.directory / "helm"

    @property
    def promtool(self) -> Path:
        """The program."""
        return self.directory / "promtool"


def unavailable() -> str | None:
    """Say why components cannot be built or run on this machine; None when they can."""
    if sys.platform != "linux":
        return f"the components of the cluster are built and tried on Linux only, this is {sys.platform}"
    if shutil.which("go") is None:
        return "the components of the cluster are built with Go, and there is no `go` command on the PATH"
    return None


def ensure_components(*, progress: Progress = silent) -> Components:
    """Return the components, building them first when the cache does not hold this very version of them.

    The cache is $LONGTAIL_CACHE, by default ${XDG_CACHE_HOME:-~/.cache}/longtail. A build is keyed by the
    content of the Go module and the Go version; two processes that need the same one build it once.

    Raises:
        BuildError: Go is missing, or a download or the compilation failed.
    """
    return Components(directory=_ensure(_COMPONENTS, progress=progress))


def ensure_node_components(*, progress: Progress = silent) -> NodeComponents:
    """Return kubelet, kube-proxy and pause, as `ensure_components`."""
    return NodeComponents(directory=_ensure(_NODE, progress=progress))


def ensure_chart_tools(*, progress: Progress = silent) -> ChartTools:
    """Return Helm and promtool, as `ensure_components`."""
    return ChartTools(directory=_ensure(_CHART_TOOLS, progress=progress))


def _ensure(module: _Module, *, progress: Progress) -> Path:
    reason = unavailable()
    if reason is not None:
        raise BuildError(reason)
    cache = cache_directory() / module.name
    cache.mkdir(parents=True, exist_ok=True)
    built = cache / _key(module)
    with locked(cache / "lock", progress=progress):
        if not built.is_dir():
            _build(module, built, progress=progress)
            _prune(cache, keep=built)
        os.utime(built)
    return built


def cache_directory() -> Path:
    """Return the folder that outlives a checkout."""
    chosen = os.environ.get("LONGTAIL_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longtail"


def _key(module: _Module) -> str:
    digest = hashlib.sha256(repr(_go(module, "env", "GOVERSION", "GOOS", "GOARCH")).encode())
    digest.update(repr((module.packages, module.stages, _compile_flags(module))).encode())
    for path in sorted((*module.directory.rglob("*.go"), module.directory / "go.mod", module.directory / "go.sum")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(module.directory)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _compile_flags(module: _Module) -> list[str]:
    # Without these the API server calls itself v0.0.0, and clients complain; Helm checks a chart's kubeVersion.
    settings: dict[str, str] = {}
    if kubernetes := _required_version(module, _KUBERNETES):
        major, minor, _ = kubernetes.removeprefix("v").split(".", 2)
        settings |= {
            "k8s.io/component-base/version.gitVersion": kubernetes,
            "k8s.io/component-base/version.gitMajor": major,
            "k8s.io/component-base/version.gitMinor": minor,
        }
    if prometheus := _required_version(module, _PROMETHEUS):
        # Prometheus 3.16.0 is v0.316.0 of its Go module.
        _, release, patch = prometheus.split(".", 2)
        settings["github.com/prometheus/common/version.Version"] = f"{release[0]}.{int(release[1:])}.{patch}"
    if helm := _required_version(module, _HELM):
        settings[f"{_HELM}/internal/version.version"] = helm
    linker = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in settings.items())])
    return ["-tags", _TAGS, "-trimpath", "-buildvcs=false", "-gcflags", _COMPILER, "-ldflags", linker]


def _required_version(module: _Module, name: str) -> str | None:
    required = (module.directory / "go.mod").read_text()
    found = re.search(rf"^\s*{re.escape(name)} (v\S+)", required, re.MULTILINE)
    return found.group(1) if found else None


def _build(module: _Module, target: Path, *, progress: Progress) -> None:
    step = f"Building {module.what}"
    packages = _download(module, step=step, progress=progress)

    def tell(lines: Sequence[str]) -> None:
        # `go build -v` names a package when its compilation starts, and none that Go's own cache holds.
        compiled = len(lines)
        progress(step, f"package {compiled} of at most {packages}" if compiled < packages else "linking")

    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=target.parent))
    try:
        _go(module, "build", "-v", *_compile_flags(module), "-o", f"{partial}/", *module.packages, while_running=tell)
        if module.stages:
            _write_stages(module, partial / "kwok-stages.yaml")
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    progress(step, done=True)


def _download(module: _Module, *, step: str, progress: Progress) -> int:
    """Download the modules that the build needs, no others, and return the number of its packages."""

    def tell(lines: Sequence[str]) -> None:
        progress(step, f"downloaded {sum(map(_is_notice, lines))} Go modules")

    # `go mod download` would fetch the whole module graph, the cloud SDKs that the tags leave out included.
    arguments = ("list", "-deps", f"-tags={_TAGS}", *module.packages)
    try:
        lines = _go(module, *arguments, while_running=tell)
    except BuildError as first:
        progress(step, f"trying again, as {str(first).splitlines()[-1]}")
        lines = _go(module, *arguments, while_running=tell)
    return sum(not _is_notice(line) for line in lines)


def _is_notice(line: str) -> bool:
    return line.startswith("go: ")


def _write_stages(module: _Module, target: Path) -> None:
    kwok = f"{_KWOK}@{_required_version(module, _KWOK)}"
    lines = _go(module, "mod", "download", "-json", kwok)
    answer = json.loads("\n".join(line for line in lines if not _is_notice(line)))
    target.write_text("\n---\n".join((Path(answer["Dir"]) / stage).read_text() for stage in module.stages))


def _go(module: _Module, *arguments: str, while_running: Callable[[Sequence[str]], None] | None = None) -> list[str]:
    """Run the Go command in the module and return its lines (standard output and errors, as they came).

    `while_running` is called twice a second with the lines so far.

    Raises:
        BuildError: with the last lines.
    """
    environment = {**_GO_MEMORY, **os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    lines: list[str] = []
    with subprocess.Popen(
        ["go", *arguments],
        cwd=module.directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,  # so that an interruption can end the compilers with their `go`
    ) as go:
        assert go.stdout is not None
        reader = threading.Thread(target=lambda out: lines.extend(map(str.rstrip, out)), args=(go.stdout,), daemon=True)
        reader.start()
        try:
            while reader.is_alive():
                reader.join(0.5)
                if while_running is not None:
                    while_running(tuple(lines))
        except BaseException:
            # Go cleans its work folder in /tmp (a gigabyte by the end) on an interrupt, and on no other signal.
            os.killpg(go.pid, signal.SIGINT)
            raise
    if go.returncode != 0:
        command = " ".join(("go", *arguments[:2]))
        raise BuildError(f"`{command} …` in {module.directory} exited with {go.returncode}:\n" + "\n".join(lines[-20:]))
    return lines


@contextmanager
def locked(path: Path, *, progress: Progress) -> Iterator[None]:
    """Hold the lock of the cache; it vanishes with its process."""
    step = "Waiting for another build of the same cache"
    with path.open("w") as lock:
        waited = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = True
                progress(step)
                time.sleep(0.5)
        if waited:
            progress(step, done=True)
        yield


def _prune(cache: Path, *, keep: Path) -> None:
    """Remove builds long unused (some 350 MB each) and what an interrupted build left behind."""
    others = [path for path in cache.iterdir() if path.is_dir() and path != keep]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    finished = [path for path in others if not path.name.startswith("partial-")]
    for path in {*others} - {*finished[: _BUILDS_KEPT - 1]}:
        shutil.rmtree(path, ignore_errors=True)
