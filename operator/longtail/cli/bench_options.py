"""What several benchmarks take on their command line: where the real traces are, and where figures go."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from longtail.workbench.traces.catalogue import ENVIRONMENT_VARIABLE, data_directory

_F = TypeVar("_F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
SKIPPED = f"skipped: no real traces here; set {ENVIRONMENT_VARIABLE} to their directory"


def data(more: str = "") -> Callable[[_F], _F]:
    """Add ``--data``; ``more`` ends its help."""
    return click.option(
        "--data",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=None,
        help=f"Directory of the real traces. Default: ${ENVIRONMENT_VARIABLE}, else ../shared/data{more}.",
    )


def report(more: str = "") -> Callable[[_F], _F]:
    """Add ``--report``; ``more`` ends its help."""
    return click.option(
        "--report",
        type=click.Path(exists=True, dir_okay=False, writable=True, path_type=Path),
        default=None,
        help=f"Markdown file with a pair of marks, between which the figures are written{more}.",
    )


def traces_or_skip(given: Path | None, *, as_json: bool) -> Path | None:
    """The directory of the real traces; where there is none, None, after saying that the benchmark is skipped."""
    directory = given or data_directory()
    if directory is None:
        click.echo(json.dumps({"skipped": SKIPPED}) if as_json else SKIPPED)
    return directory
