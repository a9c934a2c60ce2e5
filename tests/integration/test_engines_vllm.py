"""The real vLLM engine on tiny models: swaps that are true, swaps that are not, and the same answers as engine hf."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from lm_eval.api.instance import Instance
from loud import build_loud
from safetensors.torch import load_file, save_file
from tiny import build_data_root

from infosteer_bench.device import has_cuda, visible_gpus
from infosteer_bench.errors import CellFailure, UserError
from infosteer_bench.evaluation import Engine, Generation, make_engine
from infosteer_bench.evaluation.evaluate import evaluate_task
from infosteer_bench.evaluation.vllm import engine as vllm_module
from infosteer_bench.evaluation.vllm.weights import Shard
from infosteer_bench.grid import EvalConfig, PromptConfig
from infosteer_bench.methods import METHODS
from infosteer_bench.models.load import materialize, resolve_model
from infosteer_bench.tasks.catalog import read_tasks

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

CONFIG = EvalConfig(dtype="float32", max_new_tokens=24, batch_size=8, limit=6)
PROMPTS = [f"He had {n} apples{' and gave 5 away' * (n % 4)}, how many are left?{n}\n" for n in range(24)]


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma2"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints of one shape. Llama's output matrix is its own, Qwen2's is tied, Gemma2's is the embedding."""
    folder = tmp_path_factory.mktemp(request.param)
    first, second = (build_loud(request.param, folder / str(seed), seed) for seed in (0, 1))
    return first, second


@pytest.fixture(scope="module")
def engine(models: tuple[Path, Path]) -> Iterator[Engine]:
    """A live engine that has the first checkpoint; its processes are gone afterwards."""
    made = make_engine("vllm", eval_config=CONFIG)
    made.load(models[0], weight_digest="0", runtime=None)
    running = _engine_processes()
    assert running
    yield made
    made.close()
    assert not _engine_processes()
    assert not any(process.is_running() for process in running)


def _engine_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def _answers(engine: Engine) -> list[Generation]:
    options = {"until": ["\n\n", "apples"]}
    return engine.lm.generate_until([Instance("generate_until", {}, (prompt, options), 0) for prompt in PROMPTS])


def _scores(engine: Engine) -> list[tuple[float, bool]]:
    pairs = [(prompt, f"the correct answer is answer{k}") for prompt in PROMPTS[:6] for k in (1, 2)]
    return engine.lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs])


def test_swap_and_back_equal_to_hf(engine: Engine, models: tuple[Path, Path]) -> None:
    hf = make_engine("hf", eval_config=CONFIG)
    before = _answers(engine)
    for digest, path in (("1", models[1]), ("0", models[0])):
        engine.load(path, weight_digest=digest, runtime=None)
        hf.load(path, weight_digest=digest, runtime=None)
        ours, theirs = _answers(engine), _answers(hf)
        same = [
            (a, a.n_tokens, a.finish_reason) == (b, b.n_tokens, b.finish_reason)
            for a, b in zip(ours, theirs, strict=True)
        ]
        assert sum(same) >= 0.9 * len(same)
        assert (ours == before) == (digest == "0"), "the first checkpoint's answers, and only those, come back"
        for (a, a_greedy), (b, b_greedy) in zip(_scores(engine), _scores(hf), strict=True):
            assert a == pytest.approx(b, abs=1e-3)
            assert a_greedy == b_greedy
    assert engine.engine_starts == 1


def test_a_task_scores_the_same_as_with_hf(engine: Engine, models: tuple[Path, Path], tmp_path: Path) -> None:
    root = build_data_root(tmp_path / "data")
    info = read_tasks()["siqa"]
    hf = make_engine("hf", eval_config=CONFIG)
    hf.load(models[0], weight_digest="0", runtime=None)
    engine.load(models[0], weight_digest="0", runtime=None)
    seen: list[tuple[int, int]] = []
    ours, theirs = (
        evaluate_task(
            one,
            info,
            eval_config=CONFIG,
            prompt=PromptConfig(),
            data_root=root,
            on_progress=lambda done, total: seen.append((done, total)),
        )
        for one in (engine, hf)
    )
    assert (6, 6) in seen
    assert ours.rows == theirs.rows
    assert (ours.exact_match, ours.option_rank) == (theirs.exact_match, theirs.option_rank)


def test_steering_while_answering_equals_hf(engine: Any, models: tuple[Path, Path]) -> None:
    """The lift inside vLLM's process: hf's answers and scores, its hooks counted, and gone with the next plain load."""
    engine.load(models[0], weight_digest="0", runtime=None)
    plain, starts = _scores(engine), engine.engine_starts
    assert engine._llm.collective_rpc("steering_invocations") == [None]
    hf = make_engine("hf", eval_config=CONFIG)
    for settings in ({"fraction": 0.1, "alpha": 3}, {"fraction": 0.05, "control": "largest_keys", "layers": "late"}):
        method = METHODS.get("infosteer-intervention").configure({**settings, "apply_at_inference": True})
        for one in (engine, hf):
            one.load(models[0], weight_digest="0", runtime=method.runtime)
        ours, theirs = _answers(engine), _answers(hf)
        same = [str(a) == str(b) for a, b in zip(ours, theirs, strict=True)]
        assert sum(same) >= 0.9 * len(same)
        for (a, _), (b, _) in zip(_scores(engine), _scores(hf), strict=True):
            assert a == pytest.approx(b, abs=1e-3)
        moved = max(abs(a - b) for (a, _), (b, _) in zip(_scores(engine), plain, strict=True))
        assert moved > 0.05, "strong enough to be told from the plain model"
        (count,) = engine._llm.collective_rpc("steering_invocations")
        assert count > 0
    engine.load(models[0], weight_digest="0", runtime=None)
    assert _scores(engine) == plain
    assert engine._llm.collective_rpc("steering_invocations") == [None]
    assert engine.engine_starts - starts <= (2 if has_cuda() else 0), "on a CPU the live engine serves both"


def test_hooks_that_did_not_run_are_found(engine: Any, models: tuple[Path, Path], monkeypatch: Any) -> None:
    runtime = METHODS.get("infosteer-intervention").configure({"apply_at_inference": True}).runtime
    engine.load(models[0], weight_digest="0", runtime=runtime)
    real = engine._llm.collective_rpc

    def deaf(method: str, **kwargs: Any) -> list[Any]:
        return {"steering_invocations": [5], "steer": [None]}.get(method) or real(method, **kwargs)

    monkeypatch.setattr(engine._llm, "collective_rpc", deaf)
    with pytest.raises(CellFailure, match="without running the method's hooks"):
        _scores(engine)
    assert engine._steer(runtime) == "vllm did not take the method's hooks"
    monkeypatch.undo()
    assert "vllm cannot steer with nothing: " in engine._steer({"name": "nothing", "settings": {}})
    engine._loaded = None
    engine.load(models[0], weight_digest="0", runtime=None)


def test_a_swap_that_did_nothing_is_found(
    engine: Any, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    engine.load(models[0], weight_digest="0", runtime=None)
    real = engine._llm.collective_rpc
    ignored = {"reload_weights"}

    def deaf(method: str, **kwargs: Any) -> list[Any]:
        return [None] if method in ignored else real(method, **kwargs)

    monkeypatch.setattr(engine._llm, "collective_rpc", deaf)
    assert "does not hold the weights" in engine._swap(models[1])
    assert engine._swap(models[0]) is None, "the first checkpoint is still there"

    # A tied output matrix, packed apart for the CPU, is left behind by vLLM's reload; the probe must see that alone.
    ignored.clear()
    ignored.add("refresh_tied_head")
    problem = engine._swap(models[1])
    tied = "qwen2" in str(models[0]) and engine._llm.llm_engine.vllm_config.device_config.device_type != "cuda"
    assert ("1 of" in problem and "lm_head.weight" in problem) if tied else problem is None

    ignored.clear()
    assert engine._swap(models[0]) is None
    ignored.add("reload_weights")
    starts = engine.engine_starts
    capfd.readouterr()
    engine.load(models[1], weight_digest="1", runtime=None)
    assert engine.engine_starts == starts + 1, "a fresh engine replaces one that does not take weights"
    assert engine._wrong_weights(models[1]) is None
    assert capfd.readouterr() == ("", ""), "a start is silent"


def two_models(family: str, folder: Path) -> tuple[Path, Path]:
    """Checkpoints of one shape, and of at least two heads."""
    if not family.startswith("mini"):
        return build_loud(family, folder / "0", 0), build_loud(family, folder / "1", 1)
    resolved = resolve_model(family, model_root=None)
    first = materialize(resolved)
    second = Path(shutil.copytree(first, folder / "other"))
    tensors = {name: 0.97 * tensor for name, tensor in load_file(first / "model.safetensors").items()}
    save_file(tensors, second / "model.safetensors", metadata={"format": "pt"})
    return first, second


@pytest.mark.skipif(len(visible_gpus()) == 1, reason="needs two GPUs, or none")
@pytest.mark.parametrize("family", ["llama", "mini-qwen2", "mini-gemma2"])
def test_two_workers_hold_a_model_together(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensor parallel: hf's scores, before and after a swap; each worker's part is compared with the files.

    The tiny Llama has one head of keys and values, which both workers hold; the others' are shared out.
    """
    models = two_models(family, tmp_path)
    others = _engine_processes()  # the engine that the other tests share may still be alive
    if not has_cuda():
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")  # by itself vLLM gives each worker a NUMA node
    engine: Any = make_engine("vllm", eval_config=CONFIG.model_copy(update={"tensor_parallel": 2}))
    hf = make_engine("hf", eval_config=CONFIG)
    try:
        for digest, path in (("0", models[0]), ("1", models[1])):
            engine.load(path, weight_digest=digest, runtime=None)
            hf.load(path, weight_digest=digest, runtime=None)
            for (a, a_greedy), (b, b_greedy) in zip(_scores(engine), _scores(hf), strict=True):
                assert a == pytest.approx(b, abs=1e-3)
                assert a_greedy == b_greedy
        assert (engine.engine_starts, engine.engine_swaps) == (1, 1)
        workers = engine._llm.collective_rpc("probe_weights")
        assert len(workers) == 2
        whole = {name for name in workers[0] if workers[0][name] == workers[1][name]}
        assert whole == {name for name in workers[0] if "norm" in name}, "all else is in two different parts"
        assert len(whole) < len(workers[0])
        assert "does not hold the weights" in engine._wrong_weights(models[0])
        swapped = lambda vocabulary, heads, rank, size: Shard(vocabulary, heads, 1 - rank, size)  # noqa: E731
        monkeypatch.setattr(vllm_module, "Shard", swapped)  # a worker that holds the other's part
        assert "does not hold the weights" in engine._wrong_weights(models[1])
        with pytest.raises(UserError, match="spread over 2 processes"):
            engine.load(models[0], weight_digest="0", runtime={"name": "infosteer-intervention", "settings": {}})
    finally:
        engine.close()
    assert set(_engine_processes()) <= set(others)


def test_texts_longer_than_the_window(engine: Engine, models: tuple[Path, Path]) -> None:
    """Cut on the left alike by both engines, for answers, for scores and for whole texts."""
    hf = make_engine("hf", eval_config=CONFIG)
    for one in (engine, hf):
        one.load(models[0], weight_digest="0", runtime=None)
    long = " ".join(f"He had {n} apples" for n in range(900))
    found = []
    for one in (engine, hf):
        asked = Instance("generate_until", {}, (long, {"until": ["\n\n"]}), 0)
        pair = Instance("loglikelihood", {}, (long, " and gave 5 away"), 0)
        text = Instance("loglikelihood_rolling", {}, (long,), 0)
        lm = one.lm
        found.append((lm.generate_until([asked])[0], lm.loglikelihood([pair])[0], lm.loglikelihood_rolling([text])[0]))
        assert lm.n_cut_prompts == 2
    (ours, (score, greedy), whole), (theirs, (their_score, their_greedy), their_whole) = found
    assert str(ours) == str(theirs)
    assert (score, greedy) == (pytest.approx(their_score, abs=1e-3), their_greedy)
    assert whole == pytest.approx(their_whole, rel=1e-5)
