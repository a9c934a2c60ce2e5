"""`profile train`: true shapes, honest bytes, a JSON that holds what the table shows, and no package beyond three."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infosteer_bench.cli import main
from infosteer_bench.commands.profile import _methods
from infosteer_bench.errors import UserError
from infosteer_bench.methods import METHODS
from infosteer_bench.models.catalog import CATALOG
from infosteer_bench.models.families import family_of
from infosteer_bench.profiling.shapes import shape_config, shape_names
from infosteer_bench.profiling.train import Bench, Setting

ROOT = Path(__file__).parents[2]
MEASURED = ("sft", "infosteer-intervention", "infosteer-regularization")  # and no other that a file registers
SMALL = [
    *("profile", "train", "--shape", "mini-qwen2", "--layers", "2", "--methods", ",".join(MEASURED)),
    *("--batch", "2", "--tokens", "24", "--rounds", "2"),
]


@pytest.mark.parametrize("name", shape_names())
def test_a_shape_has_its_models_parameters(name):
    """On the meta device nothing is allocated; the catalog's figure is rounded to three digits."""
    from transformers import AutoModelForCausalLM

    config = shape_config(name)
    config.architectures = None
    assert family_of(config).name == CATALOG[name].family
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(CATALOG[name].parameters, rel=0.006)


def test_fewer_layers():
    assert shape_config("gemma-2-2b", 2).num_hidden_layers == 2
    assert len(shape_config("gemma-2-2b", 2).layer_types) == 2
    with pytest.raises(UserError, match=r"unknown shape 'qwen2\.5-1b'.*qwen2\.5-1\.5b"):
        shape_config("qwen2.5-1b")


@pytest.fixture
def bench() -> Bench:
    return Bench(shape_config("mini-llama", 2), Setting("mini-llama", 2, batch_size=2, tokens=24))


def test_saved_bytes_are_those_of_autograd(bench, monkeypatch):
    """sft keeps k for down_proj, so reading it adds two float32 numbers per token, layer and nothing else that grows
    with F; a naive entropy keeps several tensors of k's size."""
    from infosteer_bench.memory import entropy
    from infosteer_bench.memory.entropy import key_entropy_reference

    plain = bench.saved_bytes(METHODS.get("sft").configure({}))
    method = METHODS.get("infosteer-regularization").configure({})
    tokens, layers = 2 * 24, 2
    per_token = (bench.saved_bytes(method) - plain) / (tokens * layers)
    assert 8 <= per_token <= 8 + 32
    monkeypatch.setattr(entropy, "with_entropy", lambda k, normalize, **_: (k, key_entropy_reference(k, normalize)))
    naive = bench.saved_bytes(method) - plain
    assert naive > tokens * layers * bench.ffn_width * 4


def test_every_part_takes_time_and_leaves_no_hook(bench):
    for name in MEASURED:
        method = METHODS.get(name).configure({})
        assert bench.layers(method) > 0
        assert bench.step(method) > 0
    assert bench.head() > 0
    assert not any(module._forward_pre_hooks for module in bench.model.modules())


def test_the_command(tmp_path, capsys):
    file = tmp_path / "new" / "cost.json"
    arguments = ["--set", "methods.infosteer-intervention.control=noise", "--no-checkpointing", "--json", str(file)]
    assert main([*SMALL, *arguments]) == 0
    shown = capsys.readouterr()
    assert "round 2 of 2" in shown.err
    found = json.loads(file.read_text())
    assert list(found["methods"]) == list(MEASURED)
    assert found["setting"]["precision"] == ("bf16" if torch.cuda.is_available() else "float32")
    assert found["methods"]["sft"]["time_ratio"]["layers"]["median"] == 1
    assert found["methods"]["infosteer-intervention"]["arm"] == "control=noise"
    assert found["head_time_s"] > 0
    for name, row in found["methods"].items():
        assert row["peak_memory_bytes"] > 0
        (line,) = [line for line in shown.out.splitlines() if line.startswith(name)]
        assert f"{row['time_ratio']['layers']['median']:.3f}" in line
        assert f"{100 * row['saved_share_added']:.2f} %" in line


def test_where_no_method_is_named_all_that_train_are_measured():
    """One that a file registered too; the reference comes first, and what trains nothing is left out."""
    METHODS.register("stub", METHODS.get("sft"))
    try:
        names = list(_methods("all", []))
    finally:
        METHODS.unregister("stub")
    assert names[0] == "sft"
    assert {"stub", *MEASURED} <= set(names)
    assert "base" not in names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "gpt-2"], "unknown shape 'gpt-2'"),
        (["--methods", "base"], "base trains nothing"),
        (["--methods", "steer"], "unknown method 'steer'"),
        (["--set", "train.epochs=2"], "methods.NAME.FIELD=VALUE"),
        (["--set", "methods.infosteer-intervention.alfa=2"], "did you mean 'alpha'"),
        (["--set", "methods.infosteer-intervention.layers=[9]"], "layers [9]"),
        (["--layers", "0"], "--layers"),
        (["--json", "."], "is a folder"),
    ],
)
def test_what_it_refuses(arguments, message, capsys):
    try:
        code = main([*SMALL, *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_it_asks_for_torch_transformers_and_pydantic_only():
    """A bare GPU machine: our code imports nothing else (transformers brings numpy and PyYAML)."""
    code = f"""
import builtins, sys
real = builtins.__import__
allowed = sys.stdlib_module_names | {{"torch", "transformers", "pydantic", "numpy", "yaml", "infosteer_bench"}}
def narrow(name, globals=None, *rest, **options):
    if (globals or {{}}).get("__name__", "").startswith("infosteer_bench") and name.split(".")[0] not in allowed:
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    return real(name, globals, *rest, **options)
builtins.__import__ = narrow
from infosteer_bench.cli import main
try:
    import infosteer_bench.training.trainer
    sys.exit("nothing is hidden: trl was found")
except ModuleNotFoundError:
    pass
sys.exit(main({SMALL!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "infosteer-regularization" in done.stdout
