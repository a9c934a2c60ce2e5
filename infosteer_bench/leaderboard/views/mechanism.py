"""leaderboard.md's part on the mechanism: what training did to the key coefficients, beside the scores."""

from __future__ import annotations

from collections.abc import Sequence

from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.mechanism import STATISTICS, Correlation, MechanismRow
from infosteer_bench.leaderboard.numbers.row import mean, number
from infosteer_bench.leaderboard.views.text import escape, signed, table

NOTE = (
    "Of key coefficients k, on held-out text of the mix (`mechanism.csv` has it per checkpoint, each record by layer): "
    "*entropy* of |k| / sum |k| in nats, mean over tokens and layers, and as a share of its greatest value log F; "
    "*effective memories*: exp(entropy) of F; *low keys*: share of |k| below a tenth of the token's mean; *knowledge "
    "entropy*: of |k| averaged over tokens first (Kim et al. 2024). Changes are against `sft` of the same mix and "
    "seed, the score's over all tasks of the mix, in percentage points. Means over seeds."
)
CORRELATION_NOTE = (
    "Over checkpoints other than `sft` and `base`. The 95 % intervals take checkpoints as independent, which those "
    "compared with one `sft` checkpoint are not quite, and say nothing of cause."
)


def mechanism_lines(board: Board) -> list[str]:
    """What training did to the key coefficients, beside the scores; nothing where no record has it."""
    rows = board.mechanism
    lines = ["## Mechanism beside score", "", NOTE, ""] if rows else []
    for note, (header, *body) in (
        ([], statistics_table(rows) or [[]]),
        ([CORRELATION_NOTE, ""], correlation_table(board.correlations) or [[]]),
    ):
        if header:
            lines += [*table(header, [[escape(cell) for cell in cells] for cells in body]), "", *note]
    return lines


def statistics_table(rows: Sequence[MechanismRow]) -> list[list[str]]:
    """Header and lines for reading: one line per model, mix, method and arm, means over seeds; [] without rows."""
    groups: dict[tuple[str, str, str], list[MechanismRow]] = {}
    for model, mix in dict.fromkeys((row.model, row.mix) for row in rows):
        for row in rows:
            if (row.model, row.mix) == (model, mix):
                name = row.method + (f" ({row.arm})" if row.arm else "")
                groups.setdefault((model, mix, name), []).append(row)
    header = ["model / mix / method", "checkpoints", "entropy", "of log F", "change against sft", "effective memories"]
    header += ["low keys", "knowledge entropy", "score, change against sft"]
    lines = [header]
    for place, found in groups.items():
        value = {name: mean(row.values[name] for row in found) for name in STATISTICS}
        lines.append(
            [
                *(" / ".join(place), str(len(found))),
                *(number(value["entropy_nats"], 4), number(value["entropy_share"], 4)),
                signed(mean(row.entropy_change for row in found), 4),
                number(value["effective_memories"], 1) + f" of {found[0].width}",
                *(number(value["low_share"], 4), number(value["knowledge_entropy_nats"], 4)),
                signed(mean(row.score_change for row in found)),
            ]
        )
    return lines if rows else []


def correlation_table(found: Sequence[Correlation]) -> list[list[str]]:
    """Header and lines for reading; [] where no correlation can be told."""
    lines = [
        ["entropy change and score change", "checkpoints", "Spearman", "95 % interval", "Pearson", "95 % interval"]
    ]
    for one in found:
        if one.pearson is not None and one.spearman is not None:
            name = "all models and mixes" if one.model is None else f"{one.model} / {one.mix}"
            lines.append(
                [
                    *(name, str(one.n)),
                    *(signed(one.spearman), _range(one.spearman_low, one.spearman_high)),
                    *(signed(one.pearson), _range(one.pearson_low, one.pearson_high)),
                ]
            )
    return lines if len(lines) > 1 else []


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{signed(low)} to {signed(high)}"
