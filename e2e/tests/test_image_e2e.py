"""The image that the Dockerfile makes: what is in it, what is not, and that it runs as the chart runs it.

It runs here without a container runtime: its files, mounted read-only, as the user 65532 with no capabilities.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.utils import canonicalize_name

from longtail_e2e import Cluster
from longtail_e2e.image import Image, ensure_image
from longtail_e2e.image import unavailable as image_unavailable
from longtail_e2e.operator import OPERATOR, Engines, Operator, apply_definition
from longtail_e2e.package_index import NOTICE
from longtail_e2e.world import World

ROOT = Path(__file__).parents[2]
MEGABYTE = 1_000_000
INSTALLERS = {"pip", "setuptools", "wheel", "ensurepip", "pkg_resources", "easy_install", "uv", "hatchling"}
COMPILERS = {"cc", "c++", "gcc", "g++", "clang", "ld", "as", "make", "cargo", "rustc", "go"}

# Its arguments: root file system, number of files, the files (they are brought in under their own paths, as the chart
# mounts them), command. Every step becomes the next by exec, so that a signal reaches the command.
AS_THE_CHART_RUNS_IT = """
root=$1; count=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
chmod 1777 "$root/tmp"
while [ "$count" -gt 0 ]; do
    mkdir -p "$root$(dirname "$1")"
    cp "$1" "$root$1"
    chown 65532:65532 "$root$1"
    shift; count=$((count - 1))
done
exec chroot "$root" /usr/bin/setpriv --reuid=65532 --regid=65532 --clear-groups --no-new-privs --bounding-set=-all \\
    --inh-caps=-all --pdeathsig=KILL "$@"
"""


def as_the_chart_runs_it(root: Path, *command: str, files: Sequence[Path] = ()) -> list[str]:
    script = ["unshare", "--mount", "sh", "-ec", AS_THE_CHART_RUNS_IT, "sh"]
    return [*script, str(root), str(len(files)), *map(str, files), *command]


@pytest.fixture(scope="module")
def root(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's root file system."""
    target = tmp_path_factory.mktemp("image") / "root"
    image.unpack(target)
    # pytest keeps its folders from other users; a container's root is open to its own.
    target.chmod(0o755)
    yield target
    # pytest would keep three of them.
    shutil.rmtree(target)


@pytest.fixture(scope="module")
def search_path(image: Image) -> str:
    """The image's own PATH=…, as an argument of env."""
    variables: list[str] = image.configuration()["config"]["Env"]
    return next(variable for variable in variables if variable.startswith("PATH="))


@pytest.fixture(scope="module")
def site_packages(root: Path) -> Path:
    (found,) = root.glob("opt/longtail/lib/python3*/site-packages")
    return found


def run(root: Path, search_path: str, *command: str) -> subprocess.CompletedProcess[str]:
    environment = ("/usr/bin/env", "--ignore-environment", search_path)
    whole = as_the_chart_runs_it(root, *environment, *command)
    return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)


def test_it_says_what_it_is_and_runs_as_a_numbered_user(image: Image) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    config = image.configuration()["config"]
    # A number: the kubelet cannot tell that a name is not root's.
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == ("65532:65532", ["longtail"], ["run"])
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in config["Labels"].items()
        if key.startswith("org.opencontainers.image.")
    }
    assert (labels["version"], labels["licenses"]) == (project["version"], project["license"])
    assert image.name == f"localhost/longtail:{project['version']}"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["revision"])
    if labels["revision"] != "unknown":
        assert datetime.fromisoformat(labels["created"]).tzinfo is not None


def test_the_chart_runs_it_as_the_user_it_is_made_for(image: Image) -> None:
    values = (ROOT / "charts/longtail/values.yaml").read_text()
    uid, _, gid = image.configuration()["config"]["User"].partition(":")
    assert f"runAsUser: {uid}\n" in values
    assert f"runAsGroup: {gid}\n" in values


def test_it_is_at_most_200_megabytes_over_its_base(image: Image) -> None:
    own = sum(image.layer_bytes) - image.base_bytes
    assert own / MEGABYTE <= 200, [round(size / MEGABYTE) for size in image.layer_bytes]
    assert own / MEGABYTE > 50, "less than its dependencies: the first layer is not the base"


def test_there_is_nothing_in_it_to_install_or_to_compile_with(root: Path) -> None:
    found = [
        path.relative_to(root)
        for path in root.rglob("*")
        # "pip" and "pip3.11" among commands, "pip" and "pip-26.dist-info" among packages.
        if (path.parent.name in {"bin", "sbin"} and re.split(r"-|\.?\d", path.name)[0] in INSTALLERS | COMPILERS)
        or (
            path.parent.name in {"site-packages", "dist-packages"} and path.name.partition("-")[0].lower() in INSTALLERS
        )
        or path.name == "ensurepip"
        or re.fullmatch(r"(pip|setuptools|wheel)-.*\.whl", path.name)
    ]
    assert found == []


def test_where_packages_came_from_is_not_in_it(image: Image, root: Path, site_packages: Path) -> None:
    # Layers are plain tar files: what was in the secret would be found in whichever it had got into.
    assert NOTICE.encode() not in image.archive.read_bytes()
    assert not (root / "etc/pip.conf").exists()
    assert not list(root.glob("run/secrets/*"))
    told = json.dumps(image.configuration()) + (root / "opt/longtail/sbom.cdx.json").read_text()
    assert "INDEX_URL" not in told
    # pip leaves a direct_url.json where something came from an address: here, our own wheel from a folder.
    addresses = {path.parent.name: path.read_text() for path in site_packages.glob("*.dist-info/direct_url.json")}
    assert [name.partition("-")[0] for name in addresses] == ["longtail"]
    assert all(json.loads(address)["url"].startswith("file:///") for address in addresses.values())


def test_the_bill_of_materials_lists_exactly_what_the_lock_names_and_what_is_there(
    root: Path, search_path: str, site_packages: Path
) -> None:
    bill = json.loads((root / "opt/longtail/sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "longtail")
    listed = {(canonicalize_name(part["name"]), part["version"]) for part in bill["components"]}
    assert len(listed) == len(bill["components"])
    assert all(part["purl"].startswith("pkg:pypi/") for part in bill["components"])
    version = run(root, search_path, "python", "-c", "import platform; print(platform.python_version())").stdout.strip()
    assert listed == set(locked_for_running(version))
    there = [path.name.removesuffix(".dist-info").rsplit("-", 1) for path in site_packages.glob("*.dist-info")]
    longtail = (bill["metadata"]["component"]["name"], bill["metadata"]["component"]["version"])
    assert {(canonicalize_name(name), version) for name, version in there} == {*listed, longtail}


def locked_for_running(python_version: str) -> Iterator[tuple[str, str]]:
    """Walk uv.lock from the project over what it needs on Linux with this Python; names and versions."""
    environment = {
        "python_full_version": python_version,
        "python_version": python_version.rpartition(".")[0],
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    packages: list[dict[str, Any]] = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    (project,) = (package for package in packages if package["name"] == "longtail")
    open_ends, seen = list(project["dependencies"]), set()
    while open_ends:
        need = open_ends.pop()
        if "marker" in need and not Marker(need["marker"]).evaluate(environment):
            continue
        (package,) = (
            package
            for package in packages
            if package["name"] == need["name"] and package["version"] == need.get("version", package["version"])
        )
        open_ends += [
            further
            for extra in need.get("extra", ())
            if (package["name"], extra) not in seen
            for further in package["optional-dependencies"][extra]
        ]
        seen |= {(package["name"], extra) for extra in need.get("extra", ())}
        if package["name"] not in seen:
            seen.add(package["name"])
            open_ends += package.get("dependencies", ())
            yield package["name"], package["version"]


class TestOnAReadOnlyRoot:
    @pytest.mark.parametrize(
        ("command", "says"),
        [
            pytest.param(("longtail", "--version"), "longtail, version", id="version"),
            pytest.param(("longtail", "run", "--help"), "--metrics-sources-file", id="help-of-run"),
            pytest.param(("kubectl-longtail", "explain", "--help"), "NAMESPACE/NAME", id="kubectl-plugin"),
            pytest.param(("longtail", "crds"), "reasoningservings.longtail.dev", id="definitions"),
        ],
    )
    def test_the_command_runs(self, root: Path, search_path: str, command: Sequence[str], says: str) -> None:
        answer = run(root, search_path, *command)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert says in answer.stdout

    def test_every_module_can_be_imported(self, root: Path, search_path: str) -> None:
        program = (
            "import importlib, pkgutil, longtail\n"
            "names = [found.name for found in pkgutil.walk_packages(longtail.__path__, 'longtail.')]\n"
            "for name in names: importlib.import_module(name)\n"
            "print(len(names))"
        )
        answer = run(root, search_path, "python", "-W", "error", "-c", program)
        assert (answer.returncode, answer.stderr) == (0, "")
        modules = list((ROOT / "operator/longtail").rglob("*.py"))
        assert int(answer.stdout) == len(modules) - 1  # less the package itself

    def test_what_runs_is_compiled(self, root: Path, search_path: str) -> None:
        # It could not be on a read-only root, and every start of every replica would compile 200 modules again.
        answer = run(root, search_path, "python", "-v", "-c", "import longtail.cli.run")
        assert answer.returncode == 0
        loaded = re.findall(r"^# code object from '?(/opt/longtail/[^']*?)'?$", answer.stderr, re.MULTILINE)
        assert len(loaded) > 200
        assert [path for path in loaded if not path.endswith(".pyc")] == []

    def test_it_is_no_more_than_an_ordinary_user(self, root: Path, search_path: str) -> None:
        program = "id -u; id -g; touch /tmp/mine && echo written; touch /opt/longtail/mine || echo refused"
        answer = run(root, search_path, "sh", "-c", program)
        assert answer.stdout.split() == ["65532", "65532", "written", "refused"]

    def test_nothing_of_it_is_the_user_s_to_change(self, root: Path) -> None:
        # For those who run it without a read-only root.
        theirs = [
            path
            for path in (root / "opt/longtail").rglob("*")
            if not path.is_symlink()
            and (path.stat().st_uid != 0 or stat.S_IMODE(path.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH))
        ]
        assert theirs == []


@pytest.mark.e2e
def test_the_operator_in_it_scales_a_real_target(
    cluster: Cluster, engines: Engines, root: Path, namespace: str
) -> None:
    # Half of the Kubernetes client is not in the image: what the operator really asks for has to be there.
    apply_definition(cluster, crds=ROOT / "crds")
    operator = Operator(cluster, interval_seconds=1.0)
    kubeconfig = operator.install()
    (named,) = yaml.safe_load(kubeconfig.read_text())["clusters"]
    authority = Path(named["cluster"]["certificate-authority"])
    files = [kubeconfig, authority, operator.sources_file]
    program = as_the_chart_runs_it(root, "/opt/longtail/bin/longtail", files=files)
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    operator.start(kubeconfig=kubeconfig, sources={"default": source}, program=program)
    try:
        world = World(cluster=cluster, operator=operator, engines=engines, namespace=namespace)
        world.deploy()
        world.serve(mode="Active")
        engines.rate(world.service(), 45.0)
        world.wait_for_replicas(lambda replicas: replicas >= 3)
    finally:
        cluster.processes.stop(OPERATOR)


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = image_unavailable()
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path))

    def interrupt(step: str, detail: str = "", *, done: bool = False) -> None:
        if detail.startswith("I: Resolving"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_image(progress=interrupt)
    assert {path.name for path in (tmp_path / "image").iterdir()} <= {"lock", "partial-layers"}
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert [command for command in running_commands() if str(tmp_path) in command] == []


def running_commands() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def test_the_image_is_built_with_the_uv_of_the_checkout() -> None:
    makefile, dockerfile = ((ROOT / name).read_text() for name in ("Makefile", "Dockerfile"))
    (ours,) = re.findall(r"^UV_VERSION := (\S+)$", makefile, re.MULTILINE)
    assert re.findall(r"^ARG UV_VERSION=(\S+)$", dockerfile, re.MULTILINE) == [ours]
