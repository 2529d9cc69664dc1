"""The timeline as a picture: load, tokens owed, replicas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from longtail_demo.sample import Sample


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Write the picture."""
    seconds = [sample.seconds for sample in samples]
    figure, (load, owed, replicas) = plt.subplots(3, 1, sharex=True, figsize=(11, 9), layout="constrained")
    figure.suptitle("longtail demo: R1-like thoughts, 10 × time lapse (1 s here is 10 s of a real pool)")

    load.plot(seconds, [s.running_requests for s in samples], color="tab:blue", label="running")
    load.plot(seconds, [s.waiting_requests for s in samples], color="tab:red", label="waiting for a slot")
    load.set_ylabel("requests")
    rate = load.twinx()
    offered = [s.offered_requests_per_second for s in samples]
    rate.plot(seconds, offered, color="tab:gray", linestyle=":", label="offered (right)")
    rate.set_ylabel("requests/s")
    rate.set_ylim(bottom=0)
    handles, labels = load.get_legend_handles_labels()
    more_handles, more_labels = rate.get_legend_handles_labels()
    load.legend([*handles, *more_handles], [*labels, *more_labels], loc="upper right")

    true = [s.owed_tokens_true / 1000 for s in samples]
    known = [(s.seconds, s.owed_tokens / 1000) for s in samples if s.owed_tokens is not None]
    owed.plot(seconds, true, color="tab:gray", label="true (known to the simulator only)")
    owed.plot(*zip(*known, strict=True) if known else ([], []), color="tab:green", label="longtail's estimate")
    owed.set_ylabel("tokens owed, thousands")
    owed.legend(loc="upper right")

    replicas.step(seconds, [s.current for s in samples], where="post", color="tab:blue", label="asked for")
    ready = [s.ready for s in samples]
    serving = [max(s.ready - s.draining, 0) for s in samples]
    replicas.fill_between(seconds, serving, step="post", color="tab:blue", alpha=0.25, label="serving")
    replicas.fill_between(
        seconds, serving, ready, step="post", color="tab:orange", alpha=0.4, label="draining: no new requests"
    )
    replicas.set_ylabel("replicas")
    replicas.set_xlabel("seconds")
    replicas.set_ylim(bottom=0)
    replicas.legend(loc="upper right")
    for axes in (load, owed, replicas):
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)
