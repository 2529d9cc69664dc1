"""Command lines that leave nothing behind: their mounts and processes are their own, and end with them."""

from __future__ import annotations

from collections.abc import Sequence


def contained(*command: str, own_folders: Sequence[str], own_network: bool = False) -> list[str]:
    """Return a command line that runs a command in namespaces of its own; for root.

    Args:
        command: the program and its arguments.
        own_folders: of the file system: empty at first, and gone with the command.
        own_network: without any way out.
    """
    mounts = " && ".join(f"mkdir -p {folder} && mount -t tmpfs tmpfs {folder}" for folder in own_folders)
    return [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *(["--net"] if own_network else []),
        *("sh", "-c", f'{mounts} && exec "$@"', "sh"),
        *command,
    ]
