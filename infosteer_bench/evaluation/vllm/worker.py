"""Runs inside vLLM's worker processes: reads loaded weights back, so that a weight swap can be believed.

`WorkerExtension` is given to vLLM; the engine calls its methods by name (`collective_rpc`). Matrices may be
repacked for a kernel and their storage empty or shuffled, so they are read through the layer itself: a one-hot row
times W^T is a column of W, exactly, in every dtype (all other products are zero).

It also ends an orphaned engine: after a SIGKILL of the owner, vLLM's processes would keep their memory for ever.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from infosteer_bench.evaluation.vllm.steering import SteeringExtension

if TYPE_CHECKING:
    import torch

OWNER = "INFOSTEER_ENGINE_OWNER"
"""Environment variable with the id of the process that the engine belongs to."""
_POLL_S = 1.0
COLUMNS = 8
"""Columns read of every matrix, evenly spaced over its input width."""
ROWS = 512
"""Rows read of the embedding, evenly spaced over the vocabulary."""


def spread(size: int, count: int) -> list[int]:
    """`count` places evenly spaced over range(size), first and last among them."""
    if size <= count:
        return list(range(size))
    return [round(i * (size - 1) / (count - 1)) for i in range(count)]


def tensor_digest(tensor: torch.Tensor) -> str:
    """sha256 of a tensor's values and shape; -0.0 counts as 0.0, which a one-hot product cannot tell apart."""
    import torch

    plain = (tensor.detach().to("cpu") + 0.0).contiguous()
    data = plain.view(torch.uint8) if plain.ndim else plain.reshape(1).view(torch.uint8)
    return hashlib.sha256(f"{tuple(plain.shape)}".encode() + data.numpy().tobytes()).hexdigest()


class WeightProbe:
    """Mixed into vLLM's worker class."""

    model_runner: Any

    def probe_weights(self) -> dict[str, str]:
        """Digests of what this worker holds: norms and biases whole, COLUMNS of every matrix, ROWS of the embedding.

        Names are vLLM's: qkv_proj and gate_up_proj are the checkpoint's matrices one below the other.
        """
        import torch

        digests: dict[str, str] = {}
        with torch.inference_mode():
            for name, module in self.model_runner.get_model().named_modules():
                leaf = name.rpartition(".")[2]
                weight = getattr(module, "weight", None)
                if weight is None:
                    continue
                if leaf.endswith("norm"):
                    digests[f"{name}.weight"] = tensor_digest(weight)
                elif leaf == "embed_tokens":
                    digests[f"{name}.weight"] = tensor_digest(weight[spread(_tokens(module), ROWS)])
                    if hasattr(module, "cpu_linear"):  # tied: also the output matrix, packed apart for its kernel
                        digests[f"{name}.packed"] = tensor_digest(_columns(module)[:, : _tokens(module)])
                elif leaf.endswith("_proj"):
                    digests[f"{name}.weight"] = tensor_digest(_columns(module))
                    if getattr(module, "bias", None) is not None:
                        digests[f"{name}.bias"] = tensor_digest(module.bias)
                elif leaf == "lm_head":
                    digests[f"{name}.weight"] = tensor_digest(_columns(module)[:, : _tokens(module)])
        return digests

    def refresh_tied_head(self) -> None:
        """Repack an output matrix that shares its weight with the embedding; call it after `reload_weights`.

        On the CPU vLLM 0.32 packs such a matrix apart and, as the checkpoint does not name it, a reload leaves the old
        one in place: Qwen models would go on answering with the previous checkpoint's head.
        """
        for name, module in self.model_runner.get_model().named_modules():
            if name.rpartition(".")[2] == "lm_head" and hasattr(module, "cpu_linear"):
                module.quant_method.process_weights_after_loading(module)


class WorkerExtension(WeightProbe, SteeringExtension):
    """All that vLLM's worker class gets (`worker_extension_cls`)."""


def _tokens(module: Any) -> int:
    """Rows of an embedding that are tokens of this worker; the rest is padding."""
    held = module.shard_indices
    return held.org_vocab_end_index - held.org_vocab_start_index


def _columns(module: Any) -> torch.Tensor:
    """COLUMNS columns of a linear layer's weight, as rows, read through the layer's own kernel."""
    import torch

    width = module.embedding_dim if hasattr(module, "embedding_dim") else module.input_size_per_partition
    dtype = getattr(module, "params_dtype", None) or module.weight.dtype
    one_hot = torch.zeros(min(COLUMNS, width), width, dtype=dtype, device=module.weight.device)
    for row, place in enumerate(spread(width, COLUMNS)):
        one_hot[row, place] = 1
    return module.quant_method.apply(module, one_hot, None)


def end_with_owner(owner_id: int) -> None:
    """Watch the process `owner_id`, an ancestor of this one; when it is gone, end all in between and this one."""
    import psutil

    owner = psutil.Process(owner_id)
    between = []
    for ancestor in psutil.Process().parents():
        if ancestor == owner:
            break
        between.append(ancestor)
    else:
        return  # not below the owner: nothing to follow

    def watch() -> None:
        while _alive(owner):
            time.sleep(_POLL_S)
        for process in between:
            if _alive(process):
                process.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end-with-owner").start()


def _alive(process: Any) -> bool:
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# vLLM imports this module in the worker before it loads a model, which is the earliest that code of ours runs there.
if os.environ.get(OWNER) and int(os.environ[OWNER]) != os.getpid():
    end_with_owner(int(os.environ[OWNER]))
