"""The command ``longtail``, and the kubectl plugin ``kubectl-longtail``: thin, everything is elsewhere."""

import importlib
from collections.abc import Mapping
from typing import Final

import click

from longtail.errors import LongtailError

_COMMANDS: Final[Mapping[str, str]] = {
    "run": "longtail.cli.run",
    "crds": "longtail.cli.crds",
    "explain": "longtail.cli.explain",
    "bench": "longtail.cli.bench",
    "backtest": "longtail.cli.backtest",
    "cost": "longtail.cli.cost",
    "simulate": "longtail.cli.simulate",
    "frontier": "longtail.cli.frontier",
}
"""Imported when called: the operator must not load the workbench, nor ``explain`` the operator."""


class _Commands(click.Group):
    """Finds commands by name, and shows our own errors as one sentence instead of a traceback."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Return the names, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """Return one command; None when there is none of this name."""
        if name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[name]), name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command.

        Raises:
            ClickException: with the message of a LongtailError.
        """
        try:
            return super().invoke(ctx)
        except LongtailError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands)
@click.version_option(package_name="longtail")
def cli() -> None:
    """Autoscaler for pools of reasoning-model servers."""
