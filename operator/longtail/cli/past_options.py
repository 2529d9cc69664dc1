"""What commands that look back take on their command line: how far, where the past is, and where it is kept.

Where a command has another subject as well, its help is brief about these.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def since(default: str) -> Callable[[_F], _F]:
    """Add ``--since``, a span."""
    return click.option(
        "--since", default=default, show_default=True, help="How far back: a number and s, m, h, d or w."
    )


def step(more: str = "") -> Callable[[_F], _F]:
    """Add ``--step``; ``more`` ends its help."""
    return click.option("--step", default=None, help=f"Seconds between two decisions. Default: 15 for a day{more}.")


def prometheus(*, brief: bool = False) -> Callable[[_F], _F]:
    """Add ``--source`` (as ``url``) and ``--scrape-interval-seconds``."""
    url = click.option(
        "--source",
        "url",
        default=None,
        help="URL of the Prometheus." + ("" if brief else " Default: as `longtail run` is configured."),
    )
    scrape_interval = click.option(
        "--scrape-interval-seconds",
        type=float,
        default=15.0,
        show_default=True,
        help=None if brief else "Of that Prometheus.",
    )
    return lambda command: url(scrape_interval(command))


def manifest(what: str, *, is_read: str = "it is read") -> Callable[[_F], _F]:
    """Add ``--file`` (as ``manifest``) with what is read from the cluster otherwise."""
    return click.option(
        "--file",
        "manifest",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        default=None,
        help=f"Manifest with {what}. Default: {is_read} from the cluster.",
    )


def cache(name: str, *, brief: bool = False) -> Callable[[_F], _F]:
    """Add ``--cache``, by default a directory of this name in the user's cache."""
    return click.option(
        "--cache",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("~/.cache/longtail") / name,
        show_default=True,
        help=None
        if brief
        else "Keeps what was read, so that a second run, or one that broke off, need not read it again.",
    )
