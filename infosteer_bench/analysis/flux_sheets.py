"""The tables of `flux_tables` for people: the same rows go into the page, the Markdown file and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infosteer_bench.analysis.flux_tables import BASELINE, CONTROLS, LEAST, LOOP, ClassTable, DifferenceRow, Estimate
from infosteer_bench.analysis.regression import LAGS

NOTE = (
    "Word classes: a token has the class of its word; copied is a content word or number that the model wrote and the "
    "prompt holds; control tokens and the first and last token of a text are not counted. Surprisal is -log p of the "
    "token by the model itself; more controls are its rank, the next token's surprisal and rank, the logarithm of the "
    f"position, whether the token ends a run of {LOOP} that the text held before, and the text. Intervals are 95 %, "
    f"Newey-West with {LAGS} tokens within a text, because the tokens of one text are not independent. They speak of "
    "text like this by the same model; a handful of prompts says little about prompts in general. Greedily written "
    "tokens are the model's own first choice, so their surprisal is low by construction."
)


@dataclass(frozen=True)
class Sheet:
    """A table of texts."""

    title: str
    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]


def sheets(table: ClassTable) -> list[Sheet]:
    """A class table as two sheets: word classes, and what surprisal explains."""
    what = "all tokens" if table.scope == "all" else "written tokens only"
    heading = f"{table.model}: {what} ({table.n} tokens of {table.n_texts} texts)"
    header = ("word class", "tokens", "entropy, nats", "share of log F", "surprisal, nats")
    classes = tuple(
        (
            row.word_class,
            str(row.n),
            plain(row.mean, 3),
            plain(row.share, 3),
            plain(row.surprisal, 2),
            *(
                "(reference)" if row.word_class == BASELINE and row.n >= LEAST else interval(row.effects[control])
                for control in CONTROLS
            ),
        )
        for row in table.rows
    )
    links = [
        *((f"correlation of entropy with {name}", interval(found)) for name, found in table.correlations.items()),
        *((f"variance of entropy explained by {name}", plain(share, 3)) for name, share in table.r_squared.items()),
        ("nats of entropy per nat of surprisal, beside the classes", interval(table.control)),
        (f"share of tokens that end a run of {LOOP} which the text held before", plain(table.repeated, 3)),
    ]
    return [
        Sheet(heading, (*header, *(f"nats above content, {name}" for name in CONTROLS)), classes),
        Sheet(f"{table.model}: entropy and surprisal, {what}", ("quantity", "value [95 %]"), tuple(links)),
    ]


def difference_sheet(first: str, rows: Sequence[DifferenceRow]) -> Sheet:
    """Differences between models as a sheet."""
    body = tuple((row.model, row.word_class, str(row.n), interval(row.difference)) for row in rows)
    return Sheet(f"entropy minus that of {first}, same tokens", ("model", "word class", "tokens", "nats [95 %]"), body)


def plain(value: float | None, digits: int) -> str:
    """A number, rounded twice so that a machine's last bit decides nothing; empty for a missing one."""
    return "" if value is None else f"{round(value, 9):.{digits}f}"


def interval(found: Estimate | None) -> str:
    """value [low, high]; empty for a missing one."""
    return "" if found is None else f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
