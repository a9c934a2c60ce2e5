"""What a board's page shows, as JSON data: what was run, its warnings, every row, ranks, costs and the mechanism.

Numbers are rounded as in the tables, a missing one has no key. Everything follows from rows and records alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.columns import PAGE
from infosteer_bench.leaderboard.numbers.row import Row, number
from infosteer_bench.leaderboard.numbers.rows import MEANS
from infosteer_bench.leaderboard.numbers.table import cells
from infosteer_bench.leaderboard.views.facts import facts_of, marks_of
from infosteer_bench.leaderboard.views.text import Code, Parts, Strong

FILES = {
    "leaderboard.csv": "every number of the table",
    "leaderboard.md": "the same board as plain text",
    "leaderboard.tex": "tables for LaTeX",
    "provenance.json": "versions, digests, settings",
}
ANSWERED = {
    "deltas.csv": "every difference to sft, with interval and p-value",
    "ranks.csv": "methods against each other",
    "records/items.parquet": "every answer of every cell",
}
MECHANISM = {"mechanism.csv": "what training did to the key coefficients"}


def payload(board: Board) -> dict[str, Any]:
    """All of the page's data but the items."""
    rows, facts = board.rows, facts_of(board)
    mechanism = _mechanism(board)
    files = FILES | (ANSWERED if board.records.cells else {}) | (MECHANISM if mechanism else {})
    return {
        "name": board.name,
        "description": str(board.grid.get("description") or ""),
        "results": _results(rows),
        "warnings": [_parts(fact.parts) for fact in facts if fact.kind != "run"],
        "facts": [[fact.label, _parts(fact.parts)] for fact in facts if fact.kind == "run"],
        "marks": [_parts(parts) for parts in marks_of(board)],
        "columns": [
            {"name": one.name, "label": one.label, "meaning": one.meaning, "warn": one.warn, "optional": one.optional}
            for one in PAGE
            if one.label
        ],
        "files": [list(one) for one in files.items()],
        "models": board.models,
        "methods": [list(one) for one in dict.fromkeys((row.method, row.arm) for row in rows)],
        "tasks": _tasks(rows),
        "rows": [_row(row) for row in rows],
        "standings": [
            {
                **{name: getattr(one, name) for name in ("model", "method", "arm", "n_tasks")},
                "rank": percent(one.average_rank),
                "win_rate": percent(100 * one.win_rate),
                "verdicts": {verdict: one.verdicts[verdict] for verdict in ("win", "tie", "loss")}
                if set(one.verdicts) - {""}
                else None,
            }
            for one in board.standings
        ],
        "costs": board.costs,
        "mechanism": mechanism,
    }


def percent(value: float | None) -> float | None:
    """Two decimals, rounded as everywhere on a board; None stays None."""
    return None if value is None else float(number(value))


def _row(row: Row) -> dict[str, Any]:
    """What leaderboard.csv and deltas.csv say of a row, under the names of columns.py, and what is no column."""
    texts = cells(PAGE, row)
    values: dict[str, Any] = {one.name: one.kind.read(texts[one.name]) for one in PAGE if texts[one.name]}
    if row.interval is not None:
        values["interval"] = [percent(end) for end in row.interval]
    if row.versus is not None:
        values["delta_interval"] = [percent(100 * end) for end in (row.versus.low, row.versus.high)]
    if row.overlap is not None:
        values["overlap"] = {name: getattr(row.overlap, name) for name in ("exact", "masked", "repeated", "items")}
    more = {
        "seeds": [[seed, percent(value)] for seed, value in row.by_seed.items()],
        "members": list(row.members),
        "notes": list(row.notes),
        "partial": not row.complete,
        "stand_ins": row.stand_ins,
    }
    return values | {name: value for name, value in more.items() if value}


def _tasks(rows: Sequence[Row]) -> list[str]:
    """Means first, then tasks."""
    present = dict.fromkeys(row.task for row in rows)
    return [mean for mean in MEANS if mean in present] + [task for task in present if not task.startswith("mean:")]


def _results(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Per method: verdicts over tasks, and the median of what could have been detected, in points (None: nothing)."""
    tested: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.verdict and not row.members:
            tested.setdefault((row.method, row.arm), []).append(row)
    return [
        {
            "method": method,
            "arm": arm,
            "models": len({row.model for row in found}),
            **{verdict: sum(row.verdict == verdict for row in found) for verdict in ("win", "tie", "loss")},
            "detectable": _median([row.versus and row.versus.detectable for row in found]),
        }
        for (method, arm), found in tested.items()
    ]


def _median(shares: Sequence[float | None]) -> float | None:
    ordered = sorted(math.inf if share is None else share for share in shares)
    middle = ordered[(len(ordered) - 1) // 2]
    return percent(100 * middle) if math.isfinite(middle) else None


def _parts(parts: Parts) -> list[str | list[str]]:
    """A piece of text, or [the element's name, its text]."""
    names = {Strong: "b", Code: "code"}
    return [[names[type(part)], str(part)] if type(part) in names else part for part in parts]


def _mechanism(board: Board) -> dict[str, Any] | None:
    """Entropy of the key coefficients beside the scores; None where no record has been measured."""
    rows = board.mechanism
    if not rows:
        return None
    return {
        "rows": [
            {
                **{name: getattr(row, name) for name in ("model", "method", "arm", "mix", "seed")},
                "values": {name: digits(value) for name, value in row.values.items()},
                "width": row.width,
                "entropy_change": digits(row.entropy_change),
                "score_change": digits(row.score_change),
            }
            for row in rows
        ],
        "correlations": [
            {
                "model": one.model,
                "mix": one.mix,
                "n": one.n,
                **{
                    name: digits(getattr(one, name))
                    for kind in ("spearman", "pearson")
                    for name in (kind, f"{kind}_low", f"{kind}_high")
                },
            }
            for one in board.correlations
        ],
    }


def digits(value: float | None) -> float | None:
    """Four significant digits; None where there is no number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
