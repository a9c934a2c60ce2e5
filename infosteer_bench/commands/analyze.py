"""`analyze shift`: where key coefficients lie after fine-tuning, as tables, JSON, and the paper's Figure 4."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.errors import UserError

if TYPE_CHECKING:
    from infosteer_bench.analysis.checkpoints import Checkpoint
    from infosteer_bench.analysis.shift import Row, Shift
    from infosteer_bench.data.slices import TextSlice


def shift_command(options: argparse.Namespace) -> int:
    """Read base and checkpoints on one held-out text; write shift.csv, shift.json and figure4.svg and .png."""
    from infosteer_bench.analysis.checkpoints import chosen_layers, find_checkpoint
    from infosteer_bench.analysis.shift import measure_shift, to_csv, to_json
    from infosteer_bench.analysis.shift_figure import draw
    from infosteer_bench.records import write_atomic

    check_output(options.output)
    base, *others = (
        find_checkpoint(text, runs=options.runs, model_root=options.model_root)
        for text in (options.base, *options.checkpoints)
    )
    layers = chosen_layers(options.layers, base.resolved.n_layers)
    text = held_out_text(base, sources=options.sources, data_root=options.data_root, tokens=options.tokens)
    found = measure_shift(base, others, text, layers=layers, on_progress=_silent if options.quiet else _told)
    write_atomic(options.output / "shift.csv", to_csv(found))
    write_atomic(options.output / "shift.json", json.dumps(to_json(found, text, base, others), indent=1) + "\n")
    figures = draw(found, options.output)
    print("\n".join(summary(found, text)))
    print(f"written: {', '.join(str(path) for path in (options.output / 'shift.csv', *figures))}, shift.json")
    return 0


def check_output(folder: Path) -> None:
    """Raise UserError where no folder can be."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output: {folder} is a file", allowed="a folder, which may not exist yet")


def held_out_text(base: Checkpoint, *, sources: str, data_root: Path | None, tokens: int) -> TextSlice:
    """The fixed slice of held-out rows that `base` and its checkpoints are read on.

    Without a data root, an embedded model (or a checkpoint with its vocabulary) reads the embedded world's rows.
    Raises UserError for an unknown source and where there are no held-out rows.
    """
    from infosteer_bench.data.mixes import SOURCES
    from infosteer_bench.data.roots import MINIWORLD, open_source
    from infosteer_bench.data.slices import development_slice
    from infosteer_bench.grid import PromptConfig
    from infosteer_bench.models.catalog import CATALOG
    from infosteer_bench.models.files import tokenizer_digest
    from infosteer_bench.models.load import load_tokenizer

    names = list(SOURCES) if sources == "all" else [name.strip() for name in sources.split(",")]
    embedded = {tokenizer_digest(row.folder) for row in CATALOG.values() if row.folder is not None}
    if data_root is None and base.resolved.tokenizer_digest in embedded:
        data_root = MINIWORLD
    source = open_source(data_root)
    tokenizer = load_tokenizer(base.path)
    return development_slice(names, source, prompt=PromptConfig(), tokenizer=tokenizer, tokens=tokens)


def summary(found: Shift, text: TextSlice) -> list[str]:
    """What was found, for a terminal: shares of all layers together, and what they mean for the entropy."""
    from infosteer_bench.analysis.shift import BASE, SHARES

    facts = text.facts()
    lines = [
        f"text: {facts['tokens']} tokens, {facts['rows']} held-out rows of {', '.join(facts['sources'])}, "
        f"digest {facts['digest']}",
        "percent of |k| in the base model's percentile regions, all layers together; entropy in nats, mean over tokens "
        "and layers; ±: standard deviation over seeds",
    ]
    quantities = (*SHARES, "entropy_nats", "effective_memories", "low_share", "knowledge_entropy_nats")
    header = ("", "n", "0-25", "25-75", "75-100", "entropy", "effective memories", "low share", "knowledge entropy")
    body = [
        (label, str(found.row(label, SHARES[0]).n), *(_with_spread(found.row(label, name)) for name in quantities))
        for label in found.values
    ]
    lines += _columns([header, *body])
    differences = [
        (f"{label} - sft", *(_interval(row) for row in rows))
        for label in found.values
        if label != BASE
        for rows in [[found.row(label, name) for name in (SHARES[0], SHARES[2], "entropy_nats")]]
        if rows[0].vs_sft is not None
    ]
    if differences:
        header = ("", "0-25, points", "75-100, points", "entropy, nats")
        lines += ["", "difference to sft at the same seed, with its 95 % interval over seeds"]
        lines += _columns([header, *differences])
    return lines


def _with_spread(row: Row) -> str:
    digits = 2 if row.mean > 20 else 4
    return f"{row.mean:.{digits}f}" + ("" if row.std is None else f" ± {row.std:.{digits}f}")


def _interval(row: Row) -> str:
    assert row.vs_sft is not None
    known = row.vs_sft_low is not None and row.vs_sft_high is not None
    return f"{row.vs_sft:+.4f}" + (f" ({row.vs_sft_low:+.4f} to {row.vs_sft_high:+.4f})" if known else "")


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Text columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(pairs))
        for row in rows
        for pairs in [list(zip(row, widths, strict=True))]
    ]


def _told(text: str) -> None:
    print(f"analyze: {text}", file=sys.stderr, flush=True)


def _silent(text: str) -> None:
    """Nothing, with --quiet."""
