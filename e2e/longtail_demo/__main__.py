"""`make demo`: see the main job done, on real Kubernetes and Prometheus, without a GPU."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console
from rich.live import Live

from longtail_demo import manifests, picture, sample, table
from longtail_demo.place import Place, existing_cluster, own_cluster
from longtail_e2e import HarnessError, PrintedProgress, unavailable

ROOT: Final = Path(__file__).parents[2]
LOAD: Final = (
    ("calm", 25, 10.0),
    ("rise", 65, 90.0),
    ("peak", 20, 90.0),
    ("fall", 25, 10.0),
    ("calm again", 45, 10.0),
)
"""Phase, seconds, requests per second at its end. A replica holds some 40 thoughts of 3.7 s: 11 a second."""


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--context", help="context of an existing cluster in your kubeconfig")
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out", help="folder of the results")
    arguments = parser.parse_args()
    reason = unavailable()
    if reason is not None:
        print(f"make demo: {reason}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    progress = PrintedProgress()
    crds = ROOT / "crds"
    place: AbstractContextManager[Place] = (
        existing_cluster(arguments.context, crds=crds, progress=progress)
        if arguments.context
        else own_cluster(crds=crds, progress=progress)
    )
    samples: list[sample.Sample] = []
    try:
        with place as running:
            _drive(running, samples)
            _explain(running)
    except KeyboardInterrupt:
        print("\nmake demo: interrupted; everything that was started has been stopped", file=sys.stderr)
        return 130
    except HarnessError as error:
        print(f"make demo: {error}", file=sys.stderr)
        return 1
    finally:
        if samples:
            _report(samples, arguments.out)
    return 0


def _drive(place: Place, samples: list[sample.Sample]) -> None:
    console = Console()
    console.print(
        "\nThe load rises ninefold and falls again. Time lapse: engines and cold starts are ten times as fast"
        " as real ones; all else is real: API server, controllers, Prometheus, operator.\n"
    )
    started = time.monotonic()
    ends = started
    offered = 0.0
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        for phase, seconds, goal in LOAD:
            begins, ends, first = ends, ends + seconds, offered or goal
            while (now := time.monotonic()) < ends:
                offered = first + (goal - first) * (now - begins) / seconds
                place.engines.rate(manifests.NAME, offered)
                samples.append(sample.take(place, seconds=now - started, offered_requests_per_second=round(offered, 1)))
                if console.is_terminal:
                    live.update(table.render(samples, phase=phase))
                elif len(samples) % 5 == 1:
                    print(table.plain(samples[-1]), flush=True)
                time.sleep(max(0.0, now + 1.0 - time.monotonic()))
            offered = goal


def _explain(place: Place) -> None:
    print("\n$ kubectl get rsv -n longtail-demo")
    print(place.kubectl("get", "rsv", "-n", manifests.NAMESPACE))
    print("$ kubectl get events, scaling only")
    events = place.kubectl("get", "events", "-n", manifests.NAMESPACE, "--sort-by=.metadata.creationTimestamp")
    print("\n".join(line for line in events.splitlines() if "New size" in line and "reasoningserving" in line))


def _report(samples: list[sample.Sample], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    sample.write_csv(samples, out / "timeline.csv")
    picture.draw(samples, out / "timeline.png")
    table.bars(samples, Console())
    most, last = max(s.current for s in samples), samples[-1]
    longest = max(s.waiting_requests for s in samples)
    print(f"\nreplicas: {samples[0].current} → {most} → {last.current}")
    print(f"most requests waiting at once: {longest}")
    print(f"requests cut when pods were removed: {last.killed_requests}")
    print(f"{out / 'timeline.png'}\n{out / 'timeline.csv'}")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
