"""YAML read strictly: every fault is a UserError that names the file and the line. Nothing is executed.

    data = read_mapping(text, "grid my_grid.yaml")      # grids
    document = read_document(path)                      # lm-eval task YAMLs, with their includes

PyYAML takes the last of two equal keys, and lm-eval skips a YAML that it cannot read with a debug message. In tasks
`!function` gives the dotted name as text, and only for names below `infosteer_bench.tasks`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from infosteer_bench.errors import UserError

FUNCTION_ROOT = "infosteer_bench.tasks."


@dataclass
class Document:
    """One YAML file with its includes merged as lm-eval merges them (the including file's keys win).

    lines: the file and line of every top-level key, and of the keys of top-level mappings as "key.subkey".
    """

    path: Path
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, tuple[Path, int]] = field(default_factory=dict)
    included: set[Path] = field(default_factory=set)

    def error(self, key: str | None, message: str, *, allowed: str | None = None, hint: str | None = None) -> UserError:
        """A UserError at `key`'s place, or at the file's first line."""
        path, line = self.lines.get(key or "", (self.path, 1))
        return UserError(f"{show(path)}, line {line}: {message}", allowed=allowed, hint=hint)


def show(path: Path) -> str:
    """A path with its folder, short enough for one line."""
    return "/".join(path.parts[-2:])


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys. Names the line of whatever it refuses."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _TaskLoader(_Loader):
    """Takes `!function` too."""


def _function(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    name = loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(name, str) or not re.fullmatch(re.escape(FUNCTION_ROOT) + r"\w+(\.\w+)*", name):
        problem = f"!function {name!r} is refused: it would run code of your own"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return name


_TaskLoader.add_constructor("!function", _function)


def read_mapping(text: str, where: str) -> dict[str, Any]:
    """A YAML mapping of text keys. Raises UserError, with `where` and the line, for anything else."""
    return _parse(_Loader, text, where, allowed="a mapping of keys to values")[0]


def read_value(text: str, where: str) -> Any:
    """Any YAML value. Raises UserError, with `where`, for what is not one."""
    return _load(_Loader, text, where)[0]


def read_document(path: Path, *, _above: tuple[Path, ...] = ()) -> Document:
    """Read `path` and what it includes. Raises UserError for anything that is not a plain YAML mapping."""
    path = path.resolve()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{show(path)} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{show(path)} is not UTF-8 text") from None
    data, lines = _parse(_TaskLoader, text, show(path), allowed="lm-eval task configuration")
    own = Document(path, data, {key: (path, line) for key, line in lines.items()})
    includes = data.pop("include", [])
    if isinstance(includes, str):
        includes = [includes]
    if not isinstance(includes, list) or not all(isinstance(name, str) for name in includes):
        raise own.error("include", "include must be a file name or a list of file names")
    merged = Document(path)
    for name in includes:
        target = (path.parent / name).resolve()
        if target in (*_above, path):
            raise own.error("include", f"include {name!r} leads back to this file")
        if not target.is_file():
            raise own.error("include", f"included file {name!r} does not exist")
        other = read_document(target, _above=(*_above, path))
        merged.data.update(other.data)
        merged.lines.update(other.lines)
        merged.included |= {target} | other.included
    merged.data.update(own.data)
    merged.lines.update(own.lines)
    return merged


def _parse(kind: type[_Loader], text: str, where: str, *, allowed: str) -> tuple[dict[str, Any], dict[str, int]]:
    data, node = _load(kind, text, where)
    if not isinstance(data, dict) or not isinstance(node, yaml.MappingNode):
        raise UserError(f"{where}, line 1: not a mapping of keys to values", allowed=allowed)
    if bad := [key for key in data if not isinstance(key, str)]:
        raise UserError(f"{where}, line 1: key {bad[0]!r} is not text")
    return data, dict(_lines(node))


def _load(kind: type[_Loader], text: str, where: str) -> tuple[Any, yaml.Node | None]:
    loader = None
    try:
        loader = kind(text)  # raises on characters that YAML does not allow
        node = loader.get_single_node()
        return loader.construct_document(node) if node is not None else None, node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UserError(
            f"{where}, line {line}: {error.problem or error.context}",
            allowed=f"names below {FUNCTION_ROOT}" if "!function" in str(error.problem) else None,
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where}, line 1: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UserError(f"{where}, line 1: nested too deeply") from None
    finally:
        if loader is not None:
            loader.dispose()


def _lines(node: yaml.MappingNode, prefix: str = "") -> Iterable[tuple[str, int]]:
    for key_node, value_node in node.value:
        key = prefix + str(key_node.value)
        yield key, key_node.start_mark.line + 1
        if isinstance(value_node, yaml.MappingNode) and not prefix:
            yield from _lines(value_node, f"{key}.")
