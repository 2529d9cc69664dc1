"""Credentials that live in files and rotate: read when they change, and again when the server says 401."""

import base64
from pathlib import Path
from typing import Protocol

from requests import PreparedRequest
from requests.auth import AuthBase

from longtail.errors import MetricsUnavailable
from longtail.signals.sources import BasicFile, BearerFile


class Reloadable(Protocol):
    """Credentials that can be read anew."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign a request."""

    def reload(self) -> None:
        """Read the file again before the next request, whatever its time says."""


class FileAuthentication(AuthBase):
    """Signs requests with the secret in a file.

    The kubelet replaces a projected token by renaming a symlink: the file's identity and time change
    together. A file system whose times are coarser than the rotation is why ``reload`` exists.
    """

    def __init__(self, credentials: BearerFile | BasicFile) -> None:
        self._credentials = credentials
        self._header = ""
        self._seen: tuple[int, int] | None = None

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign a request.

        Raises:
            MetricsUnavailable: the file cannot be read, or is empty.
        """
        request.headers["Authorization"] = self._current()
        return request

    def reload(self) -> None:
        """Read the file again before the next request, whatever its time says."""
        self._seen = None

    def _current(self) -> str:
        path = _path(self._credentials)
        try:
            status = path.stat()
            identity = (status.st_ino, status.st_mtime_ns)
            if identity != self._seen:
                self._header = _header(self._credentials, path.read_text(encoding="utf-8").strip(), path)
                self._seen = identity
        except (OSError, UnicodeDecodeError) as error:
            raise MetricsUnavailable(f"credentials {path}: {error}") from error
        return self._header


def _path(credentials: BearerFile | BasicFile) -> Path:
    return credentials.token_file if isinstance(credentials, BearerFile) else credentials.password_file


def _header(credentials: BearerFile | BasicFile, secret: str, path: Path) -> str:
    if not secret:
        raise MetricsUnavailable(f"credentials {path}: the file is empty")
    if not secret.isprintable():
        raise MetricsUnavailable(f"credentials {path}: the file holds more than one line")
    if isinstance(credentials, BearerFile):
        return f"Bearer {secret}"
    pair = f"{credentials.username}:{secret}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"
