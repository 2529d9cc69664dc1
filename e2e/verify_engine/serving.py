"""The command that serves the tiny model with a real vLLM on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import requests

from longtail_e2e import Command
from longtail_e2e.ports import LOOPBACK
from verify_engine.environment import MAX_MODEL_LEN_TOKENS, Environment

MODEL: Final = "tiny"


def vllm_command(
    environment: Environment,
    *,
    port: int,
    slots: int,
    options: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    niceness: Sequence[str] = ("nice",),
) -> Command:
    """How vLLM is started on a loopback port, with so many slots (``--max-num-seqs``).

    ``options`` are further flags of ``vllm serve``, ``variables`` of its environment, ``niceness`` the command that
    sets its priority.
    """
    url = f"http://{LOOPBACK}:{port}"
    flags = {
        "--host": LOOPBACK,
        "--port": str(port),
        "--served-model-name": MODEL,
        "--load-format": "dummy",
        "--dtype": "float32",
        "--max-num-seqs": str(slots),
        "--max-model-len": str(MAX_MODEL_LEN_TOKENS),
        **(options or {}),
    }
    flat = [text for pair in flags.items() for text in pair]
    return Command(
        name="vllm",
        arguments=[*niceness, str(environment.vllm), "serve", str(environment.model), *flat, "--enforce-eager"],
        environment={
            # vLLM looks for "cpu" in its version, which PyPI does not take. Left to itself it finds no platform, loads
            # its AVX-512 build, and dies of SIGILL on a machine without.
            "VLLM_TARGET_DEVICE": "cpu",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "PYTHONFAULTHANDLER": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": "",
            "PATH": f"{environment.python.parent}:/usr/local/bin:/usr/bin:/bin",
            **(variables or {}),
        },
        ready=lambda: requests.get(f"{url}/health", timeout=2.0).status_code == requests.codes.ok,
        ready_seconds=600.0,
        stop_seconds=30.0,
    )
