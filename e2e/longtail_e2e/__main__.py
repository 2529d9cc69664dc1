"""`python -m longtail_e2e build` builds what clusters need, `… image` the image; `… up` runs a cluster until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
import threading

from longtail_e2e import (
    Cluster,
    HarnessError,
    PrintedProgress,
    ensure_chart_tools,
    ensure_components,
    unavailable,
)
from longtail_e2e.image import ensure_image


def main() -> int:
    """Run the command line and return its exit code; the reasons of a failure go to standard error."""
    parser = argparse.ArgumentParser(prog="python -m longtail_e2e", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the components and what checks the charts, unless the cache holds them")
    commands.add_parser("image", help="build the operator's image into an archive, unless the cache holds it")
    up = commands.add_parser("up", help="run a cluster until Ctrl-C")
    up.add_argument("--nodes", type=int, default=4)
    up.add_argument("--gpus-per-node", type=int, default=8)
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            return _build()
        if arguments.command == "image":
            return _image()
        return _run_until_interrupted(nodes=arguments.nodes, gpus_per_node=arguments.gpus_per_node)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 1


def _build() -> int:
    reason = unavailable()
    if reason is not None:
        # Not an error: the tests that need the components are skipped with the same words.
        print(f"Nothing built: {reason}", file=sys.stderr)
        return 0
    progress = PrintedProgress()
    print(ensure_components(progress=progress).directory)
    print(ensure_chart_tools(progress=progress).directory)
    return 0


def _image() -> int:
    image = ensure_image(progress=PrintedProgress())
    own = sum(image.layer_bytes) - image.base_bytes
    print(f"{image.archive}\n{image.name}: {own / 1e6:.0f} MB over a base of {image.base_bytes / 1e6:.0f} MB, unpacked")
    return 0


def _run_until_interrupted(*, nodes: int, gpus_per_node: int) -> int:
    try:
        with Cluster.start(nodes=nodes, gpus_per_node=gpus_per_node, progress=PrintedProgress()) as cluster:
            print(f"export KUBECONFIG={cluster.kubeconfig}\nPrometheus: {cluster.prometheus_url}", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
