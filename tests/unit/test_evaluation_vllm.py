"""What of the vllm engine can be tested without vLLM: which checkpoints may be swapped, what must have been loaded."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import build_tiny

from infosteer_bench.errors import CellFailure, UserError
from infosteer_bench.evaluation.lm import Ask
from infosteer_bench.evaluation.vllm import engine as vllm_module
from infosteer_bench.evaluation.vllm.engine import VLLMEngine, _shape_digest, cpu_cache_bytes
from infosteer_bench.evaluation.vllm.lm import VLLMLM
from infosteer_bench.evaluation.vllm.weights import Shard, expected_digests
from infosteer_bench.evaluation.vllm.worker import COLUMNS, WeightProbe, spread, tensor_digest
from infosteer_bench.grid import EvalConfig
from infosteer_bench.models.load import load_model, load_tokenizer

NAMES = [
    "model.embed_tokens.weight",
    "model.embed_tokens.packed",
    "model.norm.weight",
    "model.layers.1.input_layernorm.weight",
    "model.layers.0.self_attn.qkv_proj.weight",
    "model.layers.1.mlp.gate_up_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
    "lm_head.weight",
]


def _shape(path: Path) -> str:
    return _shape_digest(path, load_tokenizer(path))


def _vocabulary(path: Path) -> int:
    return json.loads((path / "config.json").read_text())["vocab_size"]


def _digests(path: Path, names: list[str] = NAMES, dtype: str = "float32") -> dict[str, str]:
    return expected_digests(path, names, dtype=dtype, shard=Shard(_vocabulary(path), 2))


def test_only_equal_shapes_and_tokenizers_are_swapped(tmp_path: Path) -> None:
    first, second = build_tiny("llama", tmp_path / "a", seed=0), build_tiny("llama", tmp_path / "b", seed=1)
    assert _shape(first) == _shape(second)
    load_model(first, dtype="bfloat16").save_pretrained(str(tmp_path / "resaved"))
    load_tokenizer(first).save_pretrained(str(tmp_path / "resaved"))
    assert _shape(tmp_path / "resaved") == _shape(first), "a fine-tuned checkpoint must swap with its base"
    assert _shape(build_tiny("qwen2", tmp_path / "c")) != _shape(first)
    other = build_tiny("llama", tmp_path / "d", vocab_text="other words altogether, so other merges\n" * 3)
    shutil.copy(first / "config.json", other / "config.json")
    assert _shape(other) != _shape(first), "another tokenizer decodes to other texts"
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert _shape(second) != _shape(first)


def test_digests_tell_any_two_checkpoints_apart(tmp_path: Path) -> None:
    first, second = build_tiny("qwen2", tmp_path / "a", seed=0), build_tiny("qwen2", tmp_path / "b", seed=1)
    same, other = _digests(first), _digests(second)
    equal = {name for name in NAMES if same[name] == other[name]}
    assert equal == {name for name in NAMES if "norm" in name}, "norms start at one in both"
    tensors = load_file(first / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name][3, -1] += 1e-3  # the last column is among those read
    save_file(tensors, first / "model.safetensors", metadata={"format": "pt"})
    changed = _digests(first)
    assert {key for key in NAMES if changed[key] != same[key]} == {name}


def test_digests_are_in_the_engines_dtype_and_know_shards(tmp_path: Path) -> None:
    path = build_tiny("llama", tmp_path / "a")
    half = load_model(path, dtype="bfloat16")
    half.save_pretrained(str(tmp_path / "half"), max_shard_size="40KB")
    assert (tmp_path / "half" / "model.safetensors.index.json").is_file()
    assert _digests(path, dtype="bfloat16") == _digests(tmp_path / "half", dtype="bfloat16")
    assert _digests(path, dtype="float32") != _digests(path, dtype="bfloat16")
    with pytest.raises(CellFailure, match=r"model\.layers\.9.*lacks"):
        _digests(path, ["model.layers.9.mlp.down_proj.weight"])


class _Linear(torch.nn.Module):
    """A layer as vLLM has them: the kernel holds the weight, the parameter may be empty."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(0))
        self.input_size_per_partition, self.params_dtype = weight.shape[1], weight.dtype
        self.quant_method = type("Method", (), {"apply": staticmethod(lambda _, x, bias: x @ weight.t())})()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_probe_reads_repacked_matrices_exactly(tmp_path: Path, dtype: str) -> None:
    path = build_tiny("llama", tmp_path / "a")
    tensors = {k: v.to(getattr(torch, dtype)) for k, v in load_file(path / "model.safetensors").items()}
    prefix = "model.layers.0.self_attn."
    fused = torch.cat([tensors[f"{prefix}{part}_proj.weight"] for part in "qkv"])
    tree = torch.nn.ModuleDict({"norm": torch.nn.Module(), "embed_tokens": torch.nn.Module()})
    tree["norm"].weight = torch.nn.Parameter(tensors["model.norm.weight"])
    padded = torch.cat([tensors["model.embed_tokens.weight"], torch.zeros(13, 64, dtype=getattr(torch, dtype))])
    tree["embed_tokens"].weight = torch.nn.Parameter(padded)
    tree["embed_tokens"].shard_indices = SimpleNamespace(org_vocab_start_index=0, org_vocab_end_index=_vocabulary(path))
    layer = torch.nn.ModuleDict({
        "self_attn": torch.nn.ModuleDict({"qkv_proj": _Linear(fused)}),
        "mlp": torch.nn.ModuleDict({"down_proj": _Linear(tensors["model.layers.0.mlp.down_proj.weight"])}),
    })  # fmt: skip
    tree["layers"] = torch.nn.ModuleDict({"0": layer})
    probe = WeightProbe()
    probe.model_runner = type("Runner", (), {"get_model": lambda _: torch.nn.ModuleDict({"model": tree})})()
    held = probe.probe_weights()
    assert len(held) == 4
    assert held == _digests(path, list(held), dtype=dtype)


def test_spread_and_digest() -> None:
    assert spread(5, 8) == [0, 1, 2, 3, 4]
    places = spread(1000, COLUMNS)
    assert (places[0], places[-1], len(set(places))) == (0, 999, COLUMNS)
    assert tensor_digest(torch.tensor([0.0, 1.0])) == tensor_digest(torch.tensor([-0.0, 1.0]))
    assert tensor_digest(torch.zeros(2, 3)) != tensor_digest(torch.zeros(3, 2))


@pytest.mark.parametrize("problem", [None, "still differs"])
@pytest.mark.parametrize("alive", [True, False])
def test_a_wrong_swap_restarts_once_and_then_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str | None, alive: bool
) -> None:
    path = build_tiny("qwen2", tmp_path / "a")
    engine = VLLMEngine(EvalConfig(dtype="float32"))
    monkeypatch.setattr(vllm_module, "has_cuda", lambda: False)
    calls: list[str] = []
    if alive:
        engine._shape = f"{_shape(path)}, eager=True"  # something of this shape is loaded, so a swap is tried first

    def swap(checkpoint: Path) -> str:
        calls.append("swap")
        return "differs"

    def start(checkpoint: Path, shape: str, *, eager: bool) -> str | None:
        calls.append("start")
        return problem

    monkeypatch.setattr(engine, "_swap", swap)
    monkeypatch.setattr(engine, "_start", start)
    monkeypatch.setattr(engine, "_steer", lambda runtime: None)
    if problem:
        with pytest.raises(CellFailure, match=problem):
            engine.load(path, weight_digest="0", runtime=None)
        with pytest.raises(RuntimeError):
            _ = engine.lm
    else:
        engine.load(path, weight_digest="0", runtime=None)
        assert engine.lm.max_length == 1024
    assert calls == (["swap", "start"] if alive else ["start"])


def test_an_engine_that_died_is_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build_tiny("qwen2", tmp_path / "a")
    engine = VLLMEngine(EvalConfig(dtype="float32"))
    starts: list[str] = []
    monkeypatch.setattr(engine, "_start", lambda checkpoint, shape, eager: starts.append(shape))
    monkeypatch.setattr(engine, "_steer", lambda runtime: None)
    engine.load(path, weight_digest="0", runtime=None)

    class Dead:
        llm_engine: Any

        def add_request(self, *_: Any) -> None:
            raise RuntimeError("EngineCore encountered an issue")

    lm: Any = engine.lm
    lm.llm = Dead()
    lm.llm.llm_engine = lm.llm
    with pytest.raises(CellFailure, match="vllm failed while answering: RuntimeError: EngineCore"):
        list(lm._run([([1, 2], SimpleNamespace())]))
    engine.load(path, weight_digest="0", runtime=None)
    assert len(starts) == 2


def test_the_longest_prompts_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across tasks, to be written and to be scored; with a stand-in for vLLM that takes requests and then breaks."""
    plain = SimpleNamespace(SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", plain)  # type: ignore[arg-type]
    kinds = SimpleNamespace(RequestOutputKind=SimpleNamespace(FINAL_ONLY=None))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", kinds)  # type: ignore[arg-type]
    added: list[tuple[str, int]] = []

    class Core:
        def add_request(self, name: str, prompt: dict[str, list[int]], _: Any) -> None:
            added.append((name.partition("-")[2], len(prompt["prompt_token_ids"])))

        def has_unfinished_requests(self) -> bool:
            raise RuntimeError("asked enough")

    path = build_tiny("qwen2", tmp_path / "a")
    lm = VLLMLM(
        SimpleNamespace(llm_engine=Core()),
        load_tokenizer(path),
        eval_config=EvalConfig(),
        max_length=1024,
        eos_ids=[0],
        on_failure=lambda: None,
    )
    with pytest.raises(CellFailure, match="asked enough"):
        list(lm.generate_ids([Ask([5] * n, ("\n",) if n % 2 else (), (0,), 8 * n) for n in (3, 9, 1, 9, 4)]))
    assert added == [("1", 9), ("3", 9), ("4", 4), ("0", 3), ("2", 1)]
    added.clear()
    with pytest.raises(CellFailure, match="asked enough"):
        list(lm.score_ids([([5] * n, [6] * m) for n, m in ((2, 1), (1, 6), (4, 1))]))
    assert added == [("1", 7), ("2", 5), ("0", 3)], "context and continuation together"


def test_processes_are_started_offline_and_with_their_stderr_apart(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing
    import os
    import tempfile

    from infosteer_bench.evaluation.vllm.process import descendants, end, engine_environment, last_error

    monkeypatch.delenv("INFOSTEER_DEBUG", raising=False)
    before = descendants()
    with tempfile.TemporaryFile() as said:
        with engine_environment(said):
            assert os.environ["HF_HUB_OFFLINE"] == "1"
            child = multiprocessing.get_context("spawn").Process(target=int, args=("no number",))
            child.start()
            print("ours", file=sys.stderr)
        child.join()
        assert "invalid literal" in (last_error(said) or "")
    assert capfd.readouterr().err == "ours\n"
    sleeper = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    sleeper.start()
    started = descendants() - before
    assert [process.pid for process in started] == [sleeper.pid]
    sleeper.terminate()
    end(started)
    assert not descendants() - before


def test_an_engine_ends_with_its_owner(tmp_path: Path) -> None:
    """Owner, engine core, worker: a SIGKILL of the first takes the others along."""
    worker = (
        "import os, sys, time; from infosteer_bench.evaluation.vllm.worker import end_with_owner\n"
        "end_with_owner(int(sys.argv[1])); print(os.getppid(), os.getpid(), flush=True); time.sleep(600)"
    )
    core = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[2], sys.argv[1]])"
    owner = (
        "import os, subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1], str(os.getpid()), sys.argv[2]])"
    )
    command = [sys.executable, "-c", owner, core, worker]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        below = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert len(below) == 2
        process.kill()
    _, alive = psutil.wait_procs(below, timeout=30)
    assert not alive


def test_steering_by_a_users_own_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mine steers while answering and comes from a file of yours"):
        VLLMEngine(EvalConfig()).load(
            tmp_path, weight_digest="0", runtime={"name": "mine", "source": "0", "settings": {}}
        )


def test_memory_for_keys_and_values_on_a_cpu() -> None:
    gib = 1024**3
    assert [cpu_cache_bytes(n * gib) // gib for n in (2, 8, 16, 24, 500)] == [1, 1, 2, 3, 4]


def test_options_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build_tiny("llama", tmp_path / "a")
    monkeypatch.setattr(vllm_module, "has_cuda", lambda: False)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    options = VLLMEngine(EvalConfig(dtype="float32"))._options(path, eager=True)
    assert (options["dtype"], options["enforce_eager"], options["max_model_len"]) == ("float32", True, 1024)
    assert "kv_cache_memory_bytes" in options
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    assert "kv_cache_memory_bytes" not in VLLMEngine(EvalConfig())._options(path, eager=True), (
        "the user's own choice counts"
    )


def test_an_engine_without_memory_is_tried_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_module, "has_cuda", lambda: False)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    # the machine's own free memory moves between two tries
    monkeypatch.setattr(vllm_module.psutil, "virtual_memory", lambda: SimpleNamespace(available=16 << 30))
    path = build_tiny("qwen2", tmp_path / "a")
    engine = VLLMEngine(EvalConfig())
    room: list[int] = []
    enough = 2

    def start(checkpoint: Path, shape: str, *, eager: bool) -> str | None:
        room.append(engine._options(checkpoint, eager=eager)["kv_cache_memory_bytes"])
        return None if len(room) > enough else "vllm could not start: torch.OutOfMemoryError: CUDA out of memory."

    monkeypatch.setattr(engine, "_start_once", start)
    assert engine._start(path, "shape", eager=True) is None
    assert [a // b for a, b in itertools.pairwise(room)] == [2, 2]
    enough = 99
    assert "out of memory" in str(engine._start(path, "shape", eager=True))
    assert len(room) == 5, "three halvings in all, then the cell fails"

    monkeypatch.setattr(engine, "_start_once", lambda *_, **__: "vllm could not start: ValueError: no such layer")
    engine._halvings = 0
    assert "no such layer" in str(engine._start(path, "shape", eager=True))
    assert engine._halvings == 0


def test_what_a_dying_engine_said_is_told(tmp_path: Path) -> None:
    engine = VLLMEngine(EvalConfig())
    assert engine._give_up() is None
    with (tmp_path / "said").open("w+b") as said:
        said.write(b"INFO x\nRuntimeError: something odd\n")
        engine._said = said
        assert engine._give_up() == "RuntimeError: something odd"
        assert engine._halvings == 0
        said.truncate(0)
        said.write(b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n")
        assert "out of memory" in str(engine._give_up())
        assert engine._halvings == 1


def test_freed_memory_is_waited_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    free = iter([10, 50, 97, 100])
    monkeypatch.setattr(vllm_module, "_free_gpu_bytes", lambda: next(free))
    vllm_module._wait_for_memory(100)
    assert next(free) == 100
    monkeypatch.setattr(vllm_module, "_free_gpu_bytes", lambda: 0)
    monkeypatch.setattr(vllm_module, "_FREED_S", 0.3)
    vllm_module._wait_for_memory(2**30)
    assert "1.0 GiB of GPU memory were not freed" in caplog.text


def test_waiting_for_a_dead_engine_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    import queue
    from concurrent.futures import Future

    from infosteer_bench.evaluation.vllm import process as vllm_process

    monkeypatch.setattr(vllm_process, "_POLL_S", 0.05)
    monkeypatch.setattr(vllm_process, "_GRACE_S", 0.05)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "VLLM::EngineCore"])
    while "VLLM::EngineCore" not in psutil.Process(process.pid).cmdline():  # forked, and not yet another program
        time.sleep(0.01)
    call: Future[None] = Future()
    core = SimpleNamespace(outputs_queue=queue.Queue(), utility_results={1: call})
    watch = vllm_process.Watch(core, [psutil.Process(process.pid)])
    with pytest.raises(queue.Empty):
        core.outputs_queue.get(timeout=0.5)
    process.kill()  # and not waited for: a zombie counts as dead
    assert "was killed" in str(core.outputs_queue.get(timeout=10))
    with pytest.raises(RuntimeError, match="was killed"):
        call.result(timeout=10)
    watch.stop()
    process.wait()
