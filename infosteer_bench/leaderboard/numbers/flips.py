"""Which items a method answers otherwise than sft does, with both answers: what stands behind a difference.

Items are compared as arrays; only those that flipped, and of very many an even sample, become Python objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infosteer_bench.leaderboard.numbers.row import Row, filter_of
from infosteer_bench.leaderboard.store.compact import BoardRecords
from infosteer_bench.leaderboard.store.items import Items, Places

CHARACTERS = 2_000  # of a generation
FLIPS = 60_000  # of a page
SAMPLES = (500, 200, 100, 50, 20, 10)  # of one direction, seed and row, where FLIPS would be passed


@dataclass(frozen=True, eq=False)
class _Pair:
    """One seed of a row against sft. won, lost: places of items among the cell's items, by place in the test file."""

    seed: int | None
    cells: tuple[str, str]  # the method's, sft's
    won: Places
    lost: Places
    n_items: int


def find_flips(board: BoardRecords, rows: Sequence[Row], items: Items) -> dict[int, dict[str, Any]]:
    """By the row's place in `rows`: its flipped items as JSON data, for every task row that is compared with sft.

    seeds: [{seed, won, lost, n_items}]; texts: distinct strings, a cut one as [its beginning, characters in all];
    flips: [seed's place, doc_id, 1 won or 0 lost, target, then of the method and of sft: extracted answer, generation,
    1 where it was cut at the token limit], texts by their place, null where no answer was found. sample: how many of
    a direction and seed are kept at most, absent where all are.
    """
    pairs = {place: of_row for place, row in enumerate(rows) if (of_row := _pairs(row, rows))}
    sample = _sample([len(some) for of_row in pairs.values() for pair in of_row for some in (pair.won, pair.lost)])
    kept = [(place, number, pair) for place, of_row in pairs.items() for number, pair in enumerate(of_row)]
    wanted = [_kept(pair, sample) for _, _, pair in kept]
    filters = {cell.key: filter_of(cell.exact_match) or "" for cell in board.cells}
    answers = _Answers.read(items, [pair.cells for _, _, pair in kept], [places for places, _ in wanted])
    found: dict[int, dict[str, Any]] = {}
    for place, of_row in pairs.items():
        found[place] = {
            "seeds": [
                {"seed": pair.seed, "won": len(pair.won), "lost": len(pair.lost), "n_items": pair.n_items}
                for pair in of_row
            ],
            "texts": [],
            "flips": [],
        }
        if sample is not None and any(len(some) > sample for pair in of_row for some in (pair.won, pair.lost)):
            found[place]["sample"] = sample
    tables: dict[int, dict[str, int]] = {}
    for (place, number, pair), (places, won) in zip(kept, wanted, strict=True):
        texts = _Texts(found[place]["texts"], tables.setdefault(place, {}))
        for right, both in zip(won, answers.take(len(places)), strict=True):
            doc, target, *sides = both
            line: list[Any] = [number, doc, right, texts.place(target)]
            for key, (extracted, generation, finish) in zip(pair.cells, sides, strict=True):
                answer = extracted.get(filters[key])
                line += [
                    None if answer is None else texts.place(str(answer)),
                    texts.place(generation),
                    int(finish == "length"),
                ]
            found[place]["flips"].append(line)
    return found


def _pairs(row: Row, rows: Sequence[Row]) -> list[_Pair]:
    if row.versus is None or row.members:
        return []
    reference = next(
        other
        for other in rows
        if (other.model, other.method, other.arm, other.task) == (row.model, "sft", "", row.task)
        and row.mix in ("", other.mix)
        and other.by_seed
    )
    found: list[_Pair] = []
    for seed in reference.scores:
        own = None if None in row.scores else seed
        if own in row.scores:
            difference = row.scores[own] - reference.scores[seed]
            found.append(
                _Pair(
                    seed=seed,
                    cells=(row.cells[own], reference.cells[seed]),
                    won=np.flatnonzero(difference > 0),
                    lost=np.flatnonzero(difference < 0),
                    n_items=len(difference),
                )
            )
    return found


def _sample(counts: Sequence[int]) -> int | None:
    """How many flips of a direction, seed and row are shown, so that a page holds FLIPS or fewer; None: all."""
    if sum(counts) <= FLIPS:
        return None
    totals = ((most, sum(min(count, most) for count in counts)) for most in SAMPLES)
    return next((most for most, total in totals if total <= FLIPS), SAMPLES[-1])


def _kept(pair: _Pair, sample: int | None) -> tuple[Places, list[int]]:
    """Places of the items shown, in order, and for each whether it was won; an even sample of each direction."""
    some = [
        every if sample is None or len(every) <= sample else every[np.arange(sample) * len(every) // sample]
        for every in (pair.won, pair.lost)
    ]
    places = np.concatenate(some)
    won = np.repeat([1, 0], [len(one) for one in some])
    order = np.argsort(places)
    return places[order], won[order].tolist()


@dataclass(eq=False)
class _Texts:
    """The distinct texts of a row, numbered as they come."""

    texts: list[Any]
    known: dict[str, int]

    def place(self, text: str) -> int:
        found = self.known.get(text)
        if found is None:
            found = self.known[text] = len(self.texts)
            self.texts.append(text if len(text) <= CHARACTERS else [text[:CHARACTERS], len(text)])
        return found


@dataclass(frozen=True, eq=False)
class _Answers:
    """Answers of pairs of cells, read once and handed out in the order asked for."""

    lines: Iterator[tuple[Any, ...]]

    @classmethod
    def read(cls, items: Items, cells: Sequence[tuple[str, str]], places: Sequence[Places]) -> _Answers:
        """cells: (the method's, sft's); places: of the items wanted of both."""

        def lines(side: int) -> Places:
            wanted = [items.lines_of(pair[side])[some] for pair, some in zip(cells, places, strict=True)]
            return np.concatenate(wanted) if wanted else np.zeros(0, dtype=np.int64)

        ours = lines(0)
        sides = list(_sides(items, np.concatenate([ours, lines(1)])))
        targets = items.column("target").take(ours).to_pylist()
        return cls(zip(items.docs[ours].tolist(), targets, sides[: len(ours)], sides[len(ours) :], strict=True))

    def take(self, count: int) -> Iterator[tuple[Any, ...]]:
        """(doc_id, target, the method's (extracted, generation, finish_reason), sft's) of the next `count` items."""
        return (next(self.lines) for _ in range(count))


def _sides(items: Items, lines: Places) -> Iterator[tuple[dict[str, Any], str, str]]:
    columns: list[list[Any]] = []
    for name in ("extracted", "generation", "finish_reason"):  # one at a time: all generations fill much memory
        columns.append(items.column(name).take(lines).to_pylist())
    parsed: dict[str, dict[str, Any]] = {text: json.loads(text) for text in set(columns[0])}
    return zip((parsed[text] for text in columns[0]), columns[1], columns[2], strict=True)
