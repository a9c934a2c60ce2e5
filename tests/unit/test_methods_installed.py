"""Methods that installed packages bring by the entry point group; a whole run with one: tests/integration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

METHOD = """
from infosteer_bench import Method
from their_package.scale import SCALE


class Scaled(Method):
    name = "scaled"
    summary = "plain fine-tuning with embeddings scaled"

    def prepare(self, model, family):
        model.get_input_embeddings().weight.data.mul_(SCALE)
        return model


METHOD = Scaled
"""


def install(folder: Path, *, entry: str = "scaled = their_package.scaled:METHOD", method: str = METHOD) -> Path:
    """A package with its metadata, as pip would leave it in a folder of the path."""
    package, metadata = folder / "their_package", folder / "their_package-1.0.dist-info"
    package.mkdir(parents=True)
    metadata.mkdir()
    (package / "__init__.py").touch()
    (package / "scale.py").write_text("SCALE = 2.0\n")
    (package / "scaled.py").write_text(method)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[infosteer_bench.methods]\n{entry}\n")
    return folder


def ask(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)


def digest_of(folder: Path) -> str:
    done = ask(folder, "-c", "from infosteer_bench.methods import METHODS; print(METHODS.get('scaled').source_digest)")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_method_of_an_installed_package_is_listed(tmp_path: Path) -> None:
    done = ask(install(tmp_path), "-m", "infosteer_bench", "list", "methods")
    assert done.returncode == 0, done.stderr
    assert any(line.split()[0] == "scaled" for line in done.stdout.splitlines())


def test_every_file_of_its_package_is_part_of_its_identity(tmp_path: Path) -> None:
    folder = install(tmp_path)
    before = digest_of(folder)
    assert digest_of(folder) == before
    (folder / "their_package/scale.py").write_text("SCALE = 3.0\n")
    assert digest_of(folder) != before


def test_a_name_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    folder = install(tmp_path, entry="sft = their_package.scaled:METHOD")
    done = ask(folder, "-m", "infosteer_bench", "list", "methods")
    assert done.returncode == 2
    assert "package their-package: the method name 'sft' is taken" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({"entry": "other = their_package.scaled:METHOD"}, "other", "is no method of the name 'other'"),
        ({"entry": "scaled = their_package.scaled:SCALE"}, "scaled", "is no method of the name 'scaled'"),
        ({"method": "import not_there\n"}, "scaled", "method scaled: ModuleNotFoundError: No module named 'not_there'"),
    ],
)
def test_a_broken_one_leaves_the_others_alone(tmp_path: Path, changes: dict[str, str], name: str, message: str) -> None:
    folder = install(tmp_path, **changes)
    listed = ask(folder, "-m", "infosteer_bench", "list", "methods")
    assert listed.returncode == 0, listed.stderr
    assert "cannot be loaded: package their-package: " in listed.stdout
    assert message in listed.stdout
    asked = ask(folder, "-m", "infosteer_bench", "run", "--grid", "embedded", "--methods", name, "--dry-run")
    assert asked.returncode == 2
    assert message in asked.stderr
    assert len(asked.stderr.splitlines()) == 1


def test_a_package_without_an_init_file(tmp_path: Path) -> None:
    folder = install(tmp_path)
    (folder / "their_package/__init__.py").unlink()
    before = digest_of(folder)
    (folder / "their_package/scale.py").write_text("SCALE = 3.0\n")
    assert digest_of(folder) != before
