"""The administrator's files: YAML or JSON in, a checked model out, and one sentence for whatever is wrong."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from longtail.errors import SettingsError

M = TypeVar("M", bound=BaseModel)


def read_file(path: Path, model: type[M], *, what: str) -> M:
    """Read a file; ``what`` it is, for the message.

    Raises:
        SettingsError: it is not there, not YAML, or an entry is wrong; the message names file, key and value.
    """
    try:
        return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as unreadable:
        raise SettingsError(f"{what} file {path}: {unreadable}") from unreadable
    except ValidationError as invalid:
        raise SettingsError(f"{what} file {path}: {_explained(invalid)}") from invalid


def _explained(invalid: ValidationError) -> str:
    """Return every fault on one line, each with its key and its value."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg'].removeprefix('Value error, ')}"
        + ("" if fault["type"] in {"missing", "value_error"} else f", got {fault['input']!r:.100}")
        for fault in invalid.errors(include_url=False, include_context=False)
    )
