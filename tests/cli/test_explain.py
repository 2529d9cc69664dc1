"""``explain`` against an API server over real sockets: the command runs as a process of its own."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import serving


async def explain(server: KubernetesFake, directory: Path, name: str, program: str) -> tuple[int, str]:
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: here, users: [{name: u, user: {token: t}}],"
        f" clusters: [{{name: c, cluster: {{server: '{server.url}'}}}}],"
        " contexts: [{name: here, context: {cluster: c, user: u}}]}"
    )
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name(program)),
        "explain",
        name,
        f"--kubeconfig={kubeconfig}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"COLUMNS": "200"},
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize("program", ["longtail", "kubectl-longtail"])
async def test_a_resource_is_explained_by_command_and_plugin(tmp_path: Path, program: str) -> None:
    async with KubernetesFake().serve() as server:
        server.put(serving())
        code, output = await explain(server, tmp_path, "inference/r1", program)
    assert code == 0, output
    assert "scales Deployment r1" in output


async def test_a_resource_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with KubernetesFake().serve() as server:
        code, output = await explain(server, tmp_path, "inference/r2", "longtail")
    assert (code, output) == (1, "Error: there is no ReasoningServing inference/r2 in this cluster\n")


async def test_what_a_pool_costs_is_told_with_its_number(tmp_path: Path) -> None:
    day = {
        "knownHours": 7,
        "gpuHours": "190",
        "amount": "570",
        "amountPerThousandAnswers": "12",
        "headroomPercent": 21,
        "startingPercent": 3,
        "drainingPercent": 1,
    }
    cost = {"gpuClass": "H100", "gpus": 16, "currency": "USD", "hourlyAmount": "47.84", "lastDay": day}
    async with KubernetesFake().serve() as server:
        server.put(serving() | {"status": {"observedGeneration": 1, "cost": cost}})
        _, output = await explain(server, tmp_path, "inference/r1", "longtail")
        assert "it holds 16 GPUs (H100), 47.84 USD an hour" in output
        assert "the last 24 hours (7 of them seen): 190 GPU-hours, 570 USD; headroom 21 %" in output
        assert "1,000 answers cost 12 USD" in output
        del cost["hourlyAmount"], cost["currency"], cost["lastDay"], cost["gpuClass"]
        server.put(serving() | {"status": {"observedGeneration": 1, "cost": cost}})
        _, output = await explain(server, tmp_path, "inference/r1", "longtail")
        assert "it holds 16 GPUs\n" in output


async def test_what_each_class_of_requests_takes_is_told_as_a_table(tmp_path: Path) -> None:
    classes = [
        {"name": "premium", "requestsPerSecond": "1.2", "meanTokens": 4200, "reasoningPercent": 86, "workPercent": 61},
        {"name": "other", "requestsPerSecond": "2.5", "meanTokens": 1300, "workPercent": 39},
    ]
    async with KubernetesFake().serve() as server:
        server.put(serving() | {"status": {"observedGeneration": 1, "classes": classes}})
        _, output = await explain(server, tmp_path, "inference/r1", "longtail")
    lines = [line.split() for line in output.splitlines()]
    assert ["premium", "1.2", "4,200", "86", "%", "61", "%"] in lines
    assert ["other", "2.5", "1,300", "unknown", "39", "%"] in lines
