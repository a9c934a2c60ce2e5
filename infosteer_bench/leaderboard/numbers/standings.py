"""deltas.csv, every difference to sft with what is known about it; ranks.csv, methods against each other.

p_value belongs to the interval; p_holm is made of p_generalized. detectable: what a test alone finds (p_value below
0.05) four times in five. detectable_holm: what wins four times in five whatever the other tests of the model give.

Ranks are over the tasks that every method of a model has answered in full, on upstream's data. They order methods
whether or not the differences are more than luck; the counts of wins and losses beside them say how many are.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from infosteer_bench.leaderboard.numbers.row import Row, chance, number
from infosteer_bench.leaderboard.numbers.statistics import ranks

DELTA_COLUMNS = (
    *("model", "family", "method", "arm", "mix", "task", "split", "n_seeds", "n_items", "delta", "ci_low", "ci_high"),
    *(
        "p_value",
        "p_generalized",
        "p_holm",
        "verdict",
        "detectable",
        "detectable_holm",
        "seeds_to_halve",
        "degrees_of_freedom",
    ),
    *("complete", "notes"),
)
RANK_COLUMNS = ("model", "method", "arm", "n_tasks", "average_rank", "win_rate", "wins", "ties", "losses")
ALL_MODELS = "all models"

Entrant = tuple[str, str]  # method, arm


@dataclass(frozen=True)
class Standing:
    """A method among the methods of a model, or of all models.

    average_rank: 1 is best, equal accuracies share a rank. win_rate: share of the duels with the other methods, task
    by task, that it has won, a draw counting half. verdicts: of the difference to sft, task by task.
    """

    model: str
    method: str
    arm: str
    n_tasks: int
    average_rank: float
    win_rate: float
    verdicts: Counter[str]


def standings(rows: Iterable[Row]) -> list[Standing]:
    """Of every model with two methods or more, and of all models together where there are several."""
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        if not row.task.startswith("mean:"):
            by_model.setdefault(row.model, []).append(row)
    boards = {model: _comparable(of_model) for model, of_model in by_model.items()}
    found = [one for model, board in boards.items() for one in _standings(model, board)]
    if len(boards) > 1 and len({frozenset(board[0]) if board else frozenset() for board in boards.values()}) == 1:
        found += _standings(ALL_MODELS, [one for board in boards.values() for one in board])
    return found


def _comparable(rows: Sequence[Row]) -> list[dict[Entrant, Row]]:
    """By task (and mix): the row of each method, where all have one that may be ranked."""
    methods = dict.fromkeys((row.method, row.arm) for row in rows)
    everywhere = {(row.task, (row.method, row.arm)): row for row in rows if not row.mix}
    board: dict[tuple[str, str], dict[Entrant, Row]] = {}
    for row in rows:
        if row.mix:
            board.setdefault((row.mix, row.task), {})[row.method, row.arm] = row
    found: list[dict[Entrant, Row]] = []
    for (_, task), trained in board.items():
        at_task = {method: trained.get(method) or everywhere.get((task, method)) for method in methods}
        present = {method: row for method, row in at_task.items() if row is not None and row.complete}
        same = len({row.settings for row in present.values()}) == 1
        if len(present) == len(methods) > 1 and same and not any(row.stand_ins for row in present.values()):
            found.append(present)
    return found


def _standings(model: str, board: Sequence[dict[Entrant, Row]]) -> list[Standing]:
    if not board:
        return []
    entrants = list(board[0])
    places = [ranks([-round(row.accuracy or 0.0, 9) for row in one.values()]) for one in board]
    return [
        Standing(
            model=model,
            method=method,
            arm=arm,
            n_tasks=len(board),
            average_rank=(average := math.fsum(of_task[place] for of_task in places) / len(board)),
            win_rate=(len(entrants) - average) / (len(entrants) - 1),  # a rank is one plus the duels lost
            verdicts=Counter(one[method, arm].verdict for one in board),
        )
        for place, (method, arm) in enumerate(entrants)
    ]


def ranks_csv(rows: Iterable[Row]) -> str:
    """ranks.csv: exactly RANK_COLUMNS; the counts are empty for a method that has no verdict."""
    return _csv(
        RANK_COLUMNS,
        (
            {
                **{name: getattr(one, name) for name in ("model", "method", "arm", "n_tasks")},
                "average_rank": number(one.average_rank),
                "win_rate": number(100 * one.win_rate),
                **{
                    column: one.verdicts[verdict] if set(one.verdicts) - {""} else ""
                    for column, verdict in (("wins", "win"), ("ties", "tie"), ("losses", "loss"))
                },
            }
            for one in standings(rows)
        ),
    )


def deltas_csv(rows: Iterable[Row]) -> str:
    """deltas.csv: exactly DELTA_COLUMNS; differences in percentage points, one line per row compared with sft."""
    return _csv(DELTA_COLUMNS, (_delta(row) for row in rows if row.delta_vs_sft is not None))


def _delta(row: Row) -> dict[str, object]:
    values: dict[str, object] = dict.fromkeys(DELTA_COLUMNS, "")
    notes = [*row.notes, *(["stand-in data"] if row.stand_ins else [])]
    values |= {name: getattr(row, name) for name in ("model", "family", "method", "arm", "mix", "task", "split")}
    values |= {"delta": number(row.delta_vs_sft), "n_items": row.n_items, "notes": "; ".join(notes)}
    values |= {"p_holm": chance(row.p_holm), "verdict": row.verdict, "complete": "true" if row.complete else "false"}
    found = row.versus
    if found is not None:
        values |= {
            "n_seeds": found.seeds,
            "ci_low": number(100 * found.low),
            "ci_high": number(100 * found.high),
            "p_value": chance(found.p_value),
            "p_generalized": chance(found.p_generalized),
            "detectable": _points(found.detectable),
            "detectable_holm": _points(found.detectable_among(row.n_tests)) if row.n_tests else "",
            "seeds_to_halve": found.seeds_to_halve or "",
            "degrees_of_freedom": f"{found.degrees_of_freedom:.3g}",
        }
    return values


def _points(share: float | None) -> str:
    return number(None if share is None else 100 * share)


def _csv(columns: Sequence[str], lines: Iterable[dict[str, object]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
