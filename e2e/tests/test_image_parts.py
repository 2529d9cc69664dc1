"""What building the image rests on: where packages come from, which Debian mirror, how layers lie over each other."""

from __future__ import annotations

import configparser
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from longtail_e2e import BuildError, debian
from longtail_e2e.debian import IMAGE_PROGRAMS
from longtail_e2e.image import Image, debian_mirror
from longtail_e2e.package_index import index_secrets

INDEX = "https://user:secret@index.example/simple"
# Nothing of this machine's own: its variables are not in the environment given, its files set neither.
MOUNTED = "/run/secrets/ca-certificates.crt"


class TestTheIndexOfThisMachine:
    @pytest.mark.parametrize(
        ("files", "variables", "expected"),
        [
            pytest.param({".config/pip/pip.conf": {"global": {"index-url": INDEX}}}, {}, INDEX, id="a-user-s-file"),
            pytest.param({".config/pip/pip.conf": {"install": {"index-url": INDEX}}}, {}, INDEX, id="for-install-alone"),
            pytest.param(
                {".pip/pip.conf": {"global": {"index-url": "https://old"}}, ".config/pip/pip.conf": {"global": {"index-url": INDEX}}},
                {},
                INDEX,
                id="the-later-file-wins",
            ),
            pytest.param(
                {".config/pip/pip.conf": {"global": {"index-url": "https://old"}}, "own.conf": {"global": {"index-url": INDEX}}},
                {"PIP_CONFIG_FILE": "own.conf"},
                INDEX,
                id="a-file-named-by-variable-wins",
            ),
            pytest.param(
                {".config/pip/pip.conf": {"global": {"index-url": "https://old"}}},
                {"PIP_INDEX_URL": INDEX},
                INDEX,
                id="a-variable-wins",
            ),
        ],
    )  # fmt: skip
    def test_reaches_the_build_as_one_file(
        self,
        tmp_path: Path,
        files: Mapping[str, Mapping[str, Mapping[str, str]]],
        variables: Mapping[str, str],
        expected: str,
    ) -> None:
        for name, sections in files.items():
            write_configuration(tmp_path / name, sections)
        environment = {"HOME": str(tmp_path), **variables}
        if "PIP_CONFIG_FILE" in environment:
            environment["PIP_CONFIG_FILE"] = str(tmp_path / environment["PIP_CONFIG_FILE"])
        with index_secrets(environment=environment) as secrets:
            assert read_configuration(secrets["pip.conf"])["index-url"] == expected
            # It may hold a password.
            assert secrets["pip.conf"].parent.stat().st_mode & 0o077 == 0
        assert not secrets["pip.conf"].exists()

    def test_brings_its_certificate_authorities(self, tmp_path: Path) -> None:
        authorities = tmp_path / "authorities.crt"
        environment = {"HOME": str(tmp_path), "SSL_CERT_FILE": str(authorities)}
        with index_secrets(environment=environment) as secrets:
            assert secrets["ca-certificates.crt"] == authorities
            assert read_configuration(secrets["pip.conf"])["cert"] == MOUNTED
        assert f"id={Path(MOUNTED).name} " in (Path(__file__).parents[2] / "Dockerfile").read_text()

    def test_leaves_what_is_not_about_the_index_here(self, tmp_path: Path) -> None:
        write_configuration(
            tmp_path / ".config/pip/pip.conf", {"global": {"user": "true", "find-links": "/opt/wheels"}}
        )
        with index_secrets(environment={"HOME": str(tmp_path)}) as secrets:
            assert not {"user", "find-links"} & {*read_configuration(secrets["pip.conf"])}


def write_configuration(path: Path, sections: Mapping[str, Mapping[str, str]]) -> None:
    configuration = configparser.RawConfigParser()
    configuration.read_dict(sections)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        configuration.write(file)


def read_configuration(path: Path) -> Mapping[str, str]:
    configuration = configparser.RawConfigParser()
    configuration.read(path)
    return configuration["global"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param(
            "sources.list.d/debian.sources",
            "Types: deb\n# http://snapshot.example/archive/debian/20250520\nURIs: http://mirror.example/debian\nSuites: bookworm\n",
            "http://mirror.example/debian",
            id="fields-with-another-address-in-a-comment",
        ),
        pytest.param(
            "sources.list",
            "deb-src http://other.example/debian bookworm main\ndeb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n",
            "http://mirror.example/debian",
            id="a-line-with-options",
        ),
        pytest.param("sources.list", "deb http://mirror.example/debian bookworm main\n", "http://mirror.example/debian", id="a-line"),
        pytest.param("sources.list", "deb http://mirror.example/debian-security bookworm-security main\n", None, id="security-alone"),
        pytest.param("sources.list", "deb http://archive.example/ubuntu noble main\n", None, id="another-distribution"),
        pytest.param("sources.list.d/off.sources.disabled", "URIs: http://mirror.example/debian\n", None, id="switched-off"),
    ],
)  # fmt: skip
def test_the_mirror_is_the_one_that_apt_uses(tmp_path: Path, name: str, text: str, expected: str | None) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert debian_mirror(tmp_path) == expected


class TestDebianPackages:
    def test_who_is_not_root_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert debian.unavailable(IMAGE_PROGRAMS) == "buildah and debootstrap work as root only, and this is user 1000"

    def test_a_machine_without_apt_is_told_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert debian.unavailable({"sh": "dash"}) is None
        monkeypatch.setattr(debian, "program", lambda name: None if name in {"no-such-command", "apt-get"} else name)
        programs = {"sh": "dash", "no-such-command": "x"}
        reason = "there is no no-such-command on this machine, and no apt-get to install Debian's with"
        assert debian.unavailable(programs) == reason
        with pytest.raises(BuildError, match=reason):
            debian.ensure_programs(programs)


class TestLayers:
    def test_a_later_layer_changes_and_hides_what_is_below(self, tmp_path: Path) -> None:
        base = layer(
            {"etc/kept": "1", "etc/changed": "1", "pip/a": "1", "pip/sub/b": "1", "cache/old": "1", "gone": "1"}
        )
        over = layer({".wh.gone": "", ".wh.pip": "", "etc/changed": "2", "cache/.wh..wh..opq": "", "cache/new": "2"})
        image = archive(tmp_path / "image.tar", [base, over])
        image.unpack(tmp_path / "root")
        found = {str(path.relative_to(tmp_path / "root")): path.read_text() for path in files(tmp_path / "root")}
        assert found == {"etc/kept": "1", "etc/changed": "2", "cache/new": "2"}
        assert (image.base_bytes, image.layer_bytes) == (len(base), [len(base), len(over)])


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def layer(content: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in content.items():
            add(tar, name, text.encode())
    return packed.getvalue()


def archive(path: Path, layers: list[bytes]) -> Image:
    with tarfile.open(path, mode="w") as tar:
        names = [f"{number}.tar" for number in range(len(layers))]
        for name, content in zip(names, layers, strict=True):
            add(tar, name, content)
        add(tar, "manifest.json", json.dumps([{"Config": "config.json", "Layers": names}]).encode())
    return Image(name="localhost/example:1", archive=path)


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.uid, member.gid = os.geteuid(), os.getegid()
    tar.addfile(member, io.BytesIO(content))
