"""Records, data and checkpoints that cannot be used: exit 2, one line that names the file, no file changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import build_data_root

from infosteer_bench.cli import main
from infosteer_bench.leaderboard.publish import publish
from tests.unit.test_leaderboard_publish import write_run


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def no_json(path: Path) -> None:
    path.write_text("{not json", encoding="utf-8")


def a_list(path: Path) -> None:
    path.write_text("[1, 2]", encoding="utf-8")


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(128, 256)))


def without(field: str) -> Callable[[Path], None]:
    """Take a field out of a JSON object, or of the first one of a list."""

    def damage(path: Path) -> None:
        data = json.loads(path.read_text(encoding="utf-8"))
        (data[0] if isinstance(data, list) else data).pop(field)
        path.write_text(json.dumps(data), encoding="utf-8")

    return damage


def having(**fields: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")

    return damage


def gone(path: Path) -> None:
    path.unlink()


# what is damaged, how, what the line says
CHECKPOINTS = {
    "weights cut": ("model.safetensors", cut, "truncated or damaged"),
    "weights empty": ("model.safetensors", emptied, "not a readable safetensors file"),
    "weights of noise": ("model.safetensors", binary, "not a readable safetensors file"),
    "weights gone": ("model.safetensors", gone, "has no weights"),
    "config cut": ("config.json", cut, "config.json"),
    "config empty": ("config.json", emptied, "config.json"),
    "config a list": ("config.json", a_list, "config.json"),
    "config binary": ("config.json", binary, "config.json"),
    "config without architecture": ("config.json", without("model_type"), "config.json"),
    "architecture unknown": ("config.json", having(architectures=["BertModel"], model_type="bert"), "BertModel"),
    "tokenizer gone": ("tokenizer.json", gone, "tokenizer"),
    "tokenizer cut": ("tokenizer.json", cut, "tokenizer"),
    "tokenizer empty": ("tokenizer.json", emptied, "tokenizer"),
    "tokenizer a list": ("tokenizer.json", a_list, "tokenizer"),
}
DATA = {
    "tests cut": ("dataset/boolq/test.json", cut, "boolq/test.json"),
    "tests empty": ("dataset/boolq/test.json", emptied, "boolq/test.json"),
    "tests no JSON": ("dataset/boolq/test.json", no_json, "boolq/test.json"),
    "tests binary": ("dataset/boolq/test.json", binary, "boolq/test.json"),
    "tests of numbers": ("dataset/boolq/test.json", a_list, "boolq/test.json"),
    "tests without an answer": ("dataset/boolq/test.json", without("answer"), "boolq/test.json"),
    "training rows cut": ("dataset/boolq/train.json", cut, "boolq/train.json"),
    "training rows empty": ("dataset/boolq/train.json", emptied, "boolq/train.json"),
    "training rows of numbers": ("dataset/boolq/train.json", a_list, "boolq/train.json"),
    "training rows without an instruction": ("dataset/boolq/train.json", without("instruction"), "boolq/train.json"),
}
RUNS = {
    "grid cut": ("grid.json", cut, "grid.json does not verify"),
    "grid empty": ("grid.json", emptied, "grid.json does not verify"),
    "grid a list": ("grid.json", a_list, "grid.json does not verify"),
    "grid edited": ("grid.json", having(seeds=[0]), "grid.json does not verify"),
}
BOARDS = {
    "head cut": ("records/board.json", cut, "records/board.json cannot be read"),
    "head empty": ("records/board.json", emptied, "records/board.json cannot be read"),
    "head a list": ("records/board.json", a_list, "records/board.json cannot be read"),
    "head gone": ("records/board.json", gone, "board"),
    "cells cut": ("records/cells.jsonl", cut, "records/cells.jsonl"),
    "cells binary": ("records/cells.jsonl", binary, "records/cells.jsonl"),
    "cells a list": ("records/cells.jsonl", a_list, "records/cells.jsonl"),
    "checkpoints cut": ("records/checkpoints.jsonl", cut, "records/checkpoints.jsonl"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_data_root(tmp_path_factory.mktemp("data"))


def snapshot(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command line: exit 2, one line, and nothing in `folder` is other than before."""
    before = snapshot(folder)
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("infosteer-bench: ")
    assert "Traceback" not in line
    assert snapshot(folder) == before
    return line


@pytest.mark.parametrize("case", CHECKPOINTS)
@pytest.mark.parametrize("command", ["run", "eval"])
def test_checkpoints(command, case, tiny_models, data, tmp_path, monkeypatch, capsys):
    name, damage, message = CHECKPOINTS[case]
    model = Path(shutil.copytree(tiny_models["llama"], tmp_path / "model"))
    damage(model / name)
    monkeypatch.chdir(tmp_path)
    given = (
        ["run", "--grid", "laptop", "--models", str(model)] if command == "run" else ["eval", "--checkpoint", "model"]
    )
    assert message in refused([*given, "--data-root", str(data), "--backend", "hf"], tmp_path, capsys)


@pytest.mark.parametrize("case", DATA)
def test_data(case, tiny_models, data, tmp_path, monkeypatch, capsys):
    name, damage, message = DATA[case]
    root = Path(shutil.copytree(data, tmp_path / "data"))
    damage(root / name)
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "--grid", "laptop", "--models", str(tiny_models["llama"]), "--data-root", "data"]
    assert message in refused([*arguments, "--backend", "hf"], tmp_path, capsys)


@pytest.mark.parametrize("case", RUNS)
def test_runs(case, tmp_path, monkeypatch, capsys):
    name, damage, message = RUNS[case]
    damage(write_run(tmp_path / "run") / name)
    monkeypatch.chdir(tmp_path)
    assert message in refused(["leaderboard", "--runs", "run"], tmp_path, capsys)


@pytest.mark.parametrize("case", BOARDS)
def test_boards(case, tmp_path, monkeypatch, capsys):
    name, damage, message = BOARDS[case]
    board = publish(write_run(tmp_path / "run"), tmp_path / "board")
    damage(board / name)
    monkeypatch.chdir(tmp_path)
    assert message in refused(["leaderboard", "--output", "board", "--check"], tmp_path, capsys)
