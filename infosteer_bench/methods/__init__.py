"""The methods under comparison: one file each. File `foo_bar.py` holds method `foo-bar` as its `METHOD`.

A new method is a new file here, or any Python file named in a grid's `method_files`.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from pathlib import Path

from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.methods.base import Method
from infosteer_bench.records import digest, file_sha256
from infosteer_bench.registry import Registry

METHODS: Registry[type[Method]] = Registry("method")
for _module in pkgutil.iter_modules(__path__):
    METHODS.register(_module.name.replace("_", "-"), f"{__name__}.{_module.name}:METHOD")


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
