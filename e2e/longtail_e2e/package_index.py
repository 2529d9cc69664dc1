"""Tells an image build where this machine gets Python packages, as secrets: it never reaches a layer.

pip's settings are in several files and in variables; they become one file, with what concerns the index and no more.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_FILES: Final = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
NOTICE: Final = "# Where this machine gets its packages: for the build, never in an image.\n"
_SECTIONS: Final = ("global", "install")
_SETTINGS: Final = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_AUTHORITIES: Final = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
# Where the Dockerfile finds the second of them.
_MOUNTED_AUTHORITIES: Final = "/run/secrets/ca-certificates.crt"


@contextmanager
def index_secrets(*, environment: Mapping[str, str] = os.environ) -> Iterator[Mapping[str, Path]]:
    """Give the files of the Dockerfile's secrets `pip.conf` and `ca-certificates.crt`; they end with the block."""
    settings = _settings(environment)
    authorities = next((environment[name] for name in _AUTHORITIES if environment.get(name)), settings.pop("cert", ""))
    settings.pop("cert", None)
    with TemporaryDirectory(prefix="longtail-index-") as folder:
        secrets = {"pip.conf": Path(folder) / "pip.conf"}
        if authorities:
            secrets["ca-certificates.crt"] = Path(authorities).expanduser()
            settings["cert"] = _MOUNTED_AUTHORITIES
        configuration = configparser.RawConfigParser()
        configuration["global"] = settings
        with secrets["pip.conf"].open("w") as file:
            file.write(NOTICE)
            configuration.write(file)
        yield secrets


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings; the later file wins, then PIP_CONFIG_FILE, then variables, as pip has it."""
    configuration = configparser.RawConfigParser()
    home = environment.get("HOME", "~")
    files = [name.replace("~", home, 1) for name in _FILES]
    configuration.read([*files, environment.get("PIP_CONFIG_FILE", os.devnull)])
    settings = {}
    for key in (*_SETTINGS, "cert"):
        for section in _SECTIONS:
            if configuration.has_option(section, key):
                settings[key] = configuration.get(section, key)
        variable = environment.get(f"PIP_{key.replace('-', '_').upper()}")
        if variable:
            settings[key] = variable
    return settings
