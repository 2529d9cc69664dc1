"""Options that every command with a simulated pool has, and what its argument TRACE may be."""

from pathlib import Path

import click

cold_start = click.option(
    "--cold-start",
    "cold_start_seconds",
    type=click.FloatRange(min=0),
    default=180.0,
    show_default=True,
    help="Mean seconds from a GPU to ready; each is drawn within 20 %.",
)


def is_trace_file(trace: str) -> bool:
    """Whether TRACE is a file, there or not; otherwise it is the name of a scenario."""
    return Path(trace).is_file() or trace.endswith((".csv", ".csv.gz", ".npz"))
