"""Methods against each other: average ranks and win rates.

Ranks are over the tasks that every method of a model has answered in full, on upstream's data. They order methods
whether or not the differences are more than luck; the counts of wins and losses beside them say how many are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from infosteer_bench.leaderboard.numbers.row import Row
from infosteer_bench.leaderboard.numbers.statistics import ranks

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
