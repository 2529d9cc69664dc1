"""The command line of the live process."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from longtail.workbench.engine.service import ServiceDefinition


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; ``definitions`` holds the services."""
    parser = argparse.ArgumentParser(prog="python -m longtail.workbench.engine.live")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 picks a free one")
    parser.add_argument("--kubeconfig", help="follow the pods of this cluster")
    parser.add_argument("--speed", type=float, default=1.0, help="how much faster GPU and clients are")
    parser.add_argument("--max-seconds", type=float, default=3600.0, help="stop by itself after this long")
    parser.add_argument("--services", type=Path, help="JSON file with a list of definitions")
    one = parser.add_argument_group("one service, without a file")
    one.add_argument("--name", default="r1")
    one.add_argument("--namespace", default="default")
    one.add_argument("--selector", help="label selector of its pods")
    one.add_argument("--profile", default="qwen3-32b-1xh100-fp8")
    one.add_argument("--slots", type=int)
    one.add_argument("--engine", default="vllm")
    one.add_argument("--rate", type=float, default=0.0, help="requests per second, at speed 1")
    one.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args(argv)
    if not 0 < parsed.speed <= 1000:
        parser.error(f"--speed must be above 0 and at most 1000, got {parsed.speed}")
    if not 0 < parsed.max_seconds <= 7 * 86_400:
        parser.error(f"--max-seconds must be above 0 and at most a week, got {parsed.max_seconds}")
    try:
        parsed.definitions = _definitions(parsed)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return parsed


def _definitions(parsed: argparse.Namespace) -> list[ServiceDefinition]:
    if parsed.services:
        return TypeAdapter(list[ServiceDefinition]).validate_json(parsed.services.read_bytes())
    names = ("name", "namespace", "selector", "profile", "slots", "engine", "seed")
    given = {name: getattr(parsed, name) for name in names}
    return [ServiceDefinition.model_validate({**given, "rate": {"points": [(0.0, parsed.rate)]}})]
