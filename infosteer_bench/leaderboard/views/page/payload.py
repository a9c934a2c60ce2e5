"""What a board's page shows, as JSON data: what was run, its warnings, every row, ranks, costs and the mechanism.

Numbers are rounded as in the tables, a missing one has no key. Everything follows from rows and records alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.row import Row, chance, number
from infosteer_bench.leaderboard.numbers.rows import MEANS
from infosteer_bench.leaderboard.views.facts import (
    AMOUNTS,
    MINIWORLD_NOTE,
    RECIPE,
    instruct_models,
    missing_sources,
    settings_of,
    stand_ins_of,
    training_rows,
)

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
SHOWN = 4  # names of a long list in a warning; provenance.json has all


def payload(board: Board) -> dict[str, Any]:
    """All of the page's data but the items."""
    grid, rows = board.grid, board.rows
    mechanism = _mechanism(board)
    files = FILES | (ANSWERED if board.records.cells else {}) | (MECHANISM if mechanism else {})
    return {
        "name": board.name,
        "description": str(grid.get("description") or ""),
        "results": _results(rows),
        "warnings": _warnings(board),
        "facts": _facts(board),
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
    values: dict[str, Any] = {name: getattr(row, name) for name in ("model", "method", "arm", "mix", "task", "split")}
    values |= {
        "n_items": row.n_items,
        "seeds": [[seed, percent(value)] for seed, value in row.by_seed.items()],
        "accuracy": percent(row.accuracy),
        "std": percent(row.seed_std),
        "interval": _span(row.interval),
        "delta": percent(row.delta_vs_sft),
        "option_rank": percent(row.option_rank),
        "unparsed": percent(row.unparsed_rate),
        "truncated": percent(row.truncated_rate),
        "reported": row.reported,
        "p_holm": _chance(row.p_holm),
        "verdict": row.verdict,
        "members": list(row.members),
        "notes": list(row.notes),
    }
    if row.overlap is not None:
        values["overlap"] = {name: getattr(row.overlap, name) for name in ("exact", "masked", "repeated", "items")}
    if row.versus is not None:
        found = row.versus
        values |= {
            "delta_interval": _span((100 * found.low, 100 * found.high)),
            "p_value": _chance(found.p_value),
            "detectable": None if found.detectable is None else percent(100 * found.detectable),
            "seeds_to_halve": found.seeds_to_halve,
            "paired_seeds": found.seeds,
        }
    flags = {"partial": not row.complete, "stand_ins": row.stand_ins}
    kept = {name: value for name, value in values.items() if value not in (None, "", [])}
    return {**kept, **{name: True for name, value in flags.items() if value}}


def _span(span: tuple[float, float] | None) -> list[float | None] | None:
    return None if span is None else [percent(span[0]), percent(span[1])]


def _chance(p_value: float | None) -> float | None:
    return None if p_value is None else float(chance(p_value))


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


def _warnings(board: Board) -> list[str]:
    """What a reader must know before any number, most important first."""
    found: list[str] = []
    rows, records = board.rows, board.records
    if not any(row.by_seed for row in rows):
        found.append(
            "Nothing on this page was measured here: the numbers are the paper's, as it reports them, without items, "
            "intervals or tests. leaderboard.md lists its known faults."
        )
    if board.grid.get("miniworld"):
        found.append(MINIWORLD_NOTE.replace("**", ""))
    limits = sorted({cell.limit for cell in records.cells if cell.limit is not None})
    if limits:
        found.append(
            f"A small demonstration, not a measurement: only the first {'/'.join(map(str, limits))} items of each task "
            "were answered. Differences of several points between rows are noise."
        )
    if any(row.versus is not None and row.versus.seeds < 2 and None not in row.by_seed for row in rows):
        found.append(
            "One seed: intervals are over items only and say nothing about another seed, so nothing is called a win or "
            "a loss."
        )
    instruct = instruct_models(board.records)
    if instruct:
        found.append(
            f"Instruction-tuned, not a base model: {', '.join(instruct)}. The paper fine-tunes base models, so these "
            "numbers compare with none of its tables."
        )
    stand_ins = stand_ins_of(board.records)
    if stand_ins:
        found.append(f"Stand-in data, which differ from the pinned upstream files: {_some(stand_ins)}.")
    found += [
        f"Mix {mix} lacks a source: {', '.join(missing)} (no training file); tasks of such a source count as out of "
        "distribution."
        for mix, missing in missing_sources(board.records).items()
    ]
    found += list(dict.fromkeys(f"{text}." for entry in training_rows(board.records) for text in entry["warnings"]))
    left_out = records.left_out
    for name, what in (("failed", "Failed cells"), ("unreadable", "Unreadable records")):
        if left_out.get(name):
            found.append(f"{what}, counted as missing: {_some(left_out[name])}.")
    if left_out.get("stale"):
        found.append(f"{left_out['stale']} stale records, of other settings than the present plan's, are not shown.")
    return found


def _some(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more


def _facts(board: Board) -> list[list[str]]:
    """[label, text] of what was run."""
    grid, records = board.grid, board.records
    seeds = sorted({cell.seed for cell in records.cells if cell.seed is not None})
    facts = [("Models", ", ".join(board.models))]
    if records.cells:
        items = sum(cell.n_items for cell in records.cells)
        facts += [
            ("Answered", f"{len(records.cells):,} cells, {items:,} answers"),
            ("Training seeds", ", ".join(map(str, seeds)) or "none (nothing was trained)"),
            ("Answered with", f"{'; '.join(settings_of(board.records))}; greedy decoding"),
        ]
    facts += [("Trained", text) for text in _trained(board)]
    train = grid.get("train") or {}
    recipe = ", ".join(f"{name} {train[name]}" for name in RECIPE if train.get(name) is not None)
    devices = dict.fromkeys(
        str(one.provenance["device"]) for one in records.checkpoints if one.provenance.get("device")
    )
    facts += [("Recipe", recipe), ("Machine", "; ".join(sorted(devices))), ("Command", str(grid.get("command") or ""))]
    return [[label, text] for label, text in facts if text]


def _trained(board: Board) -> Iterable[str]:
    by_mix: dict[str, dict[str, None]] = {}
    for entry in training_rows(board.records):
        amounts = [f"{'/'.join(map(str, entry[name]))} {unit}" for name, unit in AMOUNTS.items() if entry[name]]
        by_mix.setdefault(entry["mix"], {})[", ".join(amounts)] = None
    return (f"on {mix}: {'; or '.join(amount for amount in amounts if amount)}" for mix, amounts in by_mix.items())


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
