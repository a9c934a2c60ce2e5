"""What `analyze flux` leaves behind: flux.csv, flux.json, flux.html, summary.md.

flux.csv has a row per model and token (columns: `flux.Token`; line breaks in a token are written as \\n). flux.json has
the same with the entropy of every layer, and the tables as numbers. summary.md has the tables for reading.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from infosteer_bench.analysis.flux import Flux, Text, Token
from infosteer_bench.analysis.flux_page import page
from infosteer_bench.analysis.flux_sheets import NOTE, Sheet, difference_sheet, sheets
from infosteer_bench.analysis.flux_tables import SCOPES, ClassTable, DifferenceRow, class_table, difference_rows
from infosteer_bench.leaderboard.views.text import escape, table
from infosteer_bench.records import write_atomic

_DIGITS = 6


@dataclass(frozen=True)
class ModelFlux:
    """What one model read: identity (for flux.json), tokens of all texts in order, a Flux per text."""

    label: str
    identity: dict[str, Any]
    tokens: list[Token]
    fluxes: list[Flux]


@dataclass(frozen=True)
class Report:
    """Everything that is written and printed."""

    models: list[ModelFlux]
    texts: list[Text]
    settings: dict[str, Any]
    tables: list[ClassTable]
    differences: list[DifferenceRow]

    @property
    def sheets(self) -> list[Sheet]:
        """The tables for people."""
        shown = [sheet for found in self.tables for sheet in sheets(found)]
        if self.differences:
            shown.append(difference_sheet(self.models[0].label, self.differences))
        return shown


def report_of(models: list[ModelFlux], texts: list[Text], settings: dict[str, Any]) -> Report:
    """Tables of every model, and each further one against the first."""
    first, *others = models
    return Report(
        models,
        texts,
        settings,
        [class_table(model.tokens, scope) for model in models for scope in SCOPES],
        [row for other in others for row in difference_rows(first.tokens, other.tokens)],
    )


def write_report(report: Report, output: Path) -> None:
    """Write the four files into the folder `output`."""
    write_atomic(output / "flux.csv", to_csv(report.models))
    write_atomic(output / "flux.json", json.dumps(to_json(report), ensure_ascii=False, separators=(",", ":")) + "\n")
    write_atomic(output / "flux.html", page({model.label: model.tokens for model in report.models}, report.sheets))
    write_atomic(output / "summary.md", to_markdown(report))


def to_csv(models: Sequence[ModelFlux]) -> str:
    """A row per model and token."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [field.name for field in fields(Token)]
    writer.writerow(names)
    for token in (token for model in models for token in model.tokens):
        writer.writerow([_cell(getattr(token, name)) for name in names])
    return out.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.{_DIGITS}f}"
    if value is None:
        return ""
    return str(value).replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def to_json(report: Report) -> dict[str, Any]:
    """Settings, texts, tables, and per model its tokens with every layer's entropy (nats)."""
    return {
        "settings": report.settings,
        "texts": [
            {
                "name": text.name,
                "prompt": "".join(text.pieces[: text.n_prompt]),
                "written": "".join(text.pieces[text.n_prompt :]),
            }
            for text in report.texts
        ],
        "tables": _rounded([asdict(found) for found in report.tables]),
        "differences": _rounded([asdict(row) for row in report.differences]),
        "models": [
            {
                "label": model.label,
                **model.identity,
                "tokens": [
                    {**_rounded(asdict(token)), "entropy_nats_by_layer": layers}
                    for token, layers in zip(
                        model.tokens,
                        [_rounded(row) for flux in model.fluxes for row in flux.entropy.tolist()],
                        strict=True,
                    )
                ],
            }
            for model in report.models
        ],
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def to_markdown(report: Report) -> str:
    """The tables, with what was read and by which models."""
    lines = ["# Information flux", ""]
    for model in report.models:
        lines.append(
            f"- {escape(model.label)}: " + ", ".join(f"{k} {escape(str(v))}" for k, v in model.identity.items())
        )
    lines.append("- " + ", ".join(f"{key} {escape(str(value))}" for key, value in report.settings.items()))
    lines += ["", NOTE, ""]
    for sheet in report.sheets:
        body = [[escape(cell) for cell in row] for row in sheet.body]
        lines += [f"## {escape(sheet.title)}", "", *table(sheet.header, body), ""]
    return "\n".join(lines)
