"""`smoke` as a user types it: it holds on a whole suite, and fails, by name, when a method or a task is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.methods import METHODS
from infosteer_bench.tasks.catalog import tasks_dir
from tests.integration.cli import environment, run

pytestmark = pytest.mark.integration


def names(out: str, mark: str) -> set[str]:
    """`hf: method sft` and `scoring boolq`: the checks of an outcome, without what was found."""
    found: set[str] = set()
    for line in out.splitlines():
        if line.startswith(mark):
            parts = line.removeprefix(mark).strip().split(": ")
            found.add(": ".join(parts[: 2 if parts[0] in ("hf", "vllm") else 1]))
    return found


def broken(fault: str, folder: Path, *, expect: int = 1) -> str:
    """stdout of `smoke --backend hf` in a program that first does `fault`."""
    program = folder / "broken.py"
    program.write_text(f"import sys\nfrom infosteer_bench.cli import main\n{fault}\nsys.exit(main(sys.argv[1:]))\n")
    scratch = folder / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, str(program), "smoke", "--backend", "hf"],
        cwd=folder,
        env=environment(TMPDIR=str(scratch), CUDA_VISIBLE_DEVICES=""),
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == expect, f"{done.stdout}\n{done.stderr}"
    (kept,) = scratch.glob("infosteer-smoke-*")
    assert f"the runs and their logs: {kept}" in done.stdout
    return done.stdout


def test_every_method_and_task_by_hf(tmp_path: Path) -> None:
    """All holds, every method and task has its lines, and nothing is left behind."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    out, _ = run(["smoke", "--backend", "hf"], tmp_path, TMPDIR=str(scratch), CUDA_VISIBLE_DEVICES="")
    assert names(out, "FAIL") == set()
    ok = names(out, "ok")
    assert {f"hf: method {name}" for name in METHODS} <= ok
    for task in GROUPS["all"]:
        assert {f"scoring {task}", f"hf: task {task}"} <= ok
    assert {"hf: run", "hf: cells", "hf: answers", "hf: leaderboard"} <= ok
    assert f"all {len(ok)} checks hold" in out
    assert not list(scratch.glob("infosteer-smoke-*"))
    assert not (tmp_path / "runs").exists()


def test_a_method_that_does_nothing_is_found(tmp_path: Path) -> None:
    """Attached to nothing, the intervention trains exactly like sft, and all its cells succeed."""
    out = broken(
        "import contextlib\n"
        "from infosteer_bench.methods.infosteer_intervention import InfoSteerIntervention\n"
        "InfoSteerIntervention.attach = lambda self, model, family: contextlib.nullcontext()",
        tmp_path,
    )
    assert names(out, "FAIL") == {"hf: method infosteer-intervention"}
    assert "distance from sft's, as a share of sft's way: expected more than 0.001, got 0" in out


def test_a_filter_that_reads_the_wrong_thing_is_found(tmp_path: Path) -> None:
    """Every letter is read as A: only aqua asks for letters."""
    out = broken(
        "from infosteer_bench.tasks import filters\n"
        "rule = filters.RULES['robust']\n"
        "filters.RULES['robust'] = lambda text, spec: 'A' if spec.kind == 'letter' else rule(text, spec)",
        tmp_path,
    )
    assert names(out, "FAIL") == {"scoring aqua"}
    assert "gold: robust, percent right: expected 100.0" in out


def test_a_task_file_that_does_not_read_is_found(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    shutil.copytree(tasks_dir(), tasks)
    with (tasks / "infosteer_boolq.yaml").open("a") as file:
        file.write("doc_to_txt: prompt\n")
    out = broken(
        f"from pathlib import Path\nfrom infosteer_bench.tasks import catalog\n"
        f"catalog.tasks_dir = lambda: Path({str(tasks)!r})",
        tmp_path,
    )
    assert names(out, "FAIL") == {"hf: set-up"}
    assert "infosteer_boolq.yaml" in out
    assert "doc_to_txt" in out


@pytest.mark.vllm
def test_with_one_vllm_engine(tmp_path: Path) -> None:
    """The second family, answered by a real engine."""
    space = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")
    out, _ = run(["smoke", "--backend", "vllm", "--output", "kept"], tmp_path, VLLM_CPU_KVCACHE_SPACE=space)
    assert names(out, "FAIL") == set()
    assert {f"vllm: method {name}" for name in METHODS} <= names(out, "ok")
    assert (tmp_path / "kept/smoke-vllm/leaderboard/leaderboard.csv").is_file()
    _, err = run(["smoke", "--backend", "vllm", "--output", "kept"], tmp_path, expect=2)
    assert "is there already" in err
