"""infosteer_bench: fine-tune with and without InfoSteer, evaluate on 15 tasks, compare honestly.

    import infosteer_bench as ib

    grid = ib.load_grid("embedded", overrides=["models=[mini-llama]", "seeds=[0]", "eval.limit=10"])
    board = ib.read_board(ib.run(grid).board)

Each name is imported when it is first used: `import infosteer_bench` loads none of torch, transformers, vllm, pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infosteer_bench.version import __version__

if TYPE_CHECKING:
    from infosteer_bench.api import Outcome, evaluate, run
    from infosteer_bench.errors import UserError
    from infosteer_bench.grid import Frozen, Grid, identity, load_grid, runtime
    from infosteer_bench.leaderboard.read import read_board
    from infosteer_bench.methods.base import Method

__all__ = [
    "Frozen",
    "Grid",
    "Method",
    "Outcome",
    "UserError",
    "__version__",
    "evaluate",
    "identity",
    "load_grid",
    "read_board",
    "run",
    "runtime",
]

_MODULES = {
    **dict.fromkeys(("Outcome", "evaluate", "run"), "api"),
    **dict.fromkeys(("Frozen", "Grid", "identity", "load_grid", "runtime"), "grid"),
    "Method": "methods.base",
    "UserError": "errors",
    "read_board": "leaderboard.read",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
