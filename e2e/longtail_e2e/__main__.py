"""`python -m longtail_e2e build` builds all that the tests need; `… up` runs a cluster until Ctrl-C."""

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


def main() -> int:
    """Run the command line and return its exit code; the reasons of a failure go to standard error."""
    parser = argparse.ArgumentParser(prog="python -m longtail_e2e", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build what the tests need, unless the cache holds it")
    up = commands.add_parser("up", help="run a cluster until Ctrl-C")
    up.add_argument("--nodes", type=int, default=4)
    up.add_argument("--gpus-per-node", type=int, default=8)
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            return _build()
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
