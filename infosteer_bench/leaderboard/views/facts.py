"""What a reader must know of a board beside its numbers, composed once; every view renders the same facts.

    for fact in facts_of(board):          # banners, then warnings, then what was run
        lines.append(markdown(fact.parts))

`marks_of` says what the marks at numbers mean. A fact is data: pieces of text, some of them strong or code (text.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.row import describe_setting
from infosteer_bench.leaderboard.store.compact import BoardRecords
from infosteer_bench.leaderboard.views.text import Code, Parts, Strong

INSTRUCT = re.compile(r"(^|[^a-z])(instruct|chat|it|sft|dpo)([^a-z]|$)", re.IGNORECASE)
HOW_TO_REBUILD = "python -m infosteer_bench leaderboard --output {folder}"
HOW_TO_CHECK = "python -m infosteer_bench leaderboard --output {folder} --check"
AMOUNTS = {"steps": "optimizer steps", "rows": "training rows"}
RECIPE = ("epochs", "max_steps", "max_examples", "learning_rate", "warmup_steps", "batch_size", "gradient_accumulation")
RECIPE += ("max_length", "precision", "export_dtype")
SHOWN = 6  # of a long list of names; provenance.json has all
MINIWORLD: Parts = (
    Strong("The embedded mini-world:"),
    " invented creatures, small numbers, models of one and a half million parameters. A test bed of the question "
    "whether fine-tuning uses what pretraining stored; no evidence about InfoSteer on real models.",
)
UNMEASURED: Parts = (
    Strong("Nothing on this page was measured here:"),
    " the numbers are the paper's, as it reports them, without items, intervals or tests. leaderboard.md lists its "
    "known faults.",
)
ONE_SEED: Parts = (
    Strong("One seed:"),
    " intervals are over items only and say nothing about another seed, so nothing is called a win or a loss.",
)
STAR = (
    "partial, or on stand-in data (tested, not ranked). Partial: a seed, a task or items are missing, or settings are "
    "mixed; not ranked either"
)
NO_VERDICT = "No difference is called a win or a loss here: that takes two seeds or more, and every item's answer."
CORRECTED = (
    "more than the luck of seeds and items at 5 %, after Holm's correction over all tasks and methods of a model (over "
    "its means apart); everything else that was tested is a tie"
)


@dataclass(frozen=True)
class Fact:
    """banner: what the whole board is; warning: what is wrong with a part of it; run: what was run, under a label."""

    kind: Literal["banner", "warning", "run"]
    parts: Parts
    label: str = ""


def facts_of(board: Board) -> list[Fact]:
    """All facts, most important first."""
    return [
        *(Fact("banner", parts) for parts in _banners(board)),
        *(Fact("warning", parts) for parts in _warnings(board)),
        *(Fact("run", parts, label) for label, parts in _run(board) if any(parts)),
    ]


def marks_of(board: Board) -> list[Parts]:
    """What the marks at numbers mean, and an empty field."""
    tested = any(row.verdict for row in board.rows)
    marks: list[Parts] = [
        (
            "Accuracy in percent, answers taken with the filter ",
            Code("robust"),
            ". What was not measured is empty, never zero.",
        ),
        (
            "Differences (in tables of text: in brackets) are to plain fine-tuning (",
            Code("sft"),
            "), in percentage points, over the same items and the seeds that "
            "both have; their 95 % intervals are over seeds and items.",
        ),
        (Code("±"), ": standard deviation over seeds, where there are two or more."),
        (Code("*"), f": {STAR}."),
        (Strong("▲ win, ▼ loss"), f": {CORRECTED}.") if tested else (NO_VERDICT,),
    ]
    if tested:
        marks.append(
            (
                Strong("Detectable"),
                ": the true difference that a single test (p below 0.05, before Holm's correction) finds four times in "
                "five. Smaller ones are missed more often.",
            )
        )
    if any(row.task in ("mean:math_dedup", "mean:clean") for row in board.rows):
        marks.append(
            (
                *(Code("math_dedup"), ": the math tests, of repeated questions only the first; ", Code("clean")),
                ": all tests without those and without questions that stand in the row's own mix in the same words "
                "(base: in any mix). Intervals of means over the math tests count a repeated question as two; those "
                "of ",
                *(Code("math_dedup"), " and ", Code("clean"), " do not."),
            )
        )
    return marks


def _banners(board: Board) -> Iterator[Parts]:
    if not any(row.by_seed for row in board.rows):
        yield UNMEASURED
    if board.grid.get("miniworld"):
        yield MINIWORLD
    limits = sorted({cell.limit for cell in board.records.cells if cell.limit is not None})
    if limits:
        yield (
            Strong("A small demonstration, not a measurement:"),
            f" only the first {'/'.join(map(str, limits))} items of each task were answered. Differences of several "
            "points between rows are noise.",
        )


def _warnings(board: Board) -> Iterator[Parts]:
    records = board.records
    if any(row.versus is not None and row.versus.seeds < 2 and None not in row.by_seed for row in board.rows):
        yield ONE_SEED
    instruct = instruct_models(records)
    if instruct:
        yield (
            Strong("Instruction-tuned, not a base model:"),
            f" {', '.join(instruct)}. The paper fine-tunes base models, so these numbers compare with none of its "
            "tables.",
        )
    stand_ins = stand_ins_of(records)
    if stand_ins:
        yield Strong("Stand-in data"), f", which differ from the pinned upstream files: {some(stand_ins)}."
    for mix, missing in missing_sources(records).items():
        yield (
            Strong(f"Mix {mix} lacks a source:"),
            f" {', '.join(missing)} (no training file); tasks of such a source count as out of distribution.",
        )
    for text in dict.fromkeys(text for entry in training_rows(records) for text in entry["warnings"]):
        yield Strong("In training:"), f" {text}."
    left_out = records.left_out
    for name, what in (("failed", "Failed cells"), ("unreadable", "Unreadable records")):
        if left_out.get(name):
            yield Strong(f"{what}, counted as missing:"), f" {some(left_out[name])}."
    if left_out.get("stale"):
        yield (f"{left_out['stale']} stale records (of other settings than the present plan's) are not shown.",)


def _run(board: Board) -> Iterator[tuple[str, Parts]]:
    records, grid = board.records, board.grid
    yield "Models", (", ".join(board.models),)
    if records.cells:
        tasks = [row for row in board.rows if not row.task.startswith("mean:")]
        waiting = sum(not row.by_seed for row in tasks)
        answered = (
            f"{len(tasks) - waiting} rows of model x method x task ({len(records.cells):,} cells, "
            f"{sum(cell.n_items for cell in records.cells):,} answers)"
        )
        seeds = sorted({cell.seed for cell in records.cells if cell.seed is not None})
        yield "Answered", (answered + (f"; {waiting} rows still without an answer" if waiting else ""),)
        yield "Training seeds", (", ".join(map(str, seeds)) or "none (nothing was trained)",)
        yield "Answered with", (f"{'; '.join(settings_of(records))}; greedy decoding",)
    for text in _trained(records):
        yield "Trained", (text,)
    train = grid.get("train") or {}
    yield "Recipe", (", ".join(f"{name} {train[name]}" for name in RECIPE if train.get(name) is not None),)
    devices = {str(one.provenance["device"]) for one in records.checkpoints if one.provenance.get("device")}
    yield "Machine", ("; ".join(sorted(devices)),)
    yield "Command", (Code(grid.get("command") or ""),)


def _trained(records: BoardRecords) -> list[str]:
    """One line per mix, steps and rows, so that equal training reads as one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for entry in training_rows(records):
        amounts = [f"{'/'.join(map(str, entry[name]))} {unit}" for name, unit in AMOUNTS.items() if entry[name]]
        name = entry["method"] + (f" ({entry['arm']})" if entry["arm"] else "")
        groups.setdefault((entry["mix"], ", ".join(amounts)), []).append(name)
    return [
        f"{', '.join(dict.fromkeys(names))} on {mix}" + (f": {amounts}" if amounts else "")
        for (mix, amounts), names in sorted(groups.items())
    ]


def some(names: Iterable[str]) -> str:
    """The first of many names, and how many more there are."""
    every = list(names)
    return "; ".join(every[:SHOWN]) + (f"; and {len(every) - SHOWN} more" if len(every) > SHOWN else "")


def settings_of(board: BoardRecords) -> list[str]:
    """Every engine, dtype and limit that answered, as text."""
    return sorted({describe_setting((cell.engine, cell.dtype, cell.limit)) for cell in board.cells})


def stand_ins_of(board: BoardRecords) -> list[str]:
    """Data files, of training or test, whose bytes are not the pinned upstream ones."""
    return sorted({name for cell in board.cells for name in cell.stand_ins})


def instruct_models(board: BoardRecords) -> list[str]:
    """Models that are not base models, by what the run resolved or by their name.

    The paper fine-tunes base models; an instruction-tuned one starts from another place and must be labelled.
    """
    resolved = {entry["id"] for entry in (board.grid or {}).get("models", []) if entry.get("instruct")}
    return sorted(resolved | {cell.model for cell in board.cells if INSTRUCT.search(cell.model)})


def missing_sources(board: BoardRecords) -> dict[str, list[str]]:
    """Mix -> sources of it that the data root did not have; mixes that had all are left out."""
    missing: dict[str, set[str]] = {}
    for record in board.checkpoints:
        if record.mix is not None and record.data.get("missing"):
            missing.setdefault(record.mix, set()).update(map(str, record.data["missing"]))
    return {mix: sorted(names) for mix, names in sorted(missing.items())}


def training_rows(board: BoardRecords) -> list[dict[str, Any]]:
    """Per model, method arm and mix: seeds, optimizer steps, rows and warnings, as far as the records tell."""
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for record in board.checkpoints:
        if record.mix is not None:
            entry = {"seed": record.seed, **record.training}
            groups.setdefault((record.model, record.method, record.arm, record.mix), []).append(entry)
    return [
        {
            **dict(zip(("model", "method", "arm", "mix"), key, strict=True)),
            "seeds": sorted(entry["seed"] for entry in entries),
            "steps": sorted({entry["steps"] for entry in entries if entry.get("steps") is not None}),
            "rows": sorted({entry["rows"] for entry in entries if entry.get("rows") is not None}),
            "warnings": sorted({str(text) for entry in entries for text in entry.get("warnings") or []}),
        }
        for key, entries in sorted(groups.items())
    ]
