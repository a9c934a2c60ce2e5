"""leaderboard.md: a board for reading, with what was run above the tables and what is wrong with it below.

Methods stand side by side in the order of the grid: the larger of two numbers is no winner. What is more than luck is
marked, and the table of differences says what could have been found at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from infosteer_bench.benchmark import COMMONSENSE, GROUPS, MATH
from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.row import Row, chance, entrants, mean, number
from infosteer_bench.leaderboard.numbers.rows import MEANS
from infosteer_bench.leaderboard.views.facts import (
    HOW_TO_CHECK,
    HOW_TO_REBUILD,
    facts_of,
    instruct_models,
    marks_of,
    some,
)
from infosteer_bench.leaderboard.views.mechanism import mechanism_lines
from infosteer_bench.leaderboard.views.text import escape, markdown, signed, table

COMPARED = ("mean:id", "mean:ood", "mean:all")
ARROWS = {"win": " ▲", "loss": " ▼"}


def to_markdown(board: Board) -> str:
    """The whole page. Depends on the records only: no clock, no host, no path."""
    lines = [f"# {escape(board.name)}", "", *_header(board), ""]
    for model in board.models:
        lines += _model(board, [row for row in board.rows if row.model == model])
    lines += mechanism_lines(board)
    lines += _footnotes(board)
    return "\n".join(lines).rstrip("\n") + "\n"


def _header(board: Board) -> list[str]:
    facts = facts_of(board)
    title = " - ".join(escape(str(board.grid[name])) for name in ("name", "description") if board.grid.get(name))
    lines = [f"Grid {title}", ""] if title else []
    for fact in facts:
        if fact.kind == "banner":
            lines += [markdown(fact.parts), ""]
    for fact in facts:
        if fact.kind != "banner":
            lines.append("- " + (f"{fact.label}: " if fact.label else "") + markdown(fact.parts))
    return [*lines, "", " ".join(map(markdown, marks_of(board)))]


def _label(method: str, arm: str) -> str:
    return escape(method) + (f" ({escape(arm)})" if arm else "")


def _model(board: Board, rows: Sequence[Row]) -> list[str]:
    """The tables of one model: means, tasks, and how the answers were formed."""
    present = {row.task for row in rows}
    own = [task for task in dict.fromkeys(row.task for row in rows) if not task.startswith("mean:")]
    other = [task for task in own if task not in GROUPS["all"]]
    lines = [f"## {escape(rows[0].model)}", ""]
    if rows[0].model in instruct_models(board.records):
        lines += ["Instruction-tuned model.", ""]
    for title, tasks in (
        ("Means", MEANS),
        ("Reading, knowledge, commonsense, linguistic", COMMONSENSE),
        ("Math", MATH),
        ("Other tasks", other),
    ):
        columns = [task for task in tasks if task in present]
        if columns:
            header = [title, *(escape(task.removeprefix("mean:")) for task in columns)]
            lines += [*table(header, _body(rows, columns)), ""]
    return [*lines, *_differences(rows), *_answers(rows), ""]


def _body(rows: Sequence[Row], columns: Sequence[str]) -> list[list[str]]:
    body: list[list[str]] = []
    for (method, arm, mix), by_task in entrants(rows).items():
        cells = [_cell(by_task.get(task)) for task in columns]
        if any(cells):
            body.append([_label(method, arm) + (f" on {escape(mix)}" if mix else ""), *cells])
    return body


def _cell(row: Row | None) -> str:
    if row is None or row.accuracy is None:
        return ""
    text = number(row.accuracy)
    if row.seed_std is not None:
        text += f" ± {number(row.seed_std)}"
    if row.delta_vs_sft is not None:
        text += f" ({signed(row.delta_vs_sft)}{ARROWS.get(row.verdict, '')})"
    return text + " \\*" if not row.complete or row.stand_ins else text


def _differences(rows: Sequence[Row]) -> list[str]:
    """Each method against sft: means with intervals, what could have been found, and the count of verdicts."""
    body: list[list[str]] = []
    for (method, arm, mix), by_task in entrants(rows).items():
        counts = Counter(row.verdict for row in by_task.values() if row.verdict and not row.members)
        found = [row for task in COMPARED if (row := by_task.get(task)) and row.versus and None not in row.by_seed]
        for place, row in enumerate(found):
            versus = row.versus
            assert versus is not None
            body.append(
                [
                    "" if place else _label(method, arm) + (f" on {escape(mix)}" if mix else ""),
                    row.task.removeprefix("mean:"),
                    signed(row.delta_vs_sft),
                    f"{number(100 * versus.low)} to {number(100 * versus.high)}",
                    chance(row.p_holm),
                    row.verdict,
                    "nothing" if versus.detectable is None else number(100 * versus.detectable),
                    _seeds(row),
                    "" if place else " / ".join(str(counts[verdict]) for verdict in ("win", "tie", "loss")),
                ]
            )
    header = ["Against sft, percentage points", "mean", "difference", "95 % interval", "p (Holm)", "verdict"]
    header += ["detectable", "seeds to halve that", "tasks won / tied / lost"]
    return [*table(header, body), ""] if body else []


def _seeds(row: Row) -> str:
    if row.versus is None or row.versus.seeds < 2:
        return ""
    return str(row.versus.seeds_to_halve or "items limit it")


def _answers(rows: Sequence[Row]) -> list[str]:
    """How answers were formed: the share no filter could read, and what ranking the options' likelihood gives."""
    body: list[list[str]] = []
    for (method, arm, mix), by_task in entrants(rows).items():
        listed = [row for task, row in by_task.items() if not task.startswith("mean:") and row.by_seed]
        ranked = [row for row in listed if row.option_rank is not None]
        if listed:
            body.append(
                [
                    _label(method, arm) + (f" on {escape(mix)}" if mix else ""),
                    str(len(listed)),
                    number(mean(row.unparsed_rate for row in listed)),
                    number(mean(row.truncated_rate for row in listed)),
                    str(len(ranked)) if ranked else "",
                    number(mean(row.accuracy for row in ranked)),
                    number(mean(row.option_rank for row in ranked)),
                ]
            )
    header = ["How the answers came about, percent", "tasks", "unparsed", "cut at the token limit"]
    return table([*header, "tasks with options", "generated", "ranked by likelihood"], body) if body else []


def _footnotes(board: Board) -> list[str]:
    """Remarks: one line per reason, with the rows it holds for."""
    reasons: dict[str, list[str]] = {}
    for row in board.rows:
        for note in row.notes:
            parts = (row.model, row.method + (f" ({row.arm})" if row.arm else ""), row.mix, row.task)
            place = " / ".join(part for part in parts if part)
            reasons.setdefault(note, []).append(place)
    lines = [f"- {escape(note)}: {escape(some(places))}" for note, places in reasons.items()]
    lines += _overlaps(board.rows)
    remarks = ["## Remarks", "", *lines, ""] if lines else []
    return [
        *remarks,
        "## Files",
        "",
        "`index.html` shows all of this for sorting, filtering and opening any number; open it from disk (the first "
        "command below writes it where it is not there). "
        "`leaderboard.csv` holds every number here and more; `deltas.csv` every difference to sft; `ranks.csv` methods "
        "against each other; `leaderboard.tex` the tables for LaTeX; `figures/` charts; `provenance.json` versions, "
        "digests and settings; `records/` every answer. Rebuild or check all of it from the records:",
        "",
        f"    {HOW_TO_REBUILD.format(folder='THIS_FOLDER')}",
        f"    {HOW_TO_CHECK.format(folder='THIS_FOLDER')}",
    ]


def _overlaps(rows: Sequence[Row]) -> list[str]:
    """What was asked although it stands in a mix, or twice: a line per mix and one for the tests, with their tasks."""
    in_mix: dict[str, dict[str, str]] = {}
    repeated: dict[str, str] = {}
    for row in rows:
        found = row.overlap
        if found is not None and found.masked and row.mix:
            counts = f"{row.task} {found.exact} ({found.masked}) of {found.items}"
            in_mix.setdefault(row.mix, {})[row.task] = counts
        if found is not None and found.repeated:
            repeated[row.task] = f"{row.task} {found.repeated} of {found.items}"
    lines = [
        f"- Questions that stand in mix {escape(mix)} in the same words (the same but for numbers): "
        + escape(", ".join(tasks.values()))
        for mix, tasks in in_mix.items()
    ]
    if repeated:
        lines.append(
            f"- Questions that repeat one of an earlier test, or of their own: {escape(', '.join(repeated.values()))}"
        )
    return lines
