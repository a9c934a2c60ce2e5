"""A board as a value: its records with all that is computed of them, each once. Every view takes one.

board = Board.of(compact.load(board_dir), Items(board_dir / ITEMS_FILE))
text = to_markdown(board)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from infosteer_bench.leaderboard.numbers.costs import cost_rows
from infosteer_bench.leaderboard.numbers.flips import find_flips
from infosteer_bench.leaderboard.numbers.mechanism import Correlation, MechanismRow, correlations, mechanism_rows
from infosteer_bench.leaderboard.numbers.row import Row
from infosteer_bench.leaderboard.numbers.rows import build_rows
from infosteer_bench.leaderboard.numbers.standings import Standing, standings
from infosteer_bench.leaderboard.store.compact import BoardRecords
from infosteer_bench.leaderboard.store.items import Items
from infosteer_bench.leaderboard.store.layout import read_layout


@dataclass(frozen=True, eq=False)
class Board:
    """items: None where there are only scores, as for reported numbers: then there are no intervals and no flips."""

    records: BoardRecords
    rows: Sequence[Row]
    items: Items | None = None

    @classmethod
    def of(cls, records: BoardRecords, items: Items | None = None) -> Board:
        """The board of these records. Raises pyarrow's exceptions where the items cannot be read."""
        layout = read_layout(records.grid, records.cells)
        return cls(records, build_rows(records.cells, layout, items and items.scores(), records.audit), items)

    @property
    def name(self) -> str:
        """Its title."""
        return self.records.name

    @property
    def grid(self) -> dict[str, Any]:
        """What the run wrote down of itself; empty where it did not."""
        return self.records.grid or {}

    @cached_property
    def models(self) -> list[str]:
        """In the order of the board."""
        return list(dict.fromkeys(row.model for row in self.rows))

    @cached_property
    def compared(self) -> list[Row]:
        """The rows with a difference to sft."""
        return [row for row in self.rows if row.delta_vs_sft is not None]

    @cached_property
    def standings(self) -> list[Standing]:
        """Methods against each other."""
        return standings(self.rows)

    @cached_property
    def mechanism(self) -> list[MechanismRow]:
        """What training did to the key coefficients, where the records have it."""
        return mechanism_rows(self.records)

    @cached_property
    def correlations(self) -> list[Correlation]:
        """Whether that goes with the scores."""
        return correlations(self.mechanism)

    @cached_property
    def costs(self) -> list[dict[str, Any]]:
        """What a method costs beside sft."""
        return cost_rows(self.records, self.rows)

    @cached_property
    def flips(self) -> dict[int, dict[str, Any]]:
        """By place of a row: the items that it answers otherwise than sft. Raises as `of` does."""
        return find_flips(self.records, self.rows, self.items) if self.items is not None else {}
