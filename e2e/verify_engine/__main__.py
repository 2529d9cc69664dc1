"""``python -m verify_engine``: compare, print the outcome as JSON, and fail if anything does not hold."""

from __future__ import annotations

import argparse
import json
import sys

from longtail_e2e.errors import HarnessError
from longtail_e2e.progress import PrintedProgress
from verify_engine.budget_check import check_budget
from verify_engine.fidelity_check import check_fidelity
from verify_engine.sglang_check import check_sglang
from verify_engine.vllm_check import check_vllm

_ENGINES = {"sglang": check_sglang, "vllm": check_vllm, "fidelity": check_fidelity, "budget": check_budget}


def main() -> int:
    """Compare the engines named on the command line, by default all."""
    parser = argparse.ArgumentParser(prog="verify_engine", description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"of {', '.join(_ENGINES)}; default: all")
    chosen = parser.parse_args().engines or list(_ENGINES)
    unknown = [name for name in chosen if name not in _ENGINES]
    if unknown:
        parser.error(f"unknown engine {unknown[0]!r}, choose from {', '.join(_ENGINES)}")
    progress = PrintedProgress()
    try:
        reports = [_ENGINES[name](progress=progress) for name in chosen]
    except HarnessError as error:
        print(f"verify_engine: {error}", file=sys.stderr)
        return 2
    print(json.dumps([report.as_json() for report in reports], indent=2))
    for report in reports:
        for check in report.checks:
            if not check.holds:
                print(f"{report.engine}: {check.what}: expected {check.expected}, seen {check.seen}", file=sys.stderr)
    return 0 if all(report.passed for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
