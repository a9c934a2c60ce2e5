"""Which figures a board has, and exactly which numbers and labels stand in each; drawing.py puts them on paper.

    figures/ood.svg .png      accuracy out of distribution by data set, methods side by side (the paper's Figure 3)
    figures/deltas.svg .png   heat map of the differences to sft
    figures/forest.svg .png   the same differences with their intervals, per task and for the means

More than PER_FILE models make several files of each kind (ood-1, ood-2, ...). A figure without anything to show is not
made. Numbers are rounded as in the tables, so a chart, and the digest of it that its files carry, follows from the
records alone; `figure_disagree` compares digests (seals.py) and needs no matplotlib.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.row import Row, number
from infosteer_bench.leaderboard.views.figures.chart import Chart, Panel, Point
from infosteer_bench.leaderboard.views.figures.seals import describe, seal, shown
from infosteer_bench.leaderboard.views.text import printable
from infosteer_bench.records import write_atomic

FOLDER = "figures"
PER_FILE = 6  # models; six panels fill a page
OOD = (*GROUPS["ood"], "mean:ood", "mean:ood5")
COMPARED_MEANS = ("mean:id", "mean:ood", "mean:all")
MEAN_LABELS = {"mean:id": "mean ID", "mean:ood": "mean OOD", "mean:ood5": "without aqua", "mean:all": "mean all"}
MARKED = "* partial, of mixed settings, or on stand-in data: shown, not ranked"


def charts(board: Board) -> dict[str, Chart]:
    """The board's charts by file name without ending."""
    parts = [board.models[place : place + PER_FILE] for place in range(0, len(board.models), PER_FILE)]
    found: dict[str, Chart] = {}
    for number_of_part, part in enumerate(parts, start=1):
        ending = f"-{number_of_part}" if len(parts) > 1 else ""
        of_part = [row for row in board.rows if row.model in part]
        for kind, chart in (
            ("ood", _ood(board, of_part)),
            ("deltas", _deltas(board, of_part, kind="deltas")),
            ("forest", _deltas(board, of_part, kind="forest")),
        ):
            if chart is not None:
                found[kind + ending] = chart
    return found


def figure_files(board: Board) -> dict[str, bytes]:
    """Every figure drawn, by name relative to the board's folder."""
    return {name: data for stem, chart in charts(board).items() for name, data in _drawn(stem, chart).items()}


def figure_disagree(board_dir: Path, board: Board) -> list[str]:
    """Names of figures that are missing, damaged, edited, of other numbers, or of a chart that the board has not."""
    due = {
        f"{FOLDER}/{stem}.{ending}": chart.digest for stem, chart in charts(board).items() for ending in ("svg", "png")
    }
    wrong = [name for name, expected in due.items() if _shown_by(board_dir / name) != expected]
    return sorted([*wrong, *(name for name in _kept(board_dir) if name not in due)])


def update_figures(board_dir: Path, board: Board) -> list[str]:
    """Draw what `figure_disagree` names and nothing else; a figure that the board has no more is removed."""
    wrong = figure_disagree(board_dir, board)
    found = charts(board)
    for stem in dict.fromkeys(Path(name).stem for name in wrong):
        if stem in found:
            for name, data in _drawn(stem, found[stem]).items():
                if name in wrong:
                    write_atomic(board_dir / name, data)
        else:
            for ending in ("svg", "png"):
                (board_dir / FOLDER / f"{stem}.{ending}").unlink(missing_ok=True)
    return wrong


def _drawn(stem: str, chart: Chart) -> dict[str, bytes]:
    from infosteer_bench.leaderboard.views.figures.drawing import draw

    drawn = zip(("svg", "png"), draw(chart, description=describe(chart.digest)), strict=True)
    return {(name := f"{FOLDER}/{stem}.{ending}"): seal(name, data) for ending, data in drawn}


def _shown_by(path: Path) -> str | None:
    return shown(path.name, path.read_bytes()) if path.is_file() else None


def _kept(board_dir: Path) -> list[str]:
    """The figures in a board's folder that this module drew; whatever else lies there is not ours to judge."""
    return [
        f"{FOLDER}/{path.name}"
        for path in sorted((board_dir / FOLDER).glob("*.*"))
        if path.suffix in (".svg", ".png") and _shown_by(path) is not None
    ]


def _ood(board: Board, rows: Sequence[Row]) -> Chart | None:
    shown_rows = [row for row in rows if row.task in OOD and row.accuracy is not None]
    if not any(row.task in GROUPS["ood"] for row in shown_rows):
        return None
    return _chart(
        board,
        shown_rows,
        kind="ood",
        title="accuracy out of distribution, by data set (percent)",
        columns=OOD,
        notes=("base is the model before any training: a reference, not a method",) if _has_base(shown_rows) else (),
    )


def _deltas(board: Board, rows: Sequence[Row], *, kind: str) -> Chart | None:
    """Trained methods only: base is what all of them started from, and its distance would drown the others."""
    shown_rows = [row for row in rows if row.delta_vs_sft is not None and row.mix]
    own = [row.task for row in shown_rows if not row.task.startswith("mean:")]
    if not own:
        return None
    tasks = [task for task in GROUPS["all"] if task in own]
    tasks += [task for task in dict.fromkeys(own) if task not in GROUPS["all"]]
    if any(row.verdict for row in shown_rows):
        what = "▲ win, ▼ loss; no sign: tie" if kind == "deltas" else "filled: win or loss; hollow: tie"
        verdicts = f"{what} (5 percent, after Holm's correction over the tasks and methods of a model)"
    else:
        verdicts = "no difference is called a win or a loss: that takes two seeds or more, and every item's answer"
    return _chart(
        board,
        [row for row in shown_rows if row.task in tasks or row.task in COMPARED_MEANS],
        kind=kind,
        title="difference to plain fine-tuning (sft), in percentage points",
        columns=(*tasks, *COMPARED_MEANS),
        notes=(verdicts,),
    )


def _chart(
    board: Board, rows: Sequence[Row], *, kind: str, title: str, columns: Sequence[str], notes: tuple[str, ...]
) -> Chart:
    by_entrant: dict[tuple[str, str, str], dict[tuple[str, str], Row]] = {}
    answers = Counter((row.method, row.arm, row.model, row.task) for row in rows)
    several = {(method, arm) for (method, arm, _, _), count in answers.items() if count > 1}  # then the mix is named
    for row in rows:
        mix = row.mix if (row.method, row.arm) in several else ""
        by_entrant.setdefault((row.method, row.arm, mix), {})[row.model, row.task] = row
    present = [task for task in columns if any(row.task == task for row in rows)]
    entrants = list(by_entrant)
    panels = tuple(
        Panel(
            title=printable(model),
            points=tuple(
                tuple(_point(by_entrant[entrant].get((model, task)), kind=kind) for task in present)
                for entrant in entrants
            ),
        )
        for model in dict.fromkeys(row.model for row in rows)
    )
    points = [point for panel in panels for series in panel.points for point in series if point]
    limits = _limits(points, kind=kind)
    beyond = kind == "forest" and any(_beyond(point, limits) for point in points)
    # A column of which every number is marked has its mark at the name, once.
    whole = [all(one.marked for one in _column(panels, place)) for place in range(len(present))]
    return Chart(
        kind=kind,
        title=printable(f"{board.name}: {title}"),
        subtitle=_subtitle(rows, kind=kind),
        columns=tuple(
            (task, printable(_column_label(task, rows, mark=mark))) for task, mark in zip(present, whole, strict=True)
        ),
        entrants=tuple(zip((method for method, _, _ in entrants), map(printable, _labels(entrants)), strict=True)),
        panels=tuple(_without_marks(panel, whole) for panel in panels),
        limits=limits,
        notes=(
            *notes,
            *(["arrow: the interval goes on beyond the frame"] if beyond else []),
            *([MARKED] if any(point.marked for point in points) else []),
        ),
    )


def _column(panels: Iterable[Panel], place: int) -> list[Point]:
    return [point for panel in panels for series in panel.points if (point := series[place]) is not None]


def _without_marks(panel: Panel, columns: Sequence[bool]) -> Panel:
    return replace(
        panel,
        points=tuple(
            tuple(
                replace(point, marked=False) if point and named else point
                for point, named in zip(series, columns, strict=True)
            )
            for series in panel.points
        ),
    )


def _limits(points: Sequence[Point], *, kind: str) -> tuple[float, float]:
    """Least and greatest number to be drawn. Differences: every value, zero, and nine in ten ends of intervals, so that
    one task which a single seed decided does not flatten all others."""
    values = [point.value for point in points]
    if kind == "deltas":
        most = max(1.0, *map(abs, values))
        return -most, most
    lows = sorted(point.low for point in points if point.low is not None)
    highs = sorted(point.high for point in points if point.high is not None)
    if kind == "ood":
        return min(values + lows), max(values + highs)
    kept = len(lows) - len(lows) // 10
    most, usual = (
        (min(0.0, *values, *some_lows), max(0.0, *values, *some_highs))
        for some_lows, some_highs in ((lows, highs), (lows[-kept:], highs[:kept]))
    )
    low, high = most if most[1] - most[0] <= 2 * (usual[1] - usual[0]) else usual
    pad = round(max(0.5, 0.05 * (high - low)), 2)
    return round(low - pad, 2), round(high + pad, 2)


def _beyond(point: Point, limits: tuple[float, float]) -> bool:
    return point.low is not None and point.high is not None and (point.low < limits[0] or point.high > limits[1])


def _point(row: Row | None, *, kind: str) -> Point | None:
    if row is None:
        return None
    value = row.accuracy if kind == "ood" else row.delta_vs_sft
    interval = row.interval
    if kind != "ood":
        interval = (100 * row.versus.low, 100 * row.versus.high) if row.versus else None
    if value is None:
        return None
    low, high = (None, None) if interval is None else (float(number(end)) for end in interval)
    verdict = "" if kind == "ood" else row.verdict
    return Point(float(number(value)), low, high, verdict, marked=not row.complete or row.stand_ins)


def _labels(entrants: Sequence[tuple[str, str, str]]) -> list[str]:
    """Names for a legend: without the prefix that all variants of InfoSteer share, unless a name then stands twice."""
    short = [method.removeprefix("infosteer-") for method, _, _ in entrants]
    methods = {
        name: {method for method, _, _ in entrants if method.removeprefix("infosteer-") == name} for name in short
    }
    return [
        (name if len(methods[name]) == 1 else method)
        + (f" ({arm.replace(',', ', ')})" if arm else "")
        + (f" on {mix}" if mix else "")
        for name, (method, arm, mix) in zip(short, entrants, strict=True)
    ]


def _column_label(task: str, rows: Iterable[Row], *, mark: bool) -> str:
    """A task's name, with its items per seed where tasks differ in them."""
    star = "*" if mark else ""
    if task.startswith("mean:"):
        return MEAN_LABELS.get(task, task) + star
    counts = sorted({row.n_items for row in rows if row.task == task and row.n_items})
    told = len({row.n_items for row in rows if row.n_items and not row.task.startswith("mean:")}) < 2
    return task + star + (f" n={_span(counts)}" if counts and not told else "")


def _subtitle(rows: Sequence[Row], *, kind: str) -> str:
    """How many seeds and items, and what the intervals, or the tests, are over."""
    seeds = sorted({row.versus.seeds if kind != "ood" and row.versus else len(row.by_seed) for row in rows if row.mix})
    items = sorted({row.n_items for row in rows if row.n_items and not row.task.startswith("mean:")})
    known = any((row.interval if kind == "ood" else row.versus) is not None for row in rows)
    counts = [f"{_span(seeds)} seed{'' if seeds == [1] else 's'}" if seeds else "nothing trained"]
    counts += [f"{_span(items)} items per task"] if items else []
    what = "tested" if kind == "deltas" else "95 % intervals"
    if not known:
        what = "no intervals, since the single items are not known"
    elif seeds in ([], [1]):
        what = f"{what} over items only" + ("; another seed may differ by more" if seeds else "")
    else:
        what += " over seeds and items" + (" (base: items)" if _has_base(rows) else "")
    return ", ".join(counts) + "; " + what


def _has_base(rows: Iterable[Row]) -> bool:
    return any(not row.mix for row in rows)


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
