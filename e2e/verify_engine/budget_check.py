"""A real vLLM with a reasoning parser, behind a real LiteLLM proxy with our hook: budgets are taken and enforced.

The model has random weights. Decoded greedily it repeats itself and never says that it has thought enough, so the
length of a thought is what vLLM lets it be.
"""

from __future__ import annotations

import json
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from longtail_e2e import ProcessGroup
from longtail_e2e.litellm import LiteLlm, ensure_litellm
from longtail_e2e.ports import LOOPBACK, PortReservation
from longtail_e2e.progress import Progress
from verify_engine.environment import Environment, ensure_environment, run
from verify_engine.report import Report
from verify_engine.serving import MODEL, vllm_command

_SERVICE: Final = "inference/r1"
_ALL_TOKENS: Final = 400
_LEVEL_TOKENS: Final = 64
_END: Final = "</think>"
_PARSER: Final = {"--reasoning-parser": "deepseek_r1"}
_MODEL_SCRIPT: Final = """
import json, pathlib, sys
from transformers import AutoTokenizer
source, target = map(pathlib.Path, sys.argv[1:])
tokenizer = AutoTokenizer.from_pretrained(source)
tokenizer.add_tokens(["<think>", "</think>"])
tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}<think>"
tokenizer.save_pretrained(target)
config = json.loads((source / "config.json").read_text())
(target / "config.json").write_text(json.dumps({**config, "vocab_size": 520}))
"""


def check_budget(*, progress: Progress) -> Report:
    """Set up, start and compare: two starts of vLLM, half a minute each, and one of the proxy."""
    environment = ensure_environment(progress=progress)
    litellm = ensure_litellm(progress=progress)
    report = Report("vllm behind litellm", environment.vllm_version)
    ports = PortReservation()
    with tempfile.TemporaryDirectory(prefix="longtail-verify-") as name:
        directory = Path(name)
        processes = ProcessGroup(directory)
        run(environment.python, "-c", _MODEL_SCRIPT, environment.model, directory / "thinker", what="making the model")
        thinker = Environment(python=environment.python, model=directory / "thinker")
        published = directory / "effort.json"
        proxy = LiteLlm(litellm, name="proxy", port=ports.take(), directory=directory)
        port = ports.take()
        try:
            progress("vllm", "starting the engine with a reasoning parser")
            processes.start(vllm_command(thinker, port=port, slots=4, options=_PARSER))
            progress("proxy", "starting LiteLLM")
            backend = {"model": f"hosted_vllm/{MODEL}", "api_base": f"http://{LOOPBACK}:{port}/v1", "api_key": "none"}
            processes.start(
                proxy.command(
                    models={"with-parser": backend, "without-parser": backend},
                    environment={
                        "LONGTAIL_EFFORT_PATH": str(published),
                        "LONGTAIL_EFFORT_MODELS": json.dumps(
                            {name: {"service": _SERVICE} for name in ("with-parser", "without-parser")}
                        ),
                    },
                )
            )
            _limited(report, proxy, published)
            progress("vllm", "starting it without a reasoning parser")
            processes.stop("vllm")
            processes.start(vllm_command(thinker, port=port, slots=4))
            _refused(report, proxy, published)
            progress("verify", "budgets are compared", done=True)
        finally:
            processes.stop_all()
            ports.release()
    return report


def _limited(report: Report, proxy: LiteLlm, published: Path) -> None:
    report.equal("no document: tokens of the thought", expected=_ALL_TOKENS, seen=_thought(proxy))
    _publish(published)
    report.equal("a document: tokens of the thought", expected=_LEVEL_TOKENS, seen=_thought(proxy))
    for own, expected in ((20, 20), (200, _LEVEL_TOKENS), (0, 0), (-1, _LEVEL_TOKENS)):
        seen = _thought(proxy, thinking_token_budget=own)
        report.equal(f"a client that asks for {own}", expected=expected, seen=seen)
    _publish(published, seconds=-1.0)
    report.equal("an expired document: tokens of the thought", expected=_ALL_TOKENS, seen=_thought(proxy))


def _refused(report: Report, proxy: LiteLlm, published: Path) -> None:
    _publish(published)
    first, second = (_ask(proxy, model="without-parser") for _ in range(2))
    report.equal("no reasoning parser: status", expected=[400, 200], seen=[first.status_code, second.status_code])
    named = "--reasoning-parser" in first.text
    report.holds("no reasoning parser: the error", expected="names it", seen=first.text, holds=named)


def _publish(file: Path, *, seconds: float = 600.0) -> None:
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    level = {"level": "low", "thinkingTokens": _LEVEL_TOKENS, "reasoningEffort": None}
    body = {
        "service": _SERVICE,
        "model": None,
        **level,
        "validUntil": until.isoformat(),
        "generation": 1,
        "classes": {},
    }
    fresh = file.with_suffix(".fresh")
    fresh.write_text(json.dumps(body))
    fresh.rename(file)
    time.sleep(1.0)


def _ask(proxy: LiteLlm, *, model: str, **fields: Any) -> Any:
    return proxy.ask(model, temperature=0, max_tokens=_ALL_TOKENS, ignore_eos=True, **fields)


def _thought(proxy: LiteLlm, **fields: Any) -> Any:
    """Tokens before the end of the thought; the whole body, where it is something else.

    Not from ``usage``: vLLM's parser for DeepSeek-R1 counts reasoning tokens only after a ``<think>`` in the output,
    and the template, like R1's own, ends with it.
    """
    body = _ask(proxy, model="with-parser", logprobs=True, **fields).json()
    try:
        tokens = [each["token"] for each in body["choices"][0]["logprobs"]["content"]]
    except (KeyError, TypeError):
        return body
    return tokens.index(_END) if _END in tokens else len(tokens)
