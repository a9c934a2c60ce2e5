"""The wheel alone is enough: tasks, grids and reported numbers ship in it and are found from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.grid import grid_names

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed; nothing of this checkout is on its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel in it; dependencies are borrowed from the present one."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    home = folder / "venv"
    venv.create(home, with_pip=False)
    fresh = home / "bin" / "python"
    packages = Path(run(fresh, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", packages, wheel, cwd=folder)
    # Not as a .pth of that folder's own .pth files: an editable install of this checkout must stay invisible.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    where = run(fresh, "-c", "import infosteer_bench; print(infosteer_bench.__file__)", cwd=folder).strip()
    assert Path(where).is_relative_to(packages)
    return fresh


def test_list_tasks_from_another_folder(python: Path, tmp_path: Path):
    lines = run(python, "-m", "infosteer_bench", "list", "tasks", cwd=tmp_path).splitlines()
    assert {line.split()[0] for line in lines[1:]} == set(GROUPS["all"])
    assert len(lines) == 16
    assert all(f"infosteer_{line.split()[0]}" in line for line in lines[1:])


def test_the_grids_ship(python: Path, tmp_path: Path):
    lines = run(python, "-m", "infosteer_bench", "list", "grids", cwd=tmp_path).splitlines()
    assert [line.split()[0] for line in lines[1:]] == grid_names()
    assert {"laptop", "paper"} <= set(grid_names())


def test_the_reported_numbers_ship(python: Path, tmp_path: Path):
    call = "reported(model='qwen2.5-1.5b', method='base', arm='', mix=None, task='boolq')"
    program = f"from infosteer_bench.leaderboard.store.reported import reported; print({call})"
    assert run(python, "-c", program, cwd=tmp_path).strip() == "64.2"


def test_the_parts_of_a_boards_page_ship(python: Path, tmp_path: Path):
    program = (
        "from infosteer_bench.leaderboard.numbers.board import Board\n"
        "from infosteer_bench.leaderboard.store.compact import BoardRecords as B\n"
        "from infosteer_bench.leaderboard.views.page import build_page\n"
        "from infosteer_bench.leaderboard.views.page.build import FOLDER\n"
        "print(len(build_page(Board(B(name='x', grid=None, cells=(), checkpoints=()), []))['index.html']))\n"
        "print((FOLDER / 'vendor' / 'dataTables.LICENSE.txt').is_file())"
    )
    size, licence = run(python, "-c", program, cwd=tmp_path).split()
    assert int(size) > 100_000
    assert licence == "True"


def test_the_development_tools_do_not_ship(python: Path, tmp_path: Path):
    program = "from importlib.util import find_spec; print(find_spec('infosteer_dev'))"
    assert run(python, "-c", program, cwd=tmp_path).strip() == "None"


def test_the_console_script_is_installed(python: Path, tmp_path: Path):
    program = "from importlib.metadata import entry_points as e; print(e(name='infosteer-bench').names)"
    assert "infosteer-bench" in run(python, "-c", program, cwd=tmp_path)
    assert run(python, "-m", "infosteer_bench", "--version", cwd=tmp_path).startswith("infosteer-bench ")
