"""The public face: every name is there when asked for, costs nothing before, and five lines give a data frame."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import infosteer_bench as ib

SMALL = ["models=[mini-llama]", "seeds=[0]", "mixes=[commonsense]", "tasks=[boolq]", "eval.limit=4"]
SMALL += ["eval.max_new_tokens=4", "train.max_steps=1", "train.max_examples=8"]


def test_every_public_name_is_there() -> None:
    assert {name: hasattr(ib, name) for name in ib.__all__} == dict.fromkeys(ib.__all__, True)
    assert set(ib.__all__) <= set(dir(ib))
    for name in set(ib.__all__) - {"__version__"}:
        assert getattr(ib, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        ib.runn  # noqa: B018
    assert (Path(ib.__file__).parent / "py.typed").is_file()


def test_the_lazy_names_are_those_that_type_checkers_see() -> None:
    """`__getattr__` and the imports for type checking are two lists of one thing."""
    tree = ast.parse(Path(ib.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"infosteer_bench.{module}" for name, module in ib._MODULES.items()}
    assert set(ib.__all__) == {*seen, "__version__"}


def test_a_grid_becomes_a_data_frame(tmp_path: Path) -> None:
    grid = ib.load_grid("embedded", overrides=SMALL)
    outcome = ib.run(grid, output=tmp_path, workers=0, quiet=True)
    assert (outcome.done, outcome.planned, outcome.failures) == (4, 4, ())
    assert outcome.folder == tmp_path / "embedded"
    board = ib.read_board(outcome.board)
    boolq = board[board["task"] == "boolq"]
    assert list(boolq["method"]) == ["base", "sft", "infosteer-intervention", "infosteer-regularization"]
    assert boolq["accuracy"].between(0, 100).all()
    again = ib.run(grid, output=str(tmp_path), workers=0, quiet=True)
    assert (again.done, again.board) == (outcome.done, outcome.board)


def test_a_checkpoint_answers(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    settings = ["eval.limit=2", "eval.max_new_tokens=4", "eval.dtype=float32"]
    outcome = ib.evaluate(
        tiny_models["llama"], tasks="boolq,gsm8k", output=tmp_path, data_root="miniworld", settings=settings, quiet=True
    )
    assert (outcome.done, outcome.planned, outcome.failures) == (2, 2, ())
    assert outcome.board == tmp_path / "eval/leaderboard"


def test_what_cannot_be_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ib.UserError, match="unknown grid 'embeded'"):
        ib.run("embeded", output=tmp_path)
    with pytest.raises(ib.UserError, match="exclude one another"):
        ib.run("embedded", output=tmp_path, keep_checkpoints=True, max_checkpoints_on_disk=1)
    for wrong in ({"workers": -1}, {"max_checkpoints_on_disk": 0}):
        with pytest.raises(ib.UserError, match="a whole number of at least"):
            ib.run("embedded", output=tmp_path, **wrong)
    with pytest.raises(ib.UserError, match="there is no board"):
        ib.read_board(None)
    (tmp_path / "file").touch()
    with pytest.raises(ib.UserError, match="is a file"):
        ib.run("embedded", output=tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
