r"""leaderboard.tex: a board for a paper, in the shape of the tables of the one that is reproduced (booktabs).

Table 1: per model, methods by the commonsense tasks and their average. Table 4: methods by GSM8K and the six
mathematics sets that nothing was trained for, with the means of six and of five. Other tasks follow in tables of their
own. A file to be read by \input, in a document that loads booktabs and array.

Bold says that a difference to sft is a win by the board's tests, never that a number is the largest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import stdev

from infosteer_bench.benchmark import COMMONSENSE, MATH, TASKS
from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.row import Row, entrants, number
from infosteer_bench.leaderboard.views.facts import NO_VERDICT, STAR, facts_of
from infosteer_bench.leaderboard.views.text import printable

MATH_COLUMNS = (*MATH, "mean:ood", "mean:ood5")
AVERAGE = "average"
NAMES = {
    **{row.name: row.title for row in TASKS.values()},
    AVERAGE: "Avg.",
    "mean:ood": "OOD (6)",
    "mean:ood5": "OOD (5)",
}
WIDEST = 9  # columns of numbers in a table
LONGEST = 42  # lines of numbers in a table, so that it fits on a page
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "-": "{-}",  # else two in a row become a dash
    "[": "{[}",  # else an optional argument, behind a line break
    "]": "{]}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
}

TableLine = tuple[str, str, str, str]  # model, method, arm, mix where it has to be named


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands, on one line; a letter outside Latin-1 by its code point, as [U+4E2D]."""
    one_line = " ".join(text.split())
    plain = (letter if ord(letter) < 256 and letter.isprintable() else _code_point(letter) for letter in one_line)
    return "".join(SPECIAL.get(text, text) for text in plain)


def _code_point(letter: str) -> str:
    return f"{{[}}U+{ord(letter):04X}{{]}}"


def to_latex(board: Board) -> str:
    """The whole file. Depends on the records only."""
    tasks = dict.fromkeys(row.task for row in board.rows)
    other = [task for task in tasks if not task.startswith("mean:") and task not in TASKS]
    tables = [
        ("commonsense", "reading, knowledge, commonsense and linguistic tasks", [t for t in COMMONSENSE if t in tasks]),
        ("math", "mathematics; all but GSM8K are out of distribution", [t for t in MATH_COLUMNS if t in tasks]),
        *(
            (f"other-{place // WIDEST + 1}", "further tasks", other[place : place + WIDEST])
            for place in range(0, len(other), WIDEST)
        ),
    ]
    lines = [
        "% Written by infosteer_bench from the records of this board; do not edit.",
        r"% In the preamble: \usepackage[T1]{fontenc} \usepackage{booktabs,array,textcomp}",
        *(f"% {printable(''.join(fact.parts))}" for fact in facts_of(board) if fact.kind != "run"),
    ]
    for name, what, columns in tables:
        lines_of = _entrants([row for row in board.rows if row.task in columns])
        for place, part in enumerate(_pages(lines_of)):
            label = f"{_slug(board.name)}-{name}" + (f"-{place + 1}" if place else "")
            averaged = name == "commonsense" and len(columns) > 1
            caption = _caption(board, part, what=what, averaged=averaged) if not place else "Continued."
            lines += ["", *_table(part, columns, label=label, caption=caption, averaged=averaged)]
    return "\n".join(lines) + "\n"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-") or "board"


def _table(
    entrants: dict[TableLine, dict[str, Row]], columns: Sequence[str], *, label: str, caption: str, averaged: bool
) -> list[str]:
    shown = [*columns, AVERAGE] if averaged else list(columns)
    lines = [
        r"\begin{table*}[t]",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{>{{\raggedright\arraybackslash}}p{{3.2cm}}{'r' * len(shown)}}}",
        r"\toprule",
        " & ".join(["Method", *(escape(NAMES.get(task, task)) for task in shown)]) + r" \\",
    ]
    model = None
    for entrant, by_task in entrants.items():
        if entrant[0] != model:
            model = entrant[0]
            lines += [r"\midrule", rf"\multicolumn{{{len(shown) + 1}}}{{l}}{{\textit{{{escape(model)}}}}} \\"]
        own = [by_task.get(task) for task in columns]
        cells = [*map(_cell, own), *([_average(own)] if averaged else [])]
        reported = _reported(own, averaged=averaged)
        if any(cells):
            lines.append(" & ".join([_name(entrant), *cells]) + r" \\")
        if any(reported):
            name = r"\quad\textit{as reported}" if any(cells) else _name(entrant)
            lines.append(" & ".join([name, *reported]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}", r"\end{table*}"]


def _pages(entrants: dict[TableLine, dict[str, Row]]) -> list[dict[TableLine, dict[str, Row]]]:
    """Whole models on each page, as many as fit; a model that alone is too long has a table of its own."""
    pages: list[dict[TableLine, dict[str, Row]]] = []
    used = 0
    for model in dict.fromkeys(model for model, *_ in entrants):
        own = {entrant: by_task for entrant, by_task in entrants.items() if entrant[0] == model}
        lines = 2 + sum(_lines(entrant, by_task) for entrant, by_task in own.items())
        if not pages or used + lines > LONGEST:
            pages, used = [*pages, {}], 0
        pages[-1] |= own
        used += lines
    return pages


def _lines(entrant: TableLine, by_task: dict[str, Row]) -> int:
    """Printed lines: the name's, which wraps, and one for what is reported."""
    both = all(any(getattr(row, name) is not None for row in by_task.values()) for name in ("accuracy", "reported"))
    return math.ceil(len(_name(entrant)) / 24) + both


def _entrants(rows: Sequence[Row]) -> dict[TableLine, dict[str, Row]]:
    """Lines of a table, model by model. No empty lines."""
    return {
        (model, *entrant): by_task
        for model in dict.fromkeys(row.model for row in rows)
        for entrant, by_task in entrants(row for row in rows if row.model == model).items()
        if any(row.accuracy is not None or row.reported is not None for row in by_task.values())
    }


def _name(entrant: TableLine) -> str:
    _, method, arm, mix = entrant
    arm = arm.replace(",", ", ")
    return escape(method + (f" ({arm})" if arm else "") + (f" on {mix}" if mix else ""))


def _cell(row: Row | None) -> str:
    if row is None or row.accuracy is None:
        return ""
    value = _short(row.accuracy)
    text = rf"\textbf{{{value}}}" if row.verdict == "win" else value
    text += rf"{{\scriptsize$\pm${_short(row.seed_std)}}}" if row.seed_std is not None else ""
    signs = (r"\downarrow" if row.verdict == "loss" else "") + ("*" if not row.complete or row.stand_ins else "")
    return text + (f"$^{{{signs}}}$" if signs else "")


def _average(cells: Sequence[Row | None]) -> str:
    """Over the tasks of the table, at the seeds that all of them have; untested, so never bold."""
    rows = [row for row in cells if row is not None and row.by_seed]
    if len(rows) < len(cells):
        return ""
    seeds = set.intersection(*(set(row.by_seed) for row in rows))
    values = [math.fsum(row.by_seed[seed] for row in rows) / len(rows) for seed in seeds]
    if not values:
        return ""
    text = _short(math.fsum(sorted(values)) / len(values))
    text += rf"{{\scriptsize$\pm${_short(stdev(sorted(values)))}}}" if len(values) > 1 else ""
    return text + ("$^{*}$" if any(not row.complete or row.stand_ins for row in rows) else "")


def _short(value: float) -> str:
    """One decimal, as the paper prints; leaderboard.csv has two."""
    return number(value, 1)


def _reported(cells: Sequence[Row | None], *, averaged: bool) -> list[str]:
    """The paper's numbers in a line of their own, with their average where every task has one."""
    values = [None if row is None else row.reported for row in cells]
    known = [value for value in values if value is not None]
    if averaged:
        values.append(math.fsum(known) / len(known) if known and len(known) == len(cells) else None)
    return ["" if value is None else rf"\textit{{{_short(value)}}}" for value in values]


def _caption(board: Board, entrants: dict[TableLine, dict[str, Row]], *, what: str, averaged: bool) -> str:
    shown = [row for by_task in entrants.values() for row in by_task.values()]
    seeds = sorted({len(row.by_seed) for row in shown if row.mix and row.by_seed})
    items = sorted({row.n_items for row in shown if row.n_items and not row.task.startswith("mean:")})
    verdicts = any(row.verdict for row in shown)
    parts = [f"{escape(board.name)}: accuracy in percent, {what}."]
    parts += [escape("".join(fact.parts)) for fact in facts_of(board) if fact.kind == "banner" and board.records.cells]
    if items:
        parts.append(
            f"{_span(items)} items per task"
            + (f", {_span(seeds)} training seed{'' if seeds == [1] else 's'}" if seeds else "")
            + "."
        )
    if any(count > 1 for count in seeds):
        parts.append(r"$\pm$: standard deviation over seeds.")
    if verdicts:
        parts.append(
            r"\textbf{Bold}: win over sft, $\downarrow$: loss, at 5\,\% after Holm's correction over the tasks and "
            "methods of a model; all others are ties" + ("; the average is not tested." if averaged else ".")
        )
    elif items:
        parts.append(NO_VERDICT)
    if any(row.accuracy is not None and (not row.complete or row.stand_ins) for row in shown):
        parts.append(f"*: {STAR}.")
    if any(row.reported is not None for row in shown):
        parts.append(r"\textit{Italics}: as the paper reports it, not measured here.")
    return " ".join(parts)


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]}--{values[-1]}"
