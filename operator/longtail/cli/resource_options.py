"""What commands about a resource take on their command line: its name, and the cluster that it is in."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def cluster(command: _F) -> _F:
    """Add ``--kubeconfig`` and ``--context``."""
    kubeconfig = click.option("--kubeconfig", default=None, help="Path of a kubeconfig. Default: kubectl's.")
    context = click.option("--context", default=None, help="Context of the kubeconfig. Default: its current one.")
    return kubeconfig(context(command))


def named(text: str, *, option: str) -> tuple[str, str]:
    """Namespace and name of ``NAMESPACE/NAME``.

    Raises:
        BadParameter: it is no such name; blames ``option``.
    """
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise click.BadParameter(f"{text!r} is not NAMESPACE/NAME", param_hint=option)
    return namespace, name
