"""The same requests to a real vLLM and to the engine model of the workbench: do they agree?"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

from longtail_e2e import ProcessGroup
from longtail_e2e.build import cache_directory
from longtail_e2e.ports import LOOPBACK, PortReservation
from longtail_e2e.progress import Progress
from verify_engine.environment import ensure_environment
from verify_engine.fidelity import (
    TOLERANCE_PERCENT,
    Comparison,
    compare,
    fitted,
    half_seconds,
    pace_of,
    paced_clock,
    simulated,
    steady_clock,
)
from verify_engine.fidelity_picture import draw
from verify_engine.fidelity_run import Recording, measured_rate, record, timetable
from verify_engine.report import Report
from verify_engine.serving import vllm_command

PICTURE: Final = Path(__file__).resolve().parents[2] / "docs" / "verify-engine-fidelity.png"
_SLOTS: Final = 8
_BLOCK_TOKENS: Final = 32
_SECONDS: Final = 160.0
_BURST_SECONDS: Final = 20.0
_LOAD: Final = 0.7


def check_fidelity(*, progress: Progress) -> Report:
    """Start a vLLM of eight slots, send it requests for 160 s, and compare. Draws ``PICTURE``."""
    environment = ensure_environment(progress=progress)
    with tempfile.TemporaryDirectory(prefix="longtail-fidelity-") as name:
        ports, processes = PortReservation(), ProcessGroup(Path(name))
        try:
            port = ports.take()
            progress("fidelity", "starting the engine")
            processes.start(
                vllm_command(
                    environment,
                    port=port,
                    slots=_SLOTS,
                    options={"--block-size": str(_BLOCK_TOKENS)},  # the smallest on the CPU
                    # One core for the arithmetic, so that the server and the clients do not take turns with it.
                    variables={"VLLM_CPU_OMP_THREADS_BIND": "0"},
                    # Where it is not allowed to, `nice` says so and starts it all the same.
                    niceness=("nice", "-n", "-5"),
                )
            )
            recording = asyncio.run(_recorded(f"http://{LOOPBACK}:{port}", progress))
        finally:
            processes.stop_all()
            ports.release()
    recording.write(cache_directory() / "fidelity-recording.json")  # to look into what does not agree
    report = Report("fidelity", environment.vllm_version)
    judge(recording, report)
    draw(recording, PICTURE)
    progress("fidelity", "the engine model is compared", done=True)
    return report


async def _recorded(url: str, progress: Progress) -> Recording:
    progress("fidelity", "measuring its rate")
    rate = await measured_rate(url, slots=_SLOTS)
    planned = timetable(seconds=_SECONDS, tokens_per_second=rate, load=_LOAD, burst_seconds=_BURST_SECONDS, seed=1)
    progress("fidelity", f"{len(planned)} requests in {_SECONDS:.0f} s")
    return await record(url, planned, slots=_SLOTS, block_tokens=_BLOCK_TOKENS, seed=1)


def judge(recording: Recording, report: Report) -> None:
    """Compare both ways. What must hold is the comparison at the machine's pace; the other one is a figure.

    A prediction of the second half from the first is also a statement about the machine: where other processes share
    its cores, the pace itself moves by more than the tolerance. ``pace_percent`` says by how much.
    """
    half = half_seconds(recording)
    profile = fitted(recording, until_seconds=half)
    predicted = compare(recording, simulated(recording, profile, steady_clock(recording)), since=half)
    paced = compare(recording, simulated(recording, profile, paced_clock(recording, profile)), since=half)
    for one in paced:
        if one.what.startswith("time to the answer"):
            continue  # the client's: it contains the HTTP server's share, which is not modelled
        report.holds(
            f"{one.what}, second half, at the machine's pace",
            expected=f"{one.real:.4g} within {TOLERANCE_PERCENT:g} %",
            seen=f"{one.model:.4g}",
            holds=abs(one.error_percent) <= TOLERANCE_PERCENT,
        )
    lengths = [answer.output_tokens for answer in recording.answered]
    report.figures.update(
        {
            "requests": len(lengths),
            "output_tokens": {"shortest": min(lengths), "longest": max(lengths), "sum": sum(lengths)},
            "fit": {
                "step_base_milliseconds": round(1e3 * profile.step_base_seconds, 3),
                "step_milliseconds_per_sequence": round(1e3 * profile.step_seconds_per_sequence, 3),
                "step_milliseconds_per_1000_kv_tokens": round(1e6 * profile.step_seconds_per_kv_token, 3),
                "prefill_tokens_per_second": round(profile.prefill_tokens_per_second),
            },
            "pace_percent": {
                "second_half": round(100 * (pace_of(recording, profile, since=half) - 1), 1),
                "first_half": round(100 * (pace_of(recording, profile, since=0.0, until=half) - 1), 1),
            },
            "second_half_at_the_machines_pace": [_row(one) for one in paced],
            "second_half_predicted": [_row(one) for one in predicted],
        }
    )


def _row(one: Comparison) -> dict[str, Any]:
    return {
        "what": one.what,
        "real": round(one.real, 3),
        "model": round(one.model, 3),
        "error_percent": round(one.error_percent, 1),
    }
