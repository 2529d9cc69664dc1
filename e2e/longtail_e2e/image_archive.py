"""Reads an image in a file of the kind docker-archive: layers as plain tar files, a configuration, a manifest."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image in a file that `ctr images import`, `docker load` and `podman load` take."""

    name: str
    """Repository and tag, as the archive names it; the tag is the chart's appVersion."""
    archive: Path

    @property
    def layer_bytes(self) -> list[int]:
        """Sizes of the layers, unpacked; the first is the base's only one."""
        with tarfile.open(self.archive) as archive:
            return [archive.getmember(layer).size for layer in _manifest(archive)["Layers"]]

    @property
    def bytes(self) -> int:
        """Size of all layers, unpacked."""
        return sum(self.layer_bytes)

    @property
    def base_bytes(self) -> int:
        """Size of the base, unpacked."""
        return self.layer_bytes[0]

    def configuration(self) -> dict[str, Any]:
        """Return the image's configuration: `config` with user, entry point and labels; `history`."""
        with tarfile.open(self.archive) as archive:
            found: dict[str, Any] = _json(archive, _manifest(archive)["Config"])
            return found

    def unpack(self, target: Path) -> None:
        """Lay the layers over each other in a new folder, as a container runtime does, with their owners."""
        target.mkdir(parents=True)
        with tarfile.open(self.archive) as archive:
            for layer in _manifest(archive)["Layers"]:
                content = archive.extractfile(layer)
                assert content is not None
                with tarfile.open(fileobj=content) as files:
                    _lay(files, target)


def _lay(layer: tarfile.TarFile, target: Path) -> None:
    members = []
    for member in layer:
        path = target / member.name
        if path.name == _OPAQUE:
            _remove(*path.parent.iterdir())
        elif path.name.startswith(_WHITEOUT):
            _remove(path.with_name(path.name.removeprefix(_WHITEOUT)))
        else:
            members.append(member)
    layer.extractall(target, members, numeric_owner=True, filter="fully_trusted")  # noqa: S202 - of our own making


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    found: dict[str, Any] = _json(archive, "manifest.json")[0]
    return found


def _json(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    assert member is not None
    return json.load(member)
