"""Pictures as PNG, with matplotlib, which is an extra: nothing that runs in a cluster draws."""

import io
from typing import Any

from longtail.errors import SettingsError


def plotting() -> Any:
    """``matplotlib.pyplot``, drawing into memory.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, and a second to import
        import matplotlib.pyplot as plt  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError("pictures need matplotlib: install longtail[picture]") from error
    mpl.use("Agg")
    return plt


def png(plot: Any, figure: Any) -> bytes:
    """A figure as a PNG; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plot.close(figure)
    return buffer.getvalue()
