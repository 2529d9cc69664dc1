"""What is installed for the LiteLLM proxy: malicious releases of it ran as soon as any Python started."""

from pathlib import Path

import pytest

from longtail_e2e.litellm import ensure_litellm
from longtail_e2e.pinned import startup_code

pytestmark = pytest.mark.e2e


def test_nothing_that_was_installed_starts_by_itself(tmp_path: Path) -> None:
    assert startup_code(ensure_litellm().parents[1]) == []
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "litellm_init.pth").write_text("import os")
    (packages / "sitecustomize.py").touch()
    assert startup_code(tmp_path) == ["litellm_init.pth", "sitecustomize.py"]
