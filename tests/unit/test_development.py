"""The development package may use ours, ours runs without it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEVELOPMENT = "infosteer_dev"
WITH_LEAVE = {"commands/miniworld.py"}
"""Files that import it inside a function, for a command that only a checkout can offer."""


def development_imports(package: Path) -> list[str]:
    """Files of the package that import the development package; those with leave only where it does not wait."""
    found: list[str] = []
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = path.relative_to(package).as_posix()
        waits = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef) and name in WITH_LEAVE
            for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(each.split(".")[0] == DEVELOPMENT for each in names) and id(node) not in waits:
                found.append(name)
    return found


def test_the_package_never_imports_its_development_tools():
    assert development_imports(ROOT / "infosteer_bench") == []


def test_such_an_import_is_found(tmp_path: Path):
    files = {
        "a.py": "def f():\n    from infosteer_dev import docs\n",
        "b.py": "import infosteer_dev.docs\n",
        "commands/miniworld.py": "def f():\n    import infosteer_dev.miniworld\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert development_imports(tmp_path) == ["a.py", "b.py"]
    (tmp_path / "commands" / "miniworld.py").write_text("import infosteer_dev\n", encoding="utf-8")
    assert development_imports(tmp_path) == ["a.py", "b.py", "commands/miniworld.py"]
