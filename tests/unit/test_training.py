"""The trainer as a whole: identity controls, curves, refusals, what an export holds."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from infosteer_bench.errors import CellFailure, UserError
from infosteer_bench.grid import TrainConfig
from infosteer_bench.methods import METHODS, register_file
from infosteer_bench.methods.base import Method
from infosteer_bench.models.families import family_of
from infosteer_bench.training.checkpoint import TrainPaths, train_checkpoint
from infosteer_bench.training.recipe import planned_steps, recipe_warnings
from tests.gradients import ragged_rows
from tests.tiny import FAMILY_NAMES, build_tiny
from tests.training import FAST, mix_of, same, train, weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny("llama", tmp_path_factory.mktemp("model") / "tiny-llama")


ARMS = {
    "sft": ("sft", {}),
    "lift": ("infosteer-intervention", {"fraction": 0.05, "alpha": 2}),
    "literal lift": (
        "infosteer-intervention",
        {"rank_by": "signed", "value": "signed_mean", "detach_value": False, "layers": "late"},
    ),
    **{
        control: ("infosteer-intervention", {"fraction": 0.05, "control": control})
        for control in ("random_keys", "largest_keys", "random_sign", "noise")
    },
    "reward": ("infosteer-regularization", {"lambda": 0.1}),
    "penalty": ("infosteer-regularization", {"lambda": -0.1, "tokens": "completion"}),
    "pooled": ("infosteer-regularization", {"lambda": 0.1, "average": "before"}),
    "softmax": ("infosteer-regularization", {"lambda": 0.1, "normalize": "softmax"}),
    "positive": ("infosteer-regularization", {"lambda": 0.1, "normalize": "positive", "layers": "early"}),
}


def arm(name: str) -> Method:
    method, settings = ARMS[name]
    return METHODS.get(method).configure(settings)


@pytest.mark.filterwarnings("error::FutureWarning")
def test_training_asks_the_libraries_for_nothing_deprecated(model, tmp_path):
    train(model, tmp_path, METHODS.get("sft").configure({}), FAST.model_copy(update={"gradient_checkpointing": True}))


def test_an_export_reaches_the_disk_before_and_after_its_renaming(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(handle: int) -> None:
        held = os.fstat(handle)
        places = [tmp_path, *tmp_path.rglob("weights*"), *tmp_path.rglob("weights*/*")]
        did.extend(path.name for path in places if os.path.samestat(path.stat(), held))
        fsync(handle)

    def noted_rename(self: Path, target: Path) -> Path:
        did.append(f"{self.name} -> {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    train(model, tmp_path, arm("sft"))
    place = did.index("weights.partial -> weights")
    assert did[place - 1] == "weights.partial"
    assert did[place + 1] == tmp_path.name
    assert set(did[:place]) >= {path.name for path in (tmp_path / "weights").iterdir()}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_strength_zero_is_sft_bit_for_bit(tiny_models, tmp_path, family, checkpointing, monkeypatch):
    from infosteer_bench.memory.tap import Tap

    taps: list[Tap] = []
    original = Tap.__enter__
    monkeypatch.setattr(Tap, "__enter__", lambda self: (taps.append(self), original(self))[1])
    config = FAST.model_copy(update={"gradient_checkpointing": checkpointing, "entropy_every": None})
    train(tiny_models[family], tmp_path / "sft", METHODS.get("sft").configure({}), config)
    assert not taps
    for name, settings in (("infosteer-intervention", {"fraction": 0}), ("infosteer-regularization", {"lambda": 0})):
        train(tiny_models[family], tmp_path / name, METHODS.get(name).configure(settings), config)
        # 3 steps x 2 micro-batches x 2 layers, twice where recomputed
        assert taps.pop().invocations == (24 if checkpointing else 12)
        assert same(weights(tmp_path / name), weights(tmp_path / "sft")), name


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("name", ARMS)
def test_one_seed_one_result(model, tmp_path, name, adapter):
    """Every method, arm and control, in full and as LoRA; and every one of them differs from sft."""
    config = FAST.model_copy(update={"adapter": adapter, "entropy_every": None})
    for run in ("a", "b"):
        train(model, tmp_path / run, arm(name), config)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    other, seed = (arm("sft"), 0) if name != "sft" else (arm("sft"), 1)
    train(model, tmp_path / "c", other, config, seed=seed)
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_measuring_entropy_changes_no_weight(model, tmp_path):
    for every in (None, 1):
        config = FAST.model_copy(update={"entropy_every": every})
        train(model, tmp_path / str(every), METHODS.get("infosteer-intervention").configure({}), config)
    assert same(weights(tmp_path / "None"), weights(tmp_path / "1"))


def test_curve_has_a_line_per_step(model, tmp_path):
    result = train(model, tmp_path, METHODS.get("infosteer-regularization").configure({"lambda": 0.5}))
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3] == list(range(1, result.steps + 1))
    for line in lines:
        assert line["grad_norm"] > 0
        assert line["penalty"] < 0 < line["key_entropy_nats"] < math.log(160)
        # 2 layers, lambda 0.5: the penalty is minus the mean entropy, measured here on one of two micro-batches
        assert line["penalty"] == pytest.approx(-0.5 * 2 * line["key_entropy_nats"], rel=0.02)
        assert line["loss"] == pytest.approx(line["loss_lm"] + line["penalty"], abs=1e-4)
    assert result.tokens == sum(len(row["input_ids"]) for row in ragged_rows(12))


def test_export_is_a_plain_checkpoint(model, tmp_path):
    from transformers import AutoModelForCausalLM

    config = FAST.model_copy(update={"export_dtype": "bfloat16"})
    train(model, tmp_path, METHODS.get("infosteer-intervention").configure({}), config)
    exported = {path.name for path in (tmp_path / "weights").iterdir()}
    assert exported >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert not any(name.endswith((".bin", ".pt")) for name in exported)
    assert {tensor.dtype for tensor in weights(tmp_path).values()} == {torch.bfloat16}
    ours, base = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "weights", model))
    assert {**ours, "dtype": None} == {**base, "dtype": None}  # use_cache and pad token as the base has them
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "weights" / name).read_bytes() == (model / name).read_bytes()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "weights")
    assert not any(module._forward_pre_hooks for module in loaded.modules())
    assert not (tmp_path / "scratch").exists()


def test_bf16_autocast_keeps_float32_masters(model, tmp_path):
    """A 5e-5 update of a bf16 weight is mostly lost; with float32 masters nearly every weight moves."""

    config = FAST.model_copy(update={"precision": "bf16", "learning_rate": 5e-5})
    train(model, tmp_path, METHODS.get("sft").configure({}), config)
    before, after = load_file(model / "model.safetensors"), weights(tmp_path)
    name = "model.layers.0.mlp.down_proj.weight"
    assert float((before[name] != after[name]).float().mean()) > 0.95


def test_a_batch_without_counted_tokens_is_refused(model, tmp_path):
    rows = [{**row, "labels": [-100] * len(row["labels"])} for row in ragged_rows(4)]
    with pytest.raises(CellFailure, match="step 1: the batch holds no counted token"):
        train(model, tmp_path, METHODS.get("sft").configure({}), rows=rows)


def test_a_loss_that_is_not_finite_stops_at_its_step(model, tmp_path):
    config = FAST.model_copy(update={"learning_rate": 1e30, "max_grad_norm": 1e30})
    with pytest.raises(CellFailure, match=r"step [23]: "):
        train(model, tmp_path, METHODS.get("sft").configure({}), config)
    assert not (tmp_path / "weights").exists()


def test_training_resumes_from_a_step_checkpoint(model, tmp_path):
    """Stopped after step 2 of 3 and resumed: the same weights as in one go."""
    config = FAST.model_copy(update={"save_steps": 1})
    method = METHODS.get("infosteer-regularization").configure({})
    train(model, tmp_path / "whole", method, FAST)

    class Stop(Exception):
        pass

    def stop(step: int, steps: int) -> None:
        if step == 3:
            raise Stop

    folder = tmp_path / "stopped"
    arguments = {
        "model_path": model,
        "family": family_of(json.loads((model / "config.json").read_text())),
        "method": method,
        "mix": mix_of(ragged_rows(12)),
        "config": config,
        "seed": 0,
        "paths": TrainPaths(folder / "weights", folder / "curve.jsonl", folder / "scratch"),
    }
    with pytest.raises(Stop):
        train_checkpoint(**arguments, on_step=stop)
    assert not (folder / "weights").exists()
    # killed in the middle of writing step 3's: not believed
    (folder / "scratch" / "checkpoint-3").mkdir()
    steps: list[int] = []
    train_checkpoint(**arguments, on_step=lambda step, total: steps.append(step))
    assert steps == [3]
    assert same(weights(folder), weights(tmp_path / "whole"))
    lines = (folder / "curve.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_recipe_warns_where_warmup_eats_the_run():
    paper = TrainConfig()
    assert planned_steps(7173, paper) == 113
    assert "100 of 113" in recipe_warnings(7173, paper)[0]
    assert recipe_warnings(107_675, paper) == []


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("infosteer-intervention", {"alfa": 2}, "did you mean 'alpha'"),
        ("infosteer-intervention", {"fraction": 2}, "setting 'fraction'"),
        ("infosteer-regularization", {"lambda": "much"}, "setting 'lambda'"),
        ("sft", {"x": 1}, "no settings"),
    ],
)
def test_wrong_method_settings(method, given, message):
    with pytest.raises(UserError, match=message):
        METHODS.get(method).configure(given)


def test_arm_names_what_differs_from_the_defaults():
    method = METHODS.get("infosteer-intervention").configure({"alpha": 2, "layers": [0, 1]})
    assert method.arm == "alpha=2.0,layers=[0,1]"
    assert METHODS.get("infosteer-regularization").configure({"lambda": 0.05}).arm == "lambda=0.05"
    assert METHODS.get("infosteer-regularization").configure({"lambda": 0.01}).arm == ""


def test_layers_outside_the_model():
    method = METHODS.get("infosteer-intervention").configure({"layers": [7]})
    with pytest.raises(UserError, match=r"within 0\.\.1"):
        method.validate_for(2)


def test_a_method_is_one_file(tmp_path):
    file = tmp_path / "half.py"
    file.write_text(
        "from infosteer_bench.methods.base import Method\n"
        "class Half(Method):\n    name = 'half'\n    summary = 'a test'\nMETHOD = Half\n"
    )
    try:
        assert register_file(file) == "half"
        before = METHODS.get("half").configure({}).identity()
        assert before.items() >= {"name": "half", "version": 1, "settings": {}}.items()
        file.write_text(file.read_text() + "# edited\n")
        register_file(file)
        assert METHODS.get("half").configure({}).identity() != before  # an edited file is another method
    finally:
        METHODS.unregister("half")
    (tmp_path / "none.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="holds no METHOD"):
        register_file(tmp_path / "none.py")
