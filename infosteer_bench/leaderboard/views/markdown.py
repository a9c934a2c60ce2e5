"""leaderboard.md: a board for reading, with what was run above the tables and what is wrong with it below.

Methods stand side by side in the order of the grid: the larger of two numbers is no winner. What is more than luck is
marked, and the table of differences says what could have been found at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from infosteer_bench.benchmark import COMMONSENSE, GROUPS, MATH
from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.mechanism import (
    CORRELATION_NOTE,
    NOTE,
    correlation_table,
    statistics_table,
)
from infosteer_bench.leaderboard.numbers.row import Row, chance, mean, number
from infosteer_bench.leaderboard.numbers.rows import MEANS
from infosteer_bench.leaderboard.views.facts import (
    AMOUNTS,
    HOW_TO_CHECK,
    HOW_TO_REBUILD,
    MINIWORLD_NOTE,
    RECIPE,
    instruct_models,
    missing_sources,
    settings_of,
    stand_ins_of,
    training_rows,
)
from infosteer_bench.leaderboard.views.text import code, escape, signed, table

CLEAN_NOTE = (
    "`math_dedup`: the math tests, of repeated questions only the first; `clean`: all tests without those and without "
    "questions that stand in the row's own mix in the same words (base: in any mix). Intervals of means over the math "
    "tests count a repeated question as two; those of `math_dedup` and `clean` do not."
)
COMPARED = ("mean:id", "mean:ood", "mean:all")
ARROWS = {"win": " ↑", "loss": " ↓"}


def to_markdown(board: Board) -> str:
    """The whole page. Depends on the records only: no clock, no host, no path."""
    lines = [f"# {escape(board.name)}", "", *_header(board), ""]
    for model in board.models:
        lines += _model(board, [row for row in board.rows if row.model == model])
    lines += _mechanism(board)
    lines += _footnotes(board)
    return "\n".join(lines).rstrip("\n") + "\n"


def _header(board: Board) -> list[str]:
    grid, rows, records = board.grid, board.rows, board.records
    limits = {cell.limit for cell in records.cells}
    seeds = sorted({cell.seed for cell in records.cells if cell.seed is not None})
    n_items = sum(cell.n_items for cell in records.cells)
    done = sum(bool(row.by_seed) for row in rows if not row.members and not row.task.startswith("mean:"))
    waiting = sum(not row.by_seed for row in rows if not row.task.startswith("mean:"))
    title = " - ".join(escape(str(grid[name])) for name in ("name", "description") if grid.get(name))
    lines = [f"Grid {title}", ""] if title else []
    if grid.get("miniworld"):
        lines += [MINIWORLD_NOTE, ""]
    if limits != {None}:
        lines += [
            "**A small demonstration, not a measurement:** only the first "
            f"{'/'.join(str(limit) for limit in sorted(limit for limit in limits if limit))} items of each task "
            "were answered. Differences of several points between rows are noise.",
            "",
        ]
    lines += [
        f"- Models: {', '.join(map(escape, board.models))}",
        f"- Answered: {done} rows of model x method x task ({len(records.cells)} cells, {n_items} answers)"
        + (f"; {waiting} rows still without an answer" if waiting else ""),
        f"- Training seeds: {', '.join(map(str, seeds)) or 'none (nothing was trained)'}",
        f"- Answered with: {'; '.join(map(escape, settings_of(board.records)))}; greedy decoding",
    ]
    if grid.get("command"):
        lines.append(f"- Command: {code(str(grid['command']))}")
    instruct = instruct_models(board.records)
    if instruct:
        lines.append(
            f"- **Instruction-tuned, not a base model:** {', '.join(map(escape, instruct))}. "
            "The paper fine-tunes base models, so these numbers compare with none of its tables."
        )
    stand_ins = stand_ins_of(board.records)
    if stand_ins:
        lines.append(
            f"- **Stand-in data** (differs from the pinned upstream file): {', '.join(map(escape, stand_ins))}"
        )
    lines += [
        f"- **Mix {escape(mix)} lacks a source:** {', '.join(map(escape, missing))} (no training file); tasks of such "
        "a source count as out of distribution"
        for mix, missing in missing_sources(board.records).items()
    ]
    lines += [f"- Trained: {entry}" for entry in _trained(board)]
    if grid.get("train"):
        lines.append(f"- Recipe: {_recipe(grid['train'])}")
    warnings = dict.fromkeys(text for entry in training_rows(board.records) for text in entry["warnings"])
    lines += [f"- Warning: {escape(text)}" for text in warnings]
    lines += [
        "",
        "Accuracy in percent, answers taken with the `robust` filter. In brackets: difference to `sft` in percentage "
        "points, over the seeds that both have. `±`: standard deviation over seeds, where there are two or more. `*`: "
        "partial, or on stand-in data (tested, not ranked): see the remarks, and the stand-in data above. An empty "
        "cell was not measured. " + _tested(rows),
    ]
    if any(row.task in ("mean:math_dedup", "mean:clean") for row in rows):
        lines += ["", CLEAN_NOTE]
    return lines


def _tested(rows: Sequence[Row]) -> str:
    """What the arrows mean, or why there are none."""
    if not any(row.verdict for row in rows):
        return "No difference is called a win or a loss here: that takes two seeds or more, and every item's answer."
    return (
        "**↑ win, ↓ loss**: more than the luck of seeds and items at 5 percent, after Holm's correction over all tasks "
        "and methods of the model (over its means apart); everything else is a tie. `deltas.csv` has every interval "
        "and p-value, `ranks.csv` average ranks. *Detectable*: the true difference that one test alone, before that "
        "correction, finds four times in five."
    )


def _trained(board: Board) -> list[str]:
    """One line per mix, steps and rows, so that equal training reads as one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for entry in training_rows(board.records):
        amounts = [f"{'/'.join(map(str, entry[name]))} {unit}" for name, unit in AMOUNTS.items() if entry[name]]
        groups.setdefault((entry["mix"], ", ".join(amounts)), []).append(_label(entry["method"], entry["arm"]))
    return [
        f"{', '.join(dict.fromkeys(labels))} on {escape(mix)}" + (f": {amounts}" if amounts else "")
        for (mix, amounts), labels in sorted(groups.items())
    ]


def _recipe(train: dict[str, Any]) -> str:
    """The settings that say how much was trained; all of them stand in provenance.json."""
    return ", ".join(f"{name} {train[name]}" for name in RECIPE if train.get(name) is not None)


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


def _entrants(rows: Sequence[Row]) -> dict[tuple[str, str, str], dict[str, Row]]:
    """Lines of a table: (method, arm, mix shown) -> its rows by task.

    The mix is shown only where an arm's mixes answer the same task, so that one line cannot hold both.
    """
    lines: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        tasks = [other.task for other in rows if (other.method, other.arm) == (row.method, row.arm)]
        shown = row.mix if len(set(tasks)) < len(tasks) else ""
        lines.setdefault((row.method, row.arm, shown), {})[row.task] = row
    return lines


def _body(rows: Sequence[Row], columns: Sequence[str]) -> list[list[str]]:
    body: list[list[str]] = []
    for (method, arm, mix), by_task in _entrants(rows).items():
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
    for (method, arm, mix), by_task in _entrants(rows).items():
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
    for (method, arm, mix), by_task in _entrants(rows).items():
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


def _mechanism(board: Board) -> list[str]:
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


def _footnotes(board: Board) -> list[str]:
    """Remarks: one line per reason, with the rows it holds for."""
    reasons: dict[str, list[str]] = {}
    for row in board.rows:
        for note in row.notes:
            parts = (row.model, row.method + (f" ({row.arm})" if row.arm else ""), row.mix, row.task)
            place = " / ".join(part for part in parts if part)
            reasons.setdefault(note, []).append(place)
    lines = [f"- {escape(note)}: {_some(places)}" for note, places in reasons.items()]
    lines += _overlaps(board.rows)
    left_out = board.records.left_out
    if left_out.get("failed"):
        lines.append(f"- Failed cells, counted as missing: {_some(left_out['failed'])}")
    if left_out.get("unreadable"):
        lines.append(f"- Unreadable records, counted as missing: {_some(left_out['unreadable'])}")
    if left_out.get("stale"):
        lines.append(f"- {left_out['stale']} stale records (of other settings than the present plan's) are not shown")
    remarks = ["## Remarks", "", *lines, ""] if lines else []
    return [
        *remarks,
        "## Files",
        "",
        "`index.html` shows all of this for sorting, filtering and opening any number; open it from disk. "
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


def _some(places: Sequence[str], *, shown: int = 6) -> str:
    text = "; ".join(escape(place) for place in places[:shown])
    return text + (f"; and {len(places) - shown} more" if len(places) > shown else "")
