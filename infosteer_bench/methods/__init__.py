"""The methods under comparison: one file each. File `foo_bar.py` holds method `foo-bar` as its `METHOD`.

A new method is a new file here, a Python file named in a grid's `method_files`, or comes with an installed package by
the entry point group `infosteer_bench.methods` (in every process alike: workers, ranks, vLLM's).
"""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.methods.base import Method
from infosteer_bench.records import digest, file_sha256
from infosteer_bench.registry import Deferred, Registry

ENTRY_POINTS = "infosteer_bench.methods"

METHODS: Registry[type[Method]] = Registry("method")
for _module in pkgutil.iter_modules(__path__):
    METHODS.register(_module.name.replace("_", "-"), f"{__name__}.{_module.name}:METHOD")


def register_installed() -> None:
    """Register the methods of installed packages; their code runs when they are first used.

    Raises UserError for a name that is taken.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name in METHODS:
            raise UserError(f"{_package(entry)}: the method name {entry.name!r} is taken", hint="uninstall one of them")
        METHODS.register(entry.name, Deferred(partial(_installed, entry)))


def _installed(entry: EntryPoint) -> type[Method]:
    """The method of an entry point. Raises UserError if it is none, or of another name."""
    try:
        method = entry.load()
    except Exception as error:  # somebody else's code
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{_package(entry)}: method {entry.name}: {type(error).__name__}: {reason}") from error
    if not (isinstance(method, type) and issubclass(method, Method)) or method.name != entry.name:
        raise UserError(
            f"{_package(entry)}: {entry.value} is no method of the name {entry.name!r}",
            allowed="a subclass of infosteer_bench.Method whose `name` is that of the entry point",
        )
    method.source_digest = _sources(method.__module__)
    return method


def _package(entry: EntryPoint) -> str:
    return f"package {entry.dist.name}" if entry.dist else f"entry point {entry.value}"


def _sources(module: str) -> str:
    """Digest of all Python files of the package that a module belongs to: any of them may change what is trained."""
    top = sys.modules[module.partition(".")[0]]
    if hasattr(top, "__path__"):
        found = [(folder, path) for folder in map(Path, top.__path__) for path in sorted(folder.rglob("*.py"))]
    else:
        file = Path(str(top.__file__))
        found = [(file.parent, file)]
    return digest([[path.relative_to(folder).as_posix(), file_sha256(path)] for folder, path in found])


register_installed()


def register_file(path: Path) -> str:
    """Register the method of a user's own Python file; returns its name. Running it is the user's decision.

    Raises UserError if the file cannot be read, holds no METHOD, or takes a name that another file has.
    """
    place = digest(str(path.resolve()))[:8]  # two folders may hold files of one name
    spec = importlib.util.spec_from_file_location(f"infosteer_method_{path.stem}_{place}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"method file {path} cannot be read", allowed="a .py file with METHOD = a Method subclass")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # or what is made of it cannot go to another process
    spec.loader.exec_module(module)
    method = getattr(module, "METHOD", None)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise UserError(f"method file {path} holds no METHOD", allowed="METHOD = a subclass of methods.base.Method")
    if method.name in METHODS:
        known = METHODS.get(method.name)
        if known.__module__ != method.__module__:
            raise UserError(f"method file {path}: the name {method.name!r} is taken", hint="choose another name")
        METHODS.unregister(method.name)
    method.source_digest = file_sha256(path)[:16]
    METHODS.register(method.name, method)
    return method.name


def select_methods(names: list[str], *, grid_methods: list[str]) -> list[str]:
    """The methods of a command line: "all" for the grid's, or names; sft is the reference and needs no asking."""
    if names == ["all"]:
        return list(grid_methods)
    for name in names:
        if name not in METHODS:
            raise unknown_name("method", name, ["all", *METHODS])
    return list(dict.fromkeys(names))
