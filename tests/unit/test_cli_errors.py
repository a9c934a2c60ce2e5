"""Bad input: exit 2, one line that says what, nothing written; in-process, so that fifty cases take seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hub import Hub
from tiny import build_data_root

from infosteer_bench.cli import main

GRIDS = {
    "no-yaml": "models: [a\n",
    "list": "- a\n",
    "empty": "",
    "unknown-field": "name: x\nmodels: [smollm2-135m]\nmethods: [sft]\nmixes: [gsm8k]\ncolour: red\n",
    "no-models": "name: x\nmethods: [sft]\nmixes: [gsm8k]\n",
    "seeds": "name: x\nmodels: [smollm2-135m]\nmethods: [sft]\nmixes: [gsm8k]\nseeds: [1, 1]\n",
    "mix": "name: x\nmodels: [smollm2-135m]\nmethods: [sft]\nmixes: [math]\n",
    "name": "name: ../x\nmodels: [smollm2-135m]\nmethods: [sft]\nmixes: [gsm8k]\n",
    "batch": "name: x\nmodels: [smollm2-135m]\nmethods: [sft]\nmixes: [gsm8k]\ntrain: {batch_size: 0}\n",
    "python-tag": "name: !!python/object/apply:os.getcwd []\n",
    "method-setting": "name: x\nmodels: [MODEL]\nmethods: [{infosteer-intervention: {alfa: 2}}]\nmixes: [gsm8k]\n",
    "twice": "name: x\nmodels: [MODEL]\nmethods: [sft, sft]\nmixes: [gsm8k]\n",
    "orphan-task": "name: x\nmodels: [MODEL]\nmethods: [sft]\nmixes: [gsm8k]\ntasks: [boolq]\n",
    "method-file": "name: x\nmodels: [MODEL]\nmethods: [sft]\nmixes: [gsm8k]\nmethod_files: [absent.py]\n",
    "mix-file": "name: x\nmodels: [MODEL]\nmethods: [sft]\n"
    "mixes: [{name: own, sources: [absent.jsonl], tasks: [gsm8k]}]\n",
}

CASES = {
    "unknown model": (["--models", "smolm2-135m"], "unknown model 'smolm2-135m'"),
    "model folder absent": (["--models", "./absent"], "does not exist"),
    "empty model name": (["--models", "MODEL,"], "empty name"),
    "unknown method": (["--methods", "stf"], "did you mean 'sft'"),
    "unknown task": (["--tasks", "bolq"], "did you mean 'boolq'"),
    "unknown grid": (["--grid", "lapotp"], "did you mean 'laptop'"),
    "absent grid file": (["--grid", "absent.yaml"], "cannot be read"),
    "unknown setting": (["--set", "train.lerning_rate=1"], "train.lerning_rate"),
    "unknown section": (["--set", "trian.max_steps=1"], "trian"),
    "setting without value": (["--set", "train.max_steps"], "key=value"),
    "wrong value": (["--set", "train.max_steps=many"], "train.max_steps"),
    "negative value": (["--set", "train.learning_rate=-1"], "train.learning_rate"),
    "unknown optimizer": (["--set", "train.optimizer=adam8"], "train.optimizer"),
    "optimizer not installed": (["--set", "train.optimizer=adamw_8bit"], "needs bitsandbytes, which is not installed"),
    "setting of absent method": (["--set", "methods.lora.alpha=1"], "unknown method of this grid 'lora'"),
    "setting unknown to method": (["--set", "methods.infosteer-intervention.alfa=1"], "did you mean 'alpha'"),
    "layers outside": (["--set", "methods.infosteer-intervention.layers=upper"], "layers 'upper'"),
    "seeds text": (["--seeds", "zero"], "'zero' is not a list of distinct whole numbers"),
    "seeds twice": (["--seeds", "1,1"], "distinct"),
    "seeds negative": (["--seeds=-1"], "whole numbers"),
    "limit zero": (["--limit", "0"], "'0' is not a whole number"),
    "limit negative": (["--limit=-3"], "'-3' is not a whole number"),
    "limit text": (["--limit", "few"], "'few' is not a whole number"),
    "backend": (["--backend", "tgi"], "invalid choice: 'tgi'"),
    "unknown option": (["--gird", "x"], "--gird"),
    "data root absent": (["--data-root", "absent"], "is not a folder"),
    "data root without the files": (["--data-root", "EMPTY"], "holds none of the data files"),
    "output is a file": (["--output", "FILE"], "is a file"),
    "model root absent": (["--models", "smollm2-135m", "--model-root", "EMPTY"], ""),
    "architecture": (["--models", "GPT2"], "GPT2LMHeadModel"),
    "pickle": (["--models", "PICKLE"], "pickle"),
    "truncated": (["--models", "TRUNCATED"], ""),
    "no config": (["--models", "EMPTY"], "config.json"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path]) -> dict[str, str]:
    root = tmp_path_factory.mktemp("world")
    names = {"MODEL": tiny_models["llama"], "EMPTY": root / "empty", "FILE": root / "file", "DATA": root / "data"}
    names["EMPTY"].mkdir()
    names["FILE"].write_text("x")
    build_data_root(names["DATA"])
    for name in ("GPT2", "PICKLE", "TRUNCATED"):
        names[name] = root / name.lower()
        shutil.copytree(tiny_models["llama"], names[name])
    config = json.loads((names["GPT2"] / "config.json").read_text())
    config |= {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    (names["GPT2"] / "config.json").write_text(json.dumps(config))
    (names["PICKLE"] / "model.safetensors").rename(names["PICKLE"] / "pytorch_model.bin")
    weights = names["TRUNCATED"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return {name: str(path) for name, path in names.items()}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command line; it must end with 2 and one line on stderr."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("infosteer-bench: ")
    assert "Traceback" not in lines[0]
    return lines[0]


@pytest.mark.parametrize("case", CASES)
def test_run_refuses(case, world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given, message = CASES[case]
    arguments = ["run", *given]
    for option, default in (("--grid", "laptop"), ("--models", "MODEL"), ("--data-root", "DATA")):
        if option not in arguments:
            arguments += [option, default]
    arguments = [
        part.replace(name, path) if name in part else part for part in arguments for name, path in [_in(part, world)]
    ]
    assert message in refused(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


def _in(part: str, world: dict[str, str]) -> tuple[str, str]:
    return next(((name, path) for name, path in world.items() if name in part), ("\0", ""))


@pytest.mark.parametrize("name", GRIDS)
def test_malformed_grids(name, world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    grid = tmp_path / f"{name}.yaml"
    grid.write_text(GRIDS[name].replace("MODEL", world["MODEL"]))
    refused(["run", "--grid", str(grid), "--data-root", world["DATA"]], capsys)
    assert list(tmp_path.iterdir()) == [grid]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["rnu"],
        ["eval"],
        ["eval", "--checkpoint", "absent"],
        ["eval", "--checkpoint", "EMPTY", "--data-root", "DATA"],
        ["leaderboard", "--runs", "EMPTY"],
        ["leaderboard", "--output", "EMPTY"],
        ["leaderboard", "--check", "--output", "absent"],
        ["leaderboard", "--runs", "EMPTY", "--check"],
        ["data", "list", "--data-root", "EMPTY"],
        ["data", "erase"],
        ["list", "colours"],
        ["list", "tasks", "--include-path", "absent"],
    ],
)
def test_other_commands_refuse(arguments, world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused([world.get(part, part) for part in arguments], capsys)
    assert list(tmp_path.iterdir()) == []


def test_gated_model_without_token_is_told_before_any_weights(
    tiny_models, world, tmp_path, monkeypatch, online, capsys
):
    root = tmp_path / "hub"
    shutil.copytree(tiny_models["llama"], root / "meta-llama/Llama-3.2-1B")
    monkeypatch.chdir(world["EMPTY"])
    with Hub(root, gated={"meta-llama/Llama-3.2-1B": "hf_secret"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        arguments = ["run", "--grid", "laptop", "--models", "llama-3.2-1b", "--data-root", world["DATA"]]
        line = refused(arguments, capsys)
        assert "licence" in line
        assert "HF_TOKEN" in line
        assert hub.count("safetensors") == 0
    assert list(Path(world["EMPTY"]).iterdir()) == []


def test_wrong_bytes_from_upstream(world, tmp_path, monkeypatch, capsys):
    """A mirror that serves other bytes than the pinned ones is refused, and nothing of it is kept."""
    cache, root = tmp_path / "cache", tmp_path / "mirror"
    for path in Path(world["DATA"]).rglob("*.json"):
        target = root / "raw" / path.relative_to(world["DATA"])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    monkeypatch.setenv("INFOSTEER_CACHE", str(cache))
    monkeypatch.chdir(world["EMPTY"])
    with Hub(root) as hub:
        monkeypatch.setenv("INFOSTEER_DATA_URL", hub.raw_url)
        line = refused(["run", "--grid", "laptop", "--models", world["MODEL"]], capsys)
    assert "sha256" in line
    assert not [path for path in cache.rglob("*") if path.suffix in (".json", ".part")]
