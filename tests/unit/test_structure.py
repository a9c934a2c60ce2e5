"""The shape of the repository: imports go down only, config fields have roles, start-up stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from infosteer_bench import grid as grid_module
from infosteer_bench.grid import Frozen, Grid
from infosteer_bench.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "infosteer_bench"

FLOORS = {
    "errors": 0,
    "device": 0,
    "processes": 0,
    "version": 0,
    "benchmark": 0,
    "foreign": 1,
    "registry": 1,
    "records": 2,
    "strict_yaml": 2,
    "grid": 3,
    "cache": 3,
    "provenance": 3,
    "memory": 2,
    "models": 4,
    "methods": 5,
    "data": 5,
    "data.miniworld": 6,
    "data.roots": 7,
    "tasks": 8,
    "leaderboard.store": 8,
    "leaderboard.numbers": 9,
    "leaderboard.views": 10,
    "leaderboard.paper": 11,
    "leaderboard": 12,
    "training": 8,
    "evaluation": 9,
    "analysis": 11,
    "runs": 13,
    "profiling": 14,
    "smoke": 14,
    "api": 15,
    "commands": 16,
    "cli": 17,
    "__main__": 18,
    "__init__": 18,
}
"""A room imports rooms on lower floors only; docs/architecture.md shows this table."""
HEAVY = ("torch", "transformers", "vllm", "pandas", "lm_eval", "datasets", "trl", "pyarrow", "matplotlib")


def room(module: str) -> str:
    """`infosteer_bench.tasks.catalog` -> `tasks`; the innermost of rooms within rooms."""
    inside = module.split(".")[1:] or ["__init__"]
    names = [".".join(inside[:length]) for length in range(len(inside), 0, -1)]
    return next((name for name in names if name in FLOORS), names[-1])


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    return {module_name(path, package): path for path in sorted(package.rglob("*.py"))}


def imports(path: Path, package: Path) -> Iterator[str]:
    """Modules of ours that a file imports, inside functions and for type checking too."""
    known = modules(package)
    here = module_name(path, package).split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = here if path.stem == "__init__" else here[:-1]
            base = ".".join(above[: len(above) - node.level + 1]) + "." if node.level else ""
            source = (base + (node.module or "")).rstrip(".")
            # `from infosteer_bench import records` names a module of ours, `from infosteer_bench.grid import Grid` not
            names = [full if (full := f"{source}.{alias.name}") in known else source for alias in node.names]
        yield from (name for name in names if name.split(".")[0] == "infosteer_bench")


def climbs(package: Path) -> list[str]:
    """Every import of a room on the same floor or a higher one."""
    return [
        f"{path.relative_to(package)} imports {target}"
        for module, path in modules(package).items()
        for target in dict.fromkeys(imports(path, package))
        if room(module) != room(target) and FLOORS[room(module)] <= FLOORS[room(target)]
    ]


def circles(package: Path) -> list[list[str]]:
    """Files that import one another, by whatever way round."""
    known = modules(package)
    arrows = {name: {t for t in imports(path, package) if t in known and t != name} for name, path in known.items()}
    reach = {name: set(targets) for name, targets in arrows.items()}
    for middle in known:
        for name in known:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    found = {frozenset([name, *(other for other in reach[name] if name in reach[other])]) for name in known}
    return sorted(sorted(circle) for circle in found if len(circle) > 1)


def test_every_room_has_a_floor():
    assert {room(name) for name in modules(PACKAGE)} <= FLOORS.keys()


def test_every_floor_has_a_room():
    assert FLOORS.keys() <= {room(name) for name in modules(PACKAGE)}


def test_imports_go_down_only():
    assert climbs(PACKAGE) == []


def test_no_files_import_one_another():
    assert circles(PACKAGE) == []


@pytest.fixture
def wrong_package(tmp_path: Path) -> Path:
    """A package with a lazy climb, a relative climb, and a circle that only a type checker walks."""
    package = tmp_path / "infosteer_bench"
    for name, text in {
        "__init__.py": "",
        "records.py": "from infosteer_bench import cli\n",
        "cli.py": "",
        "memory/tap.py": "def f():\n    import infosteer_bench.training.trainer\n",
        "models/load.py": "from ..data import sources\n",
        "data/__init__.py": "",
        "data/sources.py": "def f():\n    from infosteer_bench.data.slices import g\n",
        "data/slices.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .sources import S\n",
        "tasks/catalog.py": "from infosteer_bench.data.sources import open_source\n",
        "leaderboard/store/compact.py": "from infosteer_bench.leaderboard.numbers import rows\n",
        "leaderboard/numbers/rows.py": "",
        "methods/sft.py": "from infosteer_bench.methods.base import Method\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    return package


def test_the_floor_test_can_fail(wrong_package: Path):
    assert climbs(wrong_package) == [
        "leaderboard/store/compact.py imports infosteer_bench.leaderboard.numbers.rows",
        "memory/tap.py imports infosteer_bench.training.trainer",
        "models/load.py imports infosteer_bench.data.sources",
        "records.py imports infosteer_bench.cli",
    ]


def test_the_circle_test_can_fail(wrong_package: Path):
    assert circles(wrong_package) == [["infosteer_bench.data.slices", "infosteer_bench.data.sources"]]


def test_method_files_never_import_one_another():
    for path in (PACKAGE / "methods").glob("*.py"):
        if path.stem in ("__init__", "base"):
            continue
        others = {target for target in imports(path, PACKAGE) if room(target) == "methods"}
        assert others <= {"infosteer_bench.methods.base"}, path.name


def configs(model: type[Frozen]) -> Iterator[type[Frozen]]:
    """A config and all configs nested in its fields."""
    yield model
    for info in model.model_fields.values():
        for part in (info.annotation, *get_args(info.annotation)):
            if isinstance(part, type) and issubclass(part, Frozen):
                yield from configs(part)


def all_configs() -> list[type[Frozen]]:
    own = [value for value in vars(grid_module).values() if isinstance(value, type) and issubclass(value, Frozen)]
    return [*own, *(METHODS.get(name).Config for name in METHODS)]


@pytest.mark.parametrize("config", all_configs(), ids=lambda config: config.__name__)
def test_every_config_field_is_identity_or_runtime(config: type[Frozen]):
    for name, info in config.model_fields.items():
        role = (info.json_schema_extra or {}).get("role") if isinstance(info.json_schema_extra, dict) else None
        assert role in ("identity", "runtime"), f"{config.__name__}.{name} has no role"


def test_the_walk_over_configs_reaches_all_of_them():
    assert set(configs(Grid)) <= set(all_configs())
    assert len(set(configs(Grid))) >= 5


def loaded_by(statement: str) -> set[str]:
    """Heavy packages that are imported after `statement` in a fresh interpreter."""
    program = f"import sys\n{statement}\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import infosteer_bench",
        "import infosteer_bench.cli; infosteer_bench.cli.build_parser()",
        "from infosteer_bench.grid import load_grid; load_grid('paper')",
        "import infosteer_bench.leaderboard",
        "from infosteer_bench.tasks.catalog import read_tasks; read_tasks()",
        "import infosteer_bench.models.catalog",
    ],
)
def test_start_up_imports_nothing_heavy(statement: str):
    assert loaded_by(statement) == set()


def test_the_start_up_test_can_fail():
    assert loaded_by("import pyarrow") == {"pyarrow"}


def test_leaderboard_never_imports_torch():
    for path in (PACKAGE / "leaderboard").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & {"torch", "transformers", "vllm"}, path.name


def tracked() -> list[Path]:
    """Files that git has or would take; every file of a tree without git."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_python_files_stay_readable():
    long = [
        f"{path.relative_to(ROOT)}: {n}"
        for path in tracked()
        if path.suffix == ".py" and (n := len(path.read_text(encoding="utf-8").splitlines())) > 400
    ]
    assert long == []


def test_every_module_says_what_it_is_for():
    missing = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix == ".py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert missing == []


# Written in pieces, so that this file does not find itself.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"py" + r"pi\.org",
            r"python" + r"hosted\.org",
            r"npm" + r"js\.(org|com)",
            r"file:///" + r"opt",
            r"/" + r"work/",
            r"/" + r"root/",
            r"/opt/" + r"(wheels|py" + r"pi)",
            r"/home/" + r"(?!me/|\{|\Z)[a-z]+/[a-z]",
        ]
    )
)


def test_no_path_of_a_machine_and_no_registry_address_is_committed():
    found: list[str] = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}: {match[0]}"
            for number, line in enumerate(text.split("\n"), 1)
            if (match := FORBIDDEN.search(line))
        ]
    assert found == []
