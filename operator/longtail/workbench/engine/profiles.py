"""How fast one replica is: published measurements of real GPUs, as parameters of the engine model.

Source: measurements collected by NVIDIA AIConfigurator (Apache-2.0, commit 095f58a5, ``silicon_sample.csv``,
mostly SemiAnalysis InferenceMAX points), aggregated serving only, fitted by non-negative least squares on
relative error::

    TPOT = a + b * batch + c * KV tokens in use + d * prefill tokens in the step

``c`` multiplies the KV tokens of the whole batch (batch x mean context); ``1 / d`` is the prefill rate under
load. The KV capacities are computed, not measured: (0.9 * HBM - 3.76 GB - weights per GPU) * GPUs / KV bytes
per token, BF16 KV. Slots and model length are choices of a deployment: vLLM's ``--max-num-seqs`` (256 below
the largest GPUs, 1024 on them) and ``--max-model-len``; the values here are the ones we simulate with.
"""

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """Speed and size of one replica. Seconds and tokens throughout.

    The fit says 24 ms for 43 sequences of R1-like work, prefill included; without it:

    >>> profile = PROFILES["qwen3-32b-1xh100-fp8"]
    >>> round(1000 * profile.step_seconds(batch=43, kv_tokens=148_000), 1)
    21.4
    """

    name: str
    model: str
    step_base_seconds: float
    """a: one decode step of an empty batch (reading the weights)."""
    step_seconds_per_sequence: float
    """b: what one more sequence adds to a step."""
    step_seconds_per_kv_token: float
    """c: what one more token of context, over all sequences, adds to a step (reading the KV cache)."""
    prefill_tokens_per_second: float
    """1 / d: prompt tokens computed per second while others decode."""
    kv_capacity_tokens: int
    max_model_len_tokens: int
    """Longest prompt + output the engine accepts; must fit in the KV cache."""
    slots: int = 256
    """Sequences decoded at once (``max_num_seqs``)."""
    prefill_budget_tokens: int = 8192
    """Prompt tokens one step may carry (``max_num_batched_tokens``); a longer prompt has its own step."""
    gpus: int = 1
    gpu_model: str = "NVIDIA H100 80GB HBM3"

    def __post_init__(self) -> None:
        for field in (
            "step_base_seconds",
            "prefill_tokens_per_second",
            "slots",
            "prefill_budget_tokens",
            "gpus",
        ):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"EngineProfile {self.name!r}: {field} must be finite and > 0, got {value!r}")
        for field in ("step_seconds_per_sequence", "step_seconds_per_kv_token"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"EngineProfile {self.name!r}: {field} must be finite and >= 0, got {value!r}")
        if not 2 <= self.max_model_len_tokens <= self.kv_capacity_tokens:
            raise ValueError(
                f"EngineProfile {self.name!r}: max_model_len_tokens must be from 2 to kv_capacity_tokens "
                f"({self.kv_capacity_tokens}), got {self.max_model_len_tokens}"
            )

    def step_seconds(self, *, batch: int, kv_tokens: int) -> float:
        """Duration of one decode step (the TPOT of everybody in it), without prefill."""
        return (
            self.step_base_seconds + self.step_seconds_per_sequence * batch + self.step_seconds_per_kv_token * kv_tokens
        )

    def faster(self, speed: float) -> "EngineProfile":
        """The same replica with every duration divided by ``speed``."""
        return dataclasses.replace(
            self,
            step_base_seconds=self.step_base_seconds / speed,
            step_seconds_per_sequence=self.step_seconds_per_sequence / speed,
            step_seconds_per_kv_token=self.step_seconds_per_kv_token / speed,
            prefill_tokens_per_second=self.prefill_tokens_per_second * speed,
        )


def _fitted(
    name: str,
    model: str,
    *,
    ms: tuple[float, float, float],
    prefill_tokens_per_second: float,
    kv_capacity_tokens: int,
    max_model_len_tokens: int,
    gpus: int,
    gpu_model: str = "NVIDIA H100 80GB HBM3",
) -> EngineProfile:
    """A row of the table in its own units: a in ms, b in ms per sequence, c in ms per 1000 KV tokens."""
    base, per_sequence, per_thousand_kv = ms
    return EngineProfile(
        name=name,
        model=model,
        step_base_seconds=base / 1e3,
        step_seconds_per_sequence=per_sequence / 1e3,
        step_seconds_per_kv_token=per_thousand_kv / 1e6,
        prefill_tokens_per_second=prefill_tokens_per_second,
        kv_capacity_tokens=kv_capacity_tokens,
        max_model_len_tokens=max_model_len_tokens,
        gpus=gpus,
        gpu_model=gpu_model,
    )


_ROWS = (
    # TensorRT-LLM 1.0.0rc3, MAPE 1.8 %, batches of 8 to 128.
    _fitted(
        "llama-3.1-8b-1xh100",
        "meta-llama/Llama-3.1-8B-Instruct",
        ms=(6.4209, 0.0, 0.049941),
        prefill_tokens_per_second=51_012,
        kv_capacity_tokens=438_308,
        max_model_len_tokens=65_536,
        gpus=1,
    ),
    # TensorRT-LLM 1.0.0rc3, MAPE 3.6 %, batches of 8 to 128. KV binds at 43 sequences of R1-like work. It
    # stands in for DeepSeek-R1-Distill-Qwen-32B too (same layers, KV heads and head size; no measured points
    # found).
    _fitted(
        "qwen3-32b-1xh100-fp8",
        "Qwen/Qwen3-32B",
        ms=(13.592, 0.079734, 0.029597),
        prefill_tokens_per_second=14_422,
        kv_capacity_tokens=149_726,
        max_model_len_tokens=40_960,
        gpus=1,
    ),
    # vLLM 0.12.0, MAPE 2.6 %, batches of 8 to 128.
    _fitted(
        "qwen3-32b-2xh100",
        "Qwen/Qwen3-32B",
        ms=(13.831, 0.048255, 0.063335),
        prefill_tokens_per_second=20_640,
        kv_capacity_tokens=311_279,
        max_model_len_tokens=40_960,
        gpus=2,
    ),
    # SGLang 0.5.9, MAPE 4.2 %, batches of 4 to 64.
    _fitted(
        "deepseek-r1-8xh200-fp8",
        "deepseek-ai/DeepSeek-R1",
        ms=(9.1891, 0.36056, 0.0),
        prefill_tokens_per_second=25_418,
        kv_capacity_tokens=659_935,
        max_model_len_tokens=65_536,
        gpus=8,
        gpu_model="NVIDIA H200",
    ),
    # vLLM 0.18.0, MAPE 4.8 %, batches of 4 to 64.
    _fitted(
        "gpt-oss-120b-2xh100-fp4",
        "openai/gpt-oss-120b",
        ms=(4.5918, 0.1523, 0.0021844),
        prefill_tokens_per_second=43_647,
        kv_capacity_tokens=1_109_483,
        max_model_len_tokens=131_072,
        gpus=2,
    ),
)

PROFILES: dict[str, EngineProfile] = {row.name: row for row in _ROWS}
