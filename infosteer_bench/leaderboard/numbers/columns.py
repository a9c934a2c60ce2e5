"""leaderboard.csv: its columns and what stands in each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from infosteer_bench.leaderboard.numbers.row import Row, chance, number

COLUMNS = (
    *("model", "family", "method", "arm", "mix", "task", "split", "n_seeds", "n_items", "accuracy", "seed_std"),
    *("ci_low", "ci_high", "delta_vs_sft", "delta_ci_low", "delta_ci_high", "p_value", "p_holm", "verdict"),
    *("option_rank", "unparsed_rate", "truncated_rate", "complete", "reported"),
)


def csv_values(row: Row) -> dict[str, str]:
    """One line of leaderboard.csv by column."""
    values = dict.fromkeys(COLUMNS, "")
    values |= {name: getattr(row, name) for name in ("model", "family", "method", "arm", "mix", "task", "split")}
    values["n_seeds"] = str(len(row.by_seed) or "")
    values["n_items"] = str(row.n_items or "")
    for name in ("accuracy", "seed_std", "delta_vs_sft", "option_rank", "unparsed_rate", "truncated_rate"):
        values[name] = number(getattr(row, name))
    values |= dict(zip(("ci_low", "ci_high"), map(number, row.interval or (None, None)), strict=True))
    if row.versus is not None:
        values["delta_ci_low"], values["delta_ci_high"] = number(100 * row.versus.low), number(100 * row.versus.high)
        values["p_value"] = chance(row.versus.p_value)
    values["p_holm"], values["verdict"] = chance(row.p_holm), row.verdict
    values["complete"] = "true" if row.complete else "false"
    values["reported"] = "" if row.reported is None else f"{row.reported:g}"
    return values


def to_csv(rows: Iterable[Row]) -> str:
    """leaderboard.csv: exactly `COLUMNS`, \\n line ends, quotes only where a value needs them."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv_values(row) for row in rows)
    return out.getvalue()
