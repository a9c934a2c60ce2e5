"""Columns as data: a table of results is a tuple of `Column`, from which its CSV file and its data frame follow.

columns.py holds the columns of every table of a board.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from infosteer_bench.leaderboard.numbers.row import chance, number

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """How the values of a column are written in a CSV file and read from it, and their type in a data frame."""

    dtype: str
    write: Callable[[Any], str]
    read: Callable[[str], Any] = float


TEXT = Kind("str", str, str)
COUNT = Kind("Int64", str, int)
NUMBER = Kind("float64", number)
CHANCE = Kind("float64", chance)
FLAG = Kind("bool", lambda value: "true" if value else "false", lambda text: text == "true")
SHORTEST = Kind("float64", lambda value: f"{value:g}")
DIGITS_3 = Kind("float64", lambda value: f"{value:.3g}")
DIGITS_6 = Kind("float64", lambda value: f"{value:.6g}")
DECIMALS_6 = Kind("float64", lambda value: number(value, 6))


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column. value: of an entry of the table; None: its attribute `name`."""

    name: str
    meaning: str
    value: Callable[[T], Any] | None = None
    kind: Kind = NUMBER

    def of(self, entry: T) -> Any:
        """What stands in this column for an entry; None, which is written as nothing, where there is no such value."""
        return getattr(entry, self.name) if self.value is None else self.value(entry)


def cells(columns: Iterable[Column[T]], entry: T) -> dict[str, str]:
    """One line of a CSV file by column."""
    values = ((column, column.of(entry)) for column in columns)
    return {column.name: "" if value is None else column.kind.write(value) for column, value in values}


def to_csv(columns: Sequence[Column[T]], entries: Iterable[T]) -> str:
    """Exactly these columns, \\n line ends, quotes only where a value needs them."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [column.name for column in columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells(columns, entry) for entry in entries)
    return out.getvalue()
