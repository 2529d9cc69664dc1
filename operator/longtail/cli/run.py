"""``longtail run``: the operator. Its flags are the fields of the settings, one by one."""

import asyncio
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from longtail.control.app import run_operator
from longtail.control.logs import configure_logs
from longtail.control.settings import PREFIX, Settings, load_settings

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _settings_flags(command: _Command) -> _Command:
    """Give the command a flag for every setting. Values stay text: the settings check and name them."""
    for name, field in reversed(Settings.model_fields.items()):
        text = (field.description or "").rstrip(".")
        help_text = f"{text}. [{PREFIX}{name.upper()}]"
        if field.default not in (None, "", ()):
            help_text += f" [default: {field.default}]"
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            flag += f"/--no-{name.replace('_', '-')}"
        command = click.option(flag, name, default=None, help=help_text)(command)
    return command


@click.command()
@_settings_flags
def run(**flags: str | bool | None) -> None:
    """Run the operator until SIGTERM.

    Every flag is also an environment variable; the flag wins.
    """
    settings = load_settings(environment=os.environ, flags=flags)
    configure_logs(level=settings.log_level)
    asyncio.run(run_operator(settings))
