"""Both engines in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from verify_engine.fidelity import curves_of, fitted, half_seconds, paced_clock, simulated, steady_clock
from verify_engine.fidelity_run import Recording

_PANELS: Final = (
    ("running_requests", "running"),
    ("waiting_requests", "waiting"),
    ("kv_used_tokens", "KV tokens used"),
    ("finished_tokens", "finished tokens"),
)


def draw(recording: Recording, path: Path) -> None:
    """Write a PNG: vLLM, the model at vLLM's pace, and the model as fitted on the first half alone."""
    import matplotlib as mpl  # noqa: PLC0415  # half a second that only this needs

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    half = half_seconds(recording)
    profile = fitted(recording, until_seconds=half)
    paced = simulated(recording, profile, paced_clock(recording, profile))
    predicted = simulated(recording, profile, steady_clock(recording))
    curves = (
        ("vLLM", "black", 1.6, curves_of(recording)),
        ("model, at vLLM's pace", "tab:orange", 0.9, paced.curves),
        ("model, fitted on the first half", "tab:blue", 0.7, predicted.curves),
    )
    figure, axes = plt.subplots(len(_PANELS), 1, figsize=(8, 7), sharex=True, layout="constrained")
    for axis, (name, title) in zip(axes, _PANELS, strict=True):
        for label, color, width, curve in curves:
            axis.plot(curve.at_seconds, getattr(curve, name), color=color, linewidth=width, label=label)
        axis.axvline(half, color="grey", linestyle=":", linewidth=0.8)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
    axes[0].legend(loc="lower right", fontsize=8, ncols=3)
    axes[-1].set_xlabel("seconds (dotted: the second half begins)")
    figure.savefig(path, dpi=66)
    plt.close(figure)
